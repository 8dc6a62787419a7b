package savepoints_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// Receipts that an open found whole are not all verified by the next: what is wrong with
// one is found by who reads it, and mended by the open after that.
func TestReceiptsFoundWhole(t *testing.T) {
	b := initBank(t)
	const n = 80 // more than lets an open note it
	for i := range n {
		take(t, b, state{"a": string(rune('a' + i%2))}, "p")
	}
	dir := b.Repo().Dir()
	open := func() {
		t.Helper()
		must(t, b.Close())
		b = openBank(t, dir)
		found, err := filepath.Glob(filepath.Join(dir, "meta", "whole", "*"))
		must(t, err)
		if len(found) != 1 {
			t.Fatalf("noted as whole: %v", found)
		}
	}
	open()
	receipts := receiptFiles(t, b)

	damage(t, receipts[7], 100)
	open()
	if _, err := b.Receipts(ctx); !errors.Is(err, savepoints.ErrDamaged) {
		t.Fatalf("a damaged receipt: %v", err)
	}
	open() // verifies all, and notes that
	if len(checkHistory(t, b)) != n {
		t.Error("the damaged receipt was not made again")
	}

	// One that is missing is seen without being read.
	must(t, os.Remove(receipts[8]))
	open()
	if len(checkHistory(t, b)) != n {
		t.Error("the missing receipt was not made again")
	}

	// Another trust policy may ask for other signatures.
	damage(t, receipts[9], 100)
	policy, err := os.ReadFile(filepath.Join(dir, "trust.policy"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "trust.policy"), append(policy, "# another\n"...), 0o600))
	open()
	if len(checkHistory(t, b)) != n {
		t.Error("under another policy the receipts were not verified")
	}

	// An entry after those is finished as ever.
	take(t, b, state{"a": "z"}, "p")
	newest := receiptFiles(t, b)[n]
	damage(t, newest, 100)
	open()
	if len(checkHistory(t, b)) != n+1 {
		t.Error("the newest receipt was not made again")
	}

	must(t, os.WriteFile(filepath.Join(dir, "meta", "whole", savepoints.LogID(b.Origin())[:16]), []byte("damaged"), 0o600))
	open()
	checkHistory(t, b)
}
