package savepoints_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// watched returns how far the ledger is, after one look at it.
func watched(t *testing.T, b *savepoints.Bank) savepoints.LedgerStatus {
	t.Helper()
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); b.WatchTopic(running, nil) }()
	var last *savepoints.LedgerStatus
	before, err := b.Status(ctx)
	must(t, err)
	await(t, "a look at the ledger", func() bool {
		s, err := b.Status(ctx)
		must(t, err)
		last = s.Own.Ledger
		return last != before.Own.Ledger
	})
	stop()
	<-done
	return *last
}

// A host that writes a log knows how far the ledger is, and stops if that has more of the
// log, or another history of it.
func TestWatchTopic(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	take(t, b, smallState(1), "p")
	if s := watched(t, b); s.Size != 0 || s.Err != nil || s.Read.IsZero() {
		t.Errorf("nothing on the topic: %+v", s)
	}
	l.publish(t, b)
	take(t, b, smallState(2), "p")
	if s := watched(t, b); s.Size != 1 || s.Err != nil || s.Time.IsZero() {
		t.Errorf("behind: %+v", s)
	}
	old := openBank(t, copyBank(t, b))
	l.publish(t, b)
	if s := watched(t, old); s.Size != 2 || s.Err != nil {
		t.Errorf("a copy that is not behind: %+v", s)
	}
	l.mirrors[0].down.Store(true)
	l.mirrors[1].down.Store(true)
	if s := watched(t, b); s.Size != 1 || !errors.Is(s.Err, anchor.ErrUnavailable) || s.Read.IsZero() {
		t.Errorf("no mirror node: %+v", s)
	}
	l.mirrors[0].down.Store(false)
	l.mirrors[1].down.Store(false)
	take(t, b, smallState(3), "p") // without the ledger one can save all the same

	take(t, b, smallState(4), "p")
	l.publish(t, b)
	if s := watched(t, old); s.Size != 4 || !errors.Is(s.Err, anchor.ErrRollback) {
		t.Errorf("an old copy: %+v", s)
	}
	wantStopped(t, old, anchor.ErrRollback)
	take(t, b, smallState(5), "p")
	if s := watched(t, b); s.Size != 4 || s.Err != nil {
		t.Errorf("the newest: %+v", s)
	}
}
