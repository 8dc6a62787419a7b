package node

import (
	"context"
	"slices"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/go-cid"
)

// Each owner has its own pin of a DAG, which is kept until the last one is gone.
func TestPinsOfOwners(t *testing.T) {
	r := newRepo(t)
	b := dag.RawBlock([]byte("wanted"))
	must(t, r.Blocks.Put(ctx, b))
	must(t, r.Pin(ctx, b.CID, "policy"))
	must(t, r.PinFor(ctx, "one", b.CID, ""))
	must(t, r.PinFor(ctx, "two", b.CID, "of two"))
	must(t, r.PinFor(ctx, "two", b.CID, "of two, again"))
	check := func(want ...PinInfo) {
		t.Helper()
		got, err := r.Pins()
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("pins %v, %v, not %v", got, err, want)
		}
		_, err = r.Collect(ctx, func(context.Context) ([]cid.Cid, error) { return nil, nil }, segments.CollectOptions{})
		must(t, err)
		if has, err := r.Blocks.Has(ctx, b.CID); err != nil || has != (len(want) > 0) {
			t.Fatalf("with pins %v: held %v, %v", want, has, err)
		}
	}
	own, one, two := PinInfo{b.CID, "", "policy"}, PinInfo{b.CID, "one", ""}, PinInfo{b.CID, "two", "of two, again"}
	check(own, one, two)
	must(t, r.UnpinFor("one", b.CID))
	must(t, r.UnpinFor("one", b.CID))
	check(own, two)
	must(t, r.Unpin(b.CID))
	if ok, err := r.Pinned(b.CID); ok || err != nil {
		t.Errorf("the pin of another counts as the repository's: %v", err)
	}
	check(two)
	must(t, r.UnpinFor("two", b.CID))
	check()
}
