package savepoints_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
)

// bring copies a save point of one bank into another, which trusts its log.
func bring(t *testing.T, to, from *savepoints.Bank, s savepoints.Savepoint) *savepoints.Bank {
	t.Helper()
	b, p := trusting(t, to, from)
	_, err := b.Import(ctx, bytes.NewReader(export(t, from, s)), p, nil)
	must(t, err)
	return b
}

// withTwo is a bank with a save point of its own log and one of another log, which have a
// document in common.
func withTwo(t *testing.T) (b, other *savepoints.Bank, own, foreign savepoints.Savepoint) {
	t.Helper()
	other = initBank(t)
	foreign = take(t, other, state{"address": person, "b": "b"}, "pb").Savepoint
	b = initBank(t)
	own = take(t, b, state{"ada": person, "a": "a"}, "pa").Savepoint
	return bring(t, b, other, foreign), other, own, foreign
}

// A log erases what its own save points have. What another log's need stays, and that it
// does is said.
func TestEraseLeavesOtherLogs(t *testing.T) {
	b, other, own, foreign := withTwo(t)
	done := erase(t, b, own, "ada")
	want := []savepoints.Keeper{{CID: foreign.CID, Origin: other.Origin()}}
	if done.Blocks != 0 || done.Kept != 1 || !slices.Equal(done.KeptFor, want) || len(done.Savepoints) != 1 || done.Savepoints[0] != own.CID {
		t.Errorf("erased %+v, want it to be kept for %+v", done, want)
	}
	b = reopen(t, b)
	checkDocuments(t, b, foreign, state{"address": person, "b": "b"})
	checkDocuments(t, b, own, state{"ada": person, "a": "a"})
	// Given up there too, it goes.
	must(t, b.Repo().Unpin(foreign.CID))
	if done := erase(t, b, own, "ada"); done.Blocks != 1 || len(done.KeptFor) > 0 || len(done.Entries) > 0 {
		t.Errorf("the second time: %+v", done)
	}
	if holdsBytes(t, b, person) {
		t.Error("the bytes are in a file")
	}
}

// What somebody else has pinned here is theirs, be it the document alone.
func TestEraseLeavesOtherPins(t *testing.T) {
	b := initBank(t)
	s := take(t, b, personal(1), "p").Savepoint
	doc, err := dag.Lookup(ctx, b.Repo().Blocks, s.Manifest.State, "people/ada.png")
	must(t, err)
	pinned := dag.RawBlock([]byte(person)).CID
	for _, c := range []savepoints.Keeper{{CID: pinned}, {CID: doc.Link.CID}} {
		must(t, b.Repo().PinFor(ctx, "pinning", c.CID, "theirs"))
	}
	done := erase(t, b, s, erasedPaths...)
	if done.Blocks != 0 || done.Kept != 3 || len(done.KeptFor) != 2 || done.KeptFor[0].Owner != "pinning" {
		t.Errorf("erased %+v", done)
	}
	checkDocuments(t, b, s, personal(1))
	must(t, b.Repo().UnpinFor("pinning", doc.Link.CID))
	if done := erase(t, b, s, erasedPaths...); done.Blocks != 1 || done.KeptFor[0].CID != pinned {
		t.Errorf("the second time: %+v", done)
	}
	if v := mustVerify(t, b); v.Erased.Documents != 1 {
		t.Errorf("%+v", v)
	}
}

// The save points of a log that the own one took a policy over from are that log's.
func TestEraseLeavesThePredecessor(t *testing.T) {
	old := initBank(t)
	s := take(t, old, state{"ada": person, "n": "1"}, "p").Savepoint
	r, _ := reader(t, old)
	r = bring(t, r, old, s)
	must(t, r.Close())
	policy, err := old.TrustPolicy()
	must(t, err)
	b, err := savepoints.NewLog(ctx, r.Repo().Dir(), savepoints.NewLogOptions{Savepoint: s, Policy: policy, Sources: []string{serve(t, old).GatewayURL()}})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	next := take(t, b, state{"ada": person, "n": "2"}, "p").Savepoint
	done := erase(t, b, next, "ada")
	if want := []savepoints.Keeper{{CID: s.CID, Origin: old.Origin()}}; !slices.Equal(done.KeptFor, want) {
		t.Errorf("erased %+v, want it to be kept for %+v", done, want)
	}
	for _, s := range list(t, b) {
		if v, err := b.Verify(ctx, s); err != nil || v.Erased.Documents > 0 {
			t.Errorf("%s: %+v, %v", s.CID, v, err)
		}
	}
}

// What another log erased excuses nothing that the own save points lack.
func TestErasureOfAnotherLogExcusesNothing(t *testing.T) {
	for name, text := range map[string]string{"small": person, "large": filler("picture") + picture} {
		other := initBank(t)
		foreign := take(t, other, state{"ada": text, "b": "b"}, "pb").Savepoint
		erase(t, other, foreign, "ada")
		b := initBank(t)
		own := take(t, b, state{"ada": text, "a": "a"}, "pa").Savepoint
		b = bring(t, b, other, foreign)
		lost := dag.RawBlock([]byte(text[max(0, len(text)-len(picture)):])).CID
		if name == "small" {
			lost = dag.RawBlock([]byte(text)).CID
		}
		must(t, b.Repo().Blocks.Delete(ctx, lost))
		if _, err := b.Verify(ctx, own); !errors.Is(err, savepoints.ErrDamaged) {
			t.Errorf("%s: verify: %v", name, err)
		}
		if v, err := b.Verify(ctx, foreign); err != nil || v.Erased.Documents != 1 {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		must(t, b.Health(ctx, []savepoints.Savepoint{own, foreign}, savepoints.HealthOptions{Blocks: 100}, func(c savepoints.Checked) error {
			if serves := c.Savepoint.CID == foreign.CID; c.Places[0].Serves != serves {
				t.Errorf("%s: %s: %+v", name, c.Savepoint.Origin, c.Places)
			}
			return nil
		}))
		got, err := b.Collect(ctx, segments.CollectOptions{DryRun: true})
		must(t, err)
		if !slices.Equal(got.Missing, []cid.Cid{lost}) {
			t.Errorf("%s: missing %v, want %s", name, got.Missing, lost)
		}
		// Once both logs have erased it nothing is missing.
		erase(t, b, own, "ada")
		got, err = b.Collect(ctx, segments.CollectOptions{})
		must(t, err)
		if len(got.Missing) > 0 {
			t.Errorf("%s: missing %v after both have erased it", name, got.Missing)
		}
	}
}

// What was proven erased stays so when the log's key is replaced.
func TestErasedBeforeRotation(t *testing.T) {
	b := erasedBank(t)
	s := list(t, b)[0]
	r, _ := reader(t, b)
	r = bring(t, r, b, s)
	rotated, r, _ := withNewKey(t, b, r)
	for name, b := range map[string]*savepoints.Bank{"writer": rotated, "reader": r} {
		if v, err := b.Verify(ctx, resolved(t, b, s.CID)); err != nil || v.Erased.Documents != 2 {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}
