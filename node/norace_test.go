//go:build !race

package node

const everyChange = 1
