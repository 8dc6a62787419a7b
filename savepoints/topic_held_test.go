package savepoints_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// An archive that is asked for the latest save point is taken if the ledger knows of
// nothing later.
func TestArchiveAndLedger(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	s := take(t, b, smallState(1), "p").Savepoint
	l.publish(t, b)
	archive := filepath.Join(t.TempDir(), "a.car")
	must(t, os.WriteFile(archive, export(t, b, s), 0o600))
	latest := func(want savepoints.Freshness, wantErr error, accept bool) {
		t.Helper()
		to, p := reader(t, b)
		got, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, savepoints.FetchOptions{Policy: p, Sources: []string{archive}, AcceptStale: accept})
		if got.Freshness != want || !errors.Is(err, wantErr) {
			t.Errorf("%q %v; want %q %v", got.Freshness, err, want, wantErr)
		}
	}
	latest(savepoints.FreshnessLedger, nil, false)
	s = take(t, b, smallState(2), "p").Savepoint
	must(t, os.WriteFile(archive, export(t, b, s), 0o600))
	latest(savepoints.FreshnessUnknown, nil, false) // not on the ledger yet
	l.publish(t, b)
	latest(savepoints.FreshnessLedger, nil, false)
	take(t, b, smallState(3), "p")
	l.publish(t, b)
	latest("", anchor.ErrStale, false)
	latest(savepoints.FreshnessStaleAccepted, nil, true)
	l.lie(true, func(m []hcs.Message) []hcs.Message { m[0].Data = []byte("x"); return m })
	latest("", hcs.ErrChain, false)
	latest(savepoints.FreshnessStaleAccepted, nil, true)
}

// An audit compares every head on the ledger, of the own copy too, and goes on from there.
func TestAuditAndLedger(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	for i := range 3 {
		take(t, b, smallState(i), "p")
		l.publish(t, b)
	}
	o := savepoints.AuditOptions{FetchOptions: savepoints.FetchOptions{Policy: policyOf(t, b)}}
	audits := func(heads int64, fresh savepoints.Freshness) {
		t.Helper()
		r, err := b.Audit(ctx, o)
		if err != nil || r.Ledger == nil || r.Ledger.Heads != heads || r.Freshness != fresh {
			t.Fatalf("%+v %+v %v; want %d heads", r, r.Ledger, err, heads)
		}
	}
	audits(3, savepoints.FreshnessLedger)
	audits(0, savepoints.FreshnessLedger)
	fork, old := openBank(t, copyBank(t, b)), openBank(t, copyBank(t, b))
	take(t, b, smallState(4), "p")
	audits(0, savepoints.FreshnessUnknown)
	l.publish(t, b)
	l.mirrors[0].down.Store(true)
	r, err := b.Audit(ctx, o)
	if err != nil || r.Ledger.Err == nil || r.Freshness != savepoints.FreshnessUnknown {
		t.Errorf("unreachable: %+v %v", r, err)
	}
	l.mirrors[0].down.Store(false)
	audits(1, savepoints.FreshnessLedger)
	o.Restart = true
	audits(4, savepoints.FreshnessLedger)
	o.Restart = false

	if _, err := old.Audit(ctx, o); !errors.Is(err, anchor.ErrRollback) {
		t.Errorf("an old copy: %v", err)
	}
	// A head that was public for a moment, between sound ones.
	take(t, fork, smallState(7), "p")
	take(t, fork, smallState(8), "p")
	l.publish(t, fork)
	for i := range 2 {
		take(t, b, smallState(i), "p")
	}
	l.publish(t, b)
	_, url := countedGateway(t, b)
	d := newDiscovering(t, b, url)
	o.Sources = []string{url}
	for _, who := range []*savepoints.Bank{b, d.Bank} {
		if who == b {
			o.Sources = nil
		} else {
			o.Sources = []string{url}
		}
		_, err := who.Audit(ctx, o)
		if !errors.Is(err, anchor.ErrFork) {
			t.Errorf("a fork on the ledger: %v", err)
		}
	}
	files, err := filepath.Glob(filepath.Join(d.Repo().Dir(), "evidence", "*.json"))
	must(t, err)
	if len(files) != 1 {
		t.Errorf("evidence %v", files)
	}
	l.lie(true, func(m []hcs.Message) []hcs.Message { m[0].Data = []byte("x"); return m })
	o.Sources, o.Restart = nil, true
	if _, err := b.Audit(ctx, o); !errors.Is(err, hcs.ErrChain) {
		t.Errorf("with mirrors that lie: %v", err)
	}
}

// The writer of a log knows more than sources that are behind.
func TestLedgerOfOwnLog(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	take(t, b, smallState(1), "p")
	behind := openBank(t, copyBank(t, b))
	_, url := countedGateway(t, behind)
	take(t, b, smallState(2), "p")
	l.publish(t, b)
	d, err := b.Discover(ctx, savepoints.FetchOptions{Policy: policyOf(t, b), Sources: []string{url}})
	if err != nil || d.Head.Size != 2 || d.Freshness != savepoints.FreshnessLedger {
		t.Errorf("size %d, %s, %v", d.Head.Size, d.Freshness, err)
	}
	_, err = behind.Discover(ctx, savepoints.FetchOptions{Policy: policyOf(t, b), Sources: []string{url}})
	if !errors.Is(err, anchor.ErrRollback) {
		t.Errorf("a repository that was put back: %v", err)
	}
}

// An old copy of a log is not continued when the ledger knows of more.
func TestContinueAndLedger(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	take(t, b, smallState(1), "p")
	dir := copyBank(t, b)
	must(t, os.Remove(filepath.Join(dir, "log.key")))
	take(t, b, smallState(2), "p")
	l.publish(t, b)
	o := savepoints.ContinueOptions{Keys: keysOf(t, b), Unwitnessed: true}
	if _, err := continueOn(t, dir, o); !errors.Is(err, anchor.ErrRollback) {
		t.Fatal(err)
	}
	isReader(t, dir)
	_, url := countedGateway(t, b)
	o.Sources = []string{url}
	l.mirrors[0].down.Store(true) // nobody else can write it, the caller says
	c, err := continueOn(t, dir, o)
	must(t, err)
	if h, err := c.Head(ctx, ""); err != nil || h.Size != 3 { // with its takeover
		t.Errorf("size %d, %v", h.Size, err)
	}
}
