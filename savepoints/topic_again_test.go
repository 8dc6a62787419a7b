package savepoints_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// What mirror nodes made up once does not make honest ones liars: the topic is read again.
// What the log signed of it binds all the same.
func TestTopicIsReadAgain(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	_, url := countedGateway(t, b)
	for i := range 3 {
		take(t, b, smallState(i), "p")
		l.publish(t, b)
	}
	l.lie(true, func(m []hcs.Message) []hcs.Message {
		m[0].Data = []byte("x")
		var previous hcs.RunningHash
		for i := range m {
			m[i].RunningHash = m[i].Hash(previous)
			previous = m[i].RunningHash
		}
		return m
	})
	d := newDiscovering(t, b, url)
	d.finds(3, savepoints.FreshnessLedger) // all of them lie, and agree
	l.lie(true, nil)
	d.finds(3, savepoints.FreshnessLedger)
	const again = "read again from the beginning"
	if !strings.Contains(strings.Join(d.reports, "\n"), again) {
		t.Errorf("reports %q", d.reports)
	}
	d.reports = nil
	before := len(l.Queries())
	d.finds(3, savepoints.FreshnessLedger)
	if q := l.Queries(); q[before] != "gte:3" || strings.Contains(strings.Join(d.reports, "\n"), again) {
		t.Errorf("queries %v, reports %q", q[before:], d.reports)
	}

	// Who lies now does not have what was read forgotten.
	l.lie(true, func(m []hcs.Message) []hcs.Message { m[2].RunningHash[0] ^= 1; return m })
	d.fails(hcs.ErrChain)
	l.lie(true, nil)
	before = len(l.Queries())
	d.finds(3, savepoints.FreshnessLedger)
	if q := l.Queries(); q[before] != "gte:3" {
		t.Errorf("queries %v", q[before:])
	}
}

// The newest head of then is not forgotten where the topic of now has none of it.
func TestTopicReadAgainBinds(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	take(t, b, smallState(1), "p")
	l.publish(t, b)
	_, oldURL := countedGateway(t, openBank(t, copyBank(t, b)))
	_, url := countedGateway(t, b)
	take(t, b, smallState(2), "p")
	l.publish(t, b)
	d := newDiscovering(t, b, url)
	d.finds(2, savepoints.FreshnessLedger)
	other := newDiscovering(t, b, oldURL)
	must(t, copyRecord(d, other))
	l.lie(true, func(m []hcs.Message) []hcs.Message {
		m[1].Data = []byte("x")
		m[1].RunningHash = m[1].Hash(m[0].RunningHash)
		return m
	})
	other.fails(anchor.ErrRollback)
}

// Whoever may write to the topic can repeat public heads: each counts once.
func TestAuditOfRepeatedHeads(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	take(t, b, smallState(1), "p")
	first := l.publish(t, b)
	take(t, b, smallState(2), "p")
	l.publish(t, b)
	for _, h := range slices.Repeat([]anchor.Head{first}, 50) {
		_, err := l.Publish(time.Now(), h)
		must(t, err)
	}
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	r, err := to.Audit(ctx, savepoints.AuditOptions{FetchOptions: savepoints.FetchOptions{Policy: p, Sources: []string{url}}})
	must(t, err)
	if r.Ledger == nil || r.Ledger.Heads != 2 || r.Ledger.Last != 52 {
		t.Errorf("%+v", r.Ledger)
	}
}
