package savepoints_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// The ledger says that a head is the newest; what it has not seen yet it does not vouch
// for; and it is read on from where it was read last.
func TestLedgerFreshness(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	c, url := countedGateway(t, b)
	d := newDiscovering(t, b, url)
	take(t, b, smallState(1), "p")
	d.finds(1, savepoints.FreshnessUnknown) // nothing on the topic
	for i := range 4 {
		l.Add(time.Now(), fmt.Append(nil, "message ", i))
	}
	l.publish(t, b)
	d.finds(1, savepoints.FreshnessLedger)
	if q := l.Queries(); !slices.Equal(q[len(q)-2:], []string{"gt:3", "gt:3"}) {
		t.Errorf("queries %v", q)
	}
	d.finds(1, savepoints.FreshnessLedger) // although no head is read this time
	if q := l.Queries(); !slices.Equal(q[len(q)-2:], []string{"gte:5", "gte:5"}) {
		t.Errorf("queries %v", q)
	}
	take(t, b, smallState(2), "p")
	d.finds(2, savepoints.FreshnessUnknown)
	l.publish(t, b)
	d.finds(2, savepoints.FreshnessLedger)

	// What was noted is of this topic and these mirrors; damaged it counts for nothing.
	before := len(l.Queries())
	text, err := b.TrustPolicy()
	must(t, err)
	one, two := l.mirrors[0].url, l.mirrors[1].url
	now := d.o.Policy
	d.o.Policy, err = anchor.ParsePolicy([]byte(strings.Replace(string(text), one+" "+two, two+" "+one, 1)))
	must(t, err)
	d.finds(2, savepoints.FreshnessLedger)
	if q := l.Queries(); q[before] != "gt:0" {
		t.Errorf("queries %v", q[before:])
	}
	d.o.Policy = now
	before = len(l.Queries())
	must(t, d.Repo().PutRecord("topics", savepoints.LogID(b.Origin()), []byte("damaged")))
	d.finds(2, savepoints.FreshnessLedger)
	if q := l.Queries(); q[before] != "gt:0" {
		t.Errorf("queries %v", q[before:])
	}

	// The ledger costs the sources nothing.
	fresh := newDiscovering(t, b, url)
	c.mu.Lock()
	c.asks = nil
	c.mu.Unlock()
	got, err := fresh.Fetch(ctx, savepoints.Ref{Policy: "p"}, fresh.o)
	if err != nil || got.Freshness != savepoints.FreshnessLedger {
		t.Errorf("%s %v", got.Freshness, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asks) > 6 || len(c.asks) == 0 {
		t.Errorf("%d requests: %q", len(c.asks), c.asks)
	}
}

// With a max-age the newest head on the topic must be no older, and what extends it is
// fresh too.
func TestLedgerMaxAge(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	_, url := countedGateway(t, b)
	take(t, b, smallState(1), "p")
	h, err := b.Head(ctx, "")
	must(t, err)
	_, err = l.Publish(time.Now().Add(-2*time.Hour), h)
	must(t, err)
	take(t, b, smallState(2), "p")
	for age, want := range map[string]savepoints.Freshness{"1h": savepoints.FreshnessUnknown, "3h": savepoints.FreshnessLedger} {
		d := newDiscovering(t, b, url)
		text, err := b.TrustPolicy()
		must(t, err)
		d.o.Policy, err = anchor.ParsePolicy(fmt.Appendf(nil, "%s# ipfs-savepoint: max-age %s\n", text, age))
		must(t, err)
		d.finds(2, want)
	}
}

// A policy may name the message to begin with.
func TestLedgerBegin(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	_, url := countedGateway(t, b)
	take(t, b, smallState(1), "p")
	l.publish(t, b)
	begin := l.Messages()[0]
	take(t, b, smallState(2), "p")
	l.publish(t, b)
	text, err := b.TrustPolicy()
	must(t, err)
	policy := func(hash hcs.RunningHash) *anchor.Policy {
		at := fmt.Sprintf("%s@%d:%s ", l.ID, begin.Sequence, hash)
		p, err := anchor.ParsePolicy([]byte(strings.Replace(string(text), l.ID.String()+" ", at, 1)))
		must(t, err)
		return p
	}
	d := newDiscovering(t, b, url)
	d.o.Policy = policy(begin.RunningHash)
	d.finds(2, savepoints.FreshnessLedger)
	if q := l.Queries(); !slices.Equal(q, []string{"gte:1", "gte:1"}) {
		t.Errorf("queries %v", q)
	}
	other := begin.RunningHash
	other[0] ^= 1
	d = newDiscovering(t, b, url)
	d.o.Policy = policy(other)
	d.fails(hcs.ErrChain)
}

// A source that shows less than the ledger is rolled back, and one that shows another
// history than the ledger is forked: nothing of it is remembered.
func TestLedgerContradicts(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	take(t, b, smallState(1), "p")
	old, fork := openBank(t, copyBank(t, b)), openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	take(t, fork, smallState(3), "p")
	take(t, fork, smallState(4), "p")
	_, url := countedGateway(t, b)
	_, oldURL := countedGateway(t, old)
	_, forkURL := countedGateway(t, fork)
	l.publish(t, b)

	d := newDiscovering(t, b, oldURL)
	for range 2 { // the second time from the record
		err := d.fails(anchor.ErrRollback)
		d.evidence(err, anchor.EvidenceObservation)
		if !strings.Contains(err.Error(), "size 1 presented, size 2 was known") || !strings.Contains(err.Error(), l.ID.String()) {
			t.Error(err)
		}
	}
	d.o.AcceptStale = true
	d.fails(anchor.ErrRollback)

	d = newDiscovering(t, b, forkURL)
	d.evidence(d.fails(anchor.ErrFork), anchor.EvidenceFork)
	d.o.Sources = []string{url}
	d.finds(2, savepoints.FreshnessLedger)

	// A fork of one size, on the topic itself.
	other := openBank(t, copyBank(t, old))
	take(t, other, smallState(5), "p")
	l.publish(t, other)
	for range 2 { // it is not read over
		d := newDiscovering(t, b, url)
		d.evidence(d.fails(anchor.ErrFork), anchor.EvidenceFork)
	}
	d.fails(anchor.ErrFork) // one head of it is in the record
	d.fails(anchor.ErrFork)
}

// A log that grows, and whose head gets onto the ledger, after the source was asked, is
// not rolled back.
func TestLedgerIsAhead(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	take(t, b, smallState(1), "p")
	old := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	l.publish(t, b)
	now, err := b.Repo().Gateway(b.LogRoot)
	must(t, err)
	before, err := old.Repo().Gateway(old.LogRoot)
	must(t, err)
	var asked atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/checkpoint") {
			asked.Add(1)
		}
		if asked.Load() > 1 {
			now.ServeHTTP(w, r)
			return
		}
		before.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	newDiscovering(t, b, web.URL).finds(2, savepoints.FreshnessLedger)
	if asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// Mirror nodes that lie are found out. The log is sound all the same, and may be taken.
func TestMirrorNodesLie(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	_, url := countedGateway(t, b)
	var oldURL string
	for i := range 3 {
		if i == 2 {
			_, oldURL = countedGateway(t, openBank(t, copyBank(t, b)))
		}
		take(t, b, smallState(i), "p")
		l.publish(t, b)
	}
	rechain := func(m []hcs.Message) []hcs.Message {
		var previous hcs.RunningHash
		for i := range m {
			m[i].RunningHash = m[i].Hash(previous)
			previous = m[i].RunningHash
		}
		return m
	}
	for name, c := range map[string]struct {
		all    bool
		change func([]hcs.Message) []hcs.Message
		want   error
	}{
		"changed":   {true, func(m []hcs.Message) []hcs.Message { m[1].Data = []byte("x"); return m }, hcs.ErrChain},
		"removed":   {true, func(m []hcs.Message) []hcs.Message { return slices.Delete(m, 1, 2) }, hcs.ErrChain},
		"reordered": {true, func(m []hcs.Message) []hcs.Message { m[1], m[2] = m[2], m[1]; return m }, hcs.ErrChain},
		"redated": {true, func(m []hcs.Message) []hcs.Message {
			m[2].Time = m[2].Time.Add(time.Second)
			return m
		}, hcs.ErrChain},
		"another topic": {false, func(m []hcs.Message) []hcs.Message { m[2].Data = []byte("x"); return rechain(m) }, hcs.ErrDisagree},
	} {
		t.Run(name, func(t *testing.T) {
			l.lie(true, nil)
			l.lie(c.all, c.change)
			d := newDiscovering(t, b, url)
			for range 2 { // a lie is not kept
				d.fails(c.want)
			}
			d.o.AcceptStale = true
			d.finds(3, savepoints.FreshnessStaleAccepted)
			if !strings.Contains(strings.Join(d.reports, "\n"), c.want.Error()) {
				t.Errorf("reports %q", d.reports)
			}
			l.lie(true, nil)
			d.o.AcceptStale = false
			d.finds(3, savepoints.FreshnessLedger)
		})
	}
	// One that keeps the end back, or another that made it up: that is told, and binds.
	l.lie(false, func(m []hcs.Message) []hcs.Message { return m[:2] })
	d := newDiscovering(t, b, url)
	d.finds(3, savepoints.FreshnessUnknown)
	if !strings.Contains(strings.Join(d.reports, "\n"), "shows 2 messages") {
		t.Errorf("reports %q", d.reports)
	}
	d = newDiscovering(t, b, oldURL)
	d.fails(anchor.ErrRollback)
	d = newDiscovering(t, b, url)
	d.finds(3, savepoints.FreshnessUnknown)
	// What only one showed is not taken for read.
	l.lie(true, nil)
	before := len(l.Queries())
	d.finds(3, savepoints.FreshnessLedger)
	if q := l.Queries(); q[before] != "gte:2" {
		t.Errorf("queries %v", q[before:])
	}
}

// A ledger that cannot be reached says nothing: the log may be stale.
func TestLedgerUnreachable(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	_, url := countedGateway(t, b)
	take(t, b, smallState(1), "p")
	l.publish(t, b)
	d := newDiscovering(t, b, url)
	l.mirrors[0].down.Store(true)
	d.fails(anchor.ErrStale)
	d.o.AcceptStale = true
	d.finds(1, savepoints.FreshnessStaleAccepted)
	// A head that is known from earlier binds all the same.
	l.mirrors[0].down.Store(false)
	take(t, b, smallState(2), "p")
	old := openBank(t, copyBank(t, b))
	take(t, b, smallState(3), "p")
	l.publish(t, b)
	d.finds(3, savepoints.FreshnessLedger)
	_, oldURL := countedGateway(t, old)
	other := newDiscovering(t, b, oldURL)
	must(t, copyRecord(d, other))
	l.mirrors[1].down.Store(true)
	other.o.AcceptStale = true
	other.fails(anchor.ErrRollback)
}

// A reading that did not come to the end is gone on with.
func TestLedgerInParts(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	_, url := countedGateway(t, b)
	take(t, b, smallState(1), "p")
	l.publish(t, b)
	for i := range 8 {
		l.Add(time.Now(), fmt.Append(nil, "message ", i))
	}
	d := newDiscovering(t, b, url)
	l.mirrors[0].left.Store(2)
	d.fails(anchor.ErrStale)
	l.mirrors[0].down.Store(false)
	before := len(l.Queries())
	d.finds(1, savepoints.FreshnessLedger) // its head is in what was read
	if q := l.Queries(); q[before] != "gte:6" || q[before+1] != "gte:6" {
		t.Errorf("queries %v", q[before:])
	}
}

// Witnesses come first; the ledger is the second oracle.
func TestLedgerBesideWitnesses(t *testing.T) {
	w := newRegulator(t)
	b, l := newLedgerBank(t, savepoints.InitOptions{Witnesses: []string{w.line}})
	w.watch(t, b)
	_, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	h := policyHead(t, b)
	_, err = l.Publish(time.Now(), h)
	must(t, err)
	_, url := countedGateway(t, b)
	d := newDiscovering(t, b, url)
	d.finds(1, savepoints.FreshnessWitnessed)
	w.down.Store(true)
	d.finds(1, savepoints.FreshnessLedger)
	l.mirrors[0].down.Store(true)
	d.fails(anchor.ErrStale)
	w.down.Store(false)
	d.finds(1, savepoints.FreshnessWitnessed)
	if !strings.Contains(strings.Join(d.reports, "\n"), "was read to message") {
		t.Errorf("reports %q", d.reports)
	}
	// A witness does not outweigh a head that was public.
	l.mirrors[0].down.Store(false)
	old := openBank(t, copyBank(t, b))
	_, oldURL := countedGateway(t, old)
	_, err = b.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	_, err = l.Publish(time.Now(), policyHead(t, b))
	must(t, err)
	w.down.Store(true)
	newDiscovering(t, b, oldURL).fails(anchor.ErrRollback)
}

// policyHead is the newest head that satisfies the bank's own trust policy.
func policyHead(t *testing.T, b *savepoints.Bank) anchor.Head {
	t.Helper()
	h, ok, err := anchor.LoadHead(ctx, repoStore{b.Repo().Blocks, b.Repo()}, policyOf(t, b))
	must(t, err)
	if !ok {
		t.Fatal("no head was published")
	}
	return h
}
