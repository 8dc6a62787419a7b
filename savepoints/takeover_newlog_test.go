package savepoints_test

import (
	"errors"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// newLogOf begins a new log with p of another bank, of which q is held here too.
func newLogOf(t *testing.T, old *savepoints.Bank) (b *savepoints.Bank, q savepoints.NewLogOptions) {
	t.Helper()
	take(t, old, smallState(1), "p")
	take(t, old, smallState(1), "q")
	policy, err := old.TrustPolicy()
	must(t, err)
	r, trusted := reader(t, old)
	sources := []string{serve(t, old).GatewayURL()}
	options := func(policyID string) savepoints.NewLogOptions {
		s, err := r.Fetch(ctx, savepoints.Ref{Policy: policyID}, savepoints.FetchOptions{Policy: trusted, Sources: sources})
		must(t, err)
		return savepoints.NewLogOptions{Savepoint: s.Savepoint, Policy: policy, Sources: sources}
	}
	p, q := options("p"), options("q")
	must(t, r.Close())
	b, err = savepoints.NewLog(ctx, r.Repo().Dir(), p)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b, q
}

// No policy goes on in a frozen log, and trying it leaves nothing behind.
func TestTakeoverInAFrozenLog(t *testing.T) {
	b, q := newLogOf(t, initBank(t))
	_, err := b.Freeze(ctx)
	must(t, err)
	must(t, b.Close())
	if _, err := savepoints.NewLog(ctx, b.Repo().Dir(), q); !errors.Is(err, entry.ErrFrozen) {
		t.Errorf("further policy: %v", err)
	}
	b = openBank(t, b.Repo().Dir())
	if left, err := b.Repo().Record("takeover", savepoints.LogID(b.Origin())[:16]); left != nil || err != nil {
		t.Errorf("there is a record of a takeover: %q, %v", left, err)
	}
	must(t, b.GiveUp(ctx, q.Savepoint))
}

// A takeover that was begun and that the log cannot take any more keeps nothing else from
// being done.
func TestTakeoverIsGivenUp(t *testing.T) {
	b, q := newLogOf(t, initBank(t))
	s := take(t, b, personal(1), "p")
	erase(t, b, s.Savepoint, "people/ada.json")
	first := firstEntry(t, b).(*entry.Takeover)
	_, err := b.Freeze(ctx)
	must(t, err)
	first.Policy, _ = entry.Naming{}.Key(first.Instance, "q")
	first.Time = time.Now()
	record, err := entry.Encode(first)
	must(t, err)
	must(t, b.Repo().PutRecord("takeover", savepoints.LogID(b.Origin())[:16], record))
	if _, err := b.Erase(ctx, s.Savepoint, "people/ada.json"); !errors.Is(err, entry.ErrFrozen) {
		t.Errorf("not told: %v", err)
	}
	erase(t, b, s.Savepoint, "people/ada.json")
	must(t, b.GiveUp(ctx, q.Savepoint))
}
