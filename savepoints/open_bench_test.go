package savepoints_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// BenchmarkOpen opens a repository whose log has so many save points, as each command
// does that no daemon runs for.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{100, 3000} {
		b.Run(fmt.Sprintf("savepoints=%d", n), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "repo")
			bank, err := savepoints.Init(ctx, dir, savepoints.InitOptions{})
			must(b, err)
			for i := range n {
				take(b, bank, smallState(i), "p")
			}
			must(b, bank.Close())
			bank, err = savepoints.Open(ctx, dir) // verifies all receipts, once
			must(b, err)
			must(b, bank.Close())
			for b.Loop() {
				bank, err := savepoints.Open(ctx, dir)
				must(b, err)
				must(b, bank.Close())
			}
		})
	}
}
