//go:build !race

package segments

const everyChange = 1
