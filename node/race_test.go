//go:build race

package node

// everyChange: the race detector makes the tests that fail at each change of the disk
// in turn ten times slower, and has nothing new to see in most of them.
const everyChange = 9
