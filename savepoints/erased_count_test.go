package savepoints_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// A directory that cannot be read makes one count unknown, and no other.
func TestCountErasedOfDamaged(t *testing.T) {
	b := initBank(t)
	first, other := take(t, b, personal(1), "p"), take(t, b, personal(2), "p")
	last := take(t, b, state{"step": "3"}, "p")
	erase(t, b, first.Savepoint, erasedPaths...)
	data, err := b.Repo().Blocks.Get(ctx, other.Manifest.State)
	must(t, err)
	damageBlock(t, b, data)
	got, err := b.CountErased(ctx, []savepoints.Savepoint{first.Savepoint, other.Savepoint, last.Savepoint})
	if !slices.Equal(got, []uint64{2, savepoints.ErasedUnknown, 0}) || err == nil || !strings.Contains(err.Error(), other.CID.String()) || strings.Contains(err.Error(), first.CID.String()) {
		t.Errorf("%v, %v", got, err)
	}
}
