package savepoints_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// An init that was interrupted before the key was kept can be repeated as it was given. A
// log that has entries is not forgotten.
func TestInitAgain(t *testing.T) {
	w := newRegulator(t)
	for _, witnesses := range [][]string{nil, {w.line}} {
		dir := filepath.Join(t.TempDir(), "bank")
		o := savepoints.InitOptions{Origin: "log.example/again", Witnesses: witnesses}
		for range 3 {
			b, err := savepoints.Init(ctx, dir, o)
			must(t, err)
			must(t, b.Close())
			must(t, os.Remove(filepath.Join(dir, "log.key")))
		}
		b, err := savepoints.Init(ctx, dir, o)
		must(t, err)
		take(t, b, smallState(1), "p")
		must(t, b.Close())
		for _, name := range []string{"log.key", "trust.policy"} {
			must(t, os.Remove(filepath.Join(dir, name)))
			if _, err := savepoints.Init(ctx, dir, o); !errors.Is(err, savepoints.ErrLogExists) {
				t.Errorf("without %s: %v", name, err)
			}
		}
	}
}
