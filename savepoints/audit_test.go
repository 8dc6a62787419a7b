package savepoints_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// repoStore is a repository as the store of a log.
type repoStore struct {
	*segments.Store
	repo *node.Repo
}

func (s repoStore) Head(ctx context.Context, name string) ([]byte, error) {
	return s.repo.Head(ctx, name)
}

func (s repoStore) SwapHead(ctx context.Context, name string, old, new []byte) error {
	return s.repo.SwapHead(ctx, name, old, new)
}

// lawless is a log that takes any record, and its gateway.
type lawless struct {
	log    *anchor.Log
	policy *anchor.Policy
	url    string
}

func newLawless(t *testing.T) *lawless {
	t.Helper()
	repo, err := node.Create(ctx, filepath.Join(t.TempDir(), "lawless"))
	must(t, err)
	t.Cleanup(func() { repo.Close() })
	skey, vkey, err := anchor.GenerateKey("log.example/lawless")
	must(t, err)
	signer, err := anchor.NewSigner(skey)
	must(t, err)
	l := &lawless{}
	l.log, err = anchor.Open(ctx, repoStore{repo.Blocks, repo}, signer, anchor.Options{Create: true})
	must(t, err)
	l.policy, err = anchor.ParsePolicy(anchor.FormatPolicy(vkey))
	must(t, err)
	gateway, err := repo.Gateway(func(context.Context, string) (cid.Cid, bool) { return l.log.Head().Root, true })
	must(t, err)
	web := httptest.NewServer(gateway)
	t.Cleanup(web.Close)
	l.url = web.URL
	return l
}

func (l *lawless) add(t *testing.T, records ...[]byte) {
	t.Helper()
	for _, r := range records {
		_, _, err := l.log.Append(ctx, r)
		must(t, err)
	}
}

func TestAuditFindsBrokenRules(t *testing.T) {
	manifest := cid.NewCidV1(cid.DagCBOR, dag.RawBlock([]byte("manifest")).CID.Hash())
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	record := func(f func(*entry.Savepoint)) []byte {
		s := entry.Savepoint{}
		s.Origin, s.Sequence, s.Time, s.Savepoint = "log.example/lawless", 1, at, manifest
		f(&s)
		r, err := s.Encode()
		must(t, err)
		return r
	}
	first := record(func(*entry.Savepoint) {})
	retired, err := entry.Encode(&entry.Retire{Common: entry.Common{Origin: "log.example/lawless", Time: at}, Sequence: 1, Savepoint: manifest})
	must(t, err)
	tall := record(func(s *entry.Savepoint) { s.Height = uintPtr(7) })
	second := func(f func(*entry.Savepoint)) []byte {
		return record(func(s *entry.Savepoint) { s.Sequence, s.Time = 2, at.Add(time.Second); f(s) })
	}
	for name, c := range map[string]struct {
		records [][]byte
		want    string // empty: nothing wrong
	}{
		"sound":             {[][]byte{first, second(func(*entry.Savepoint) {})}, ""},
		"two policies":      {[][]byte{first, record(func(s *entry.Savepoint) { s.Policy[0] = 1 })}, ""},
		"a later epoch":     {[][]byte{first, second(func(s *entry.Savepoint) { s.Epoch = 1 })}, "the policy is in epoch 0"},
		"unknown type":      {[][]byte{first, {0xa2, 0x61, 'v', 0x02, 0x64, 't', 'y', 'p', 'e', 0x61, 'x'}}, ""},
		"not an entry":      {[][]byte{first, []byte("nonsense")}, "invalid"},
		"a gap":             {[][]byte{first, second(func(s *entry.Savepoint) { s.Sequence = 3 })}, "sequence 3 follows sequence 1"},
		"a repetition":      {[][]byte{first, first}, "sequence 1 follows sequence 1"},
		"begins in between": {[][]byte{second(func(*entry.Savepoint) {})}, "the policy's first"},
		"retired twice":     {[][]byte{first, retired, retired}, "was retired before"},
		"another instance":  {[][]byte{first, second(func(s *entry.Savepoint) { s.Instance[0] = 1 })}, "of instance 01"},
		"time falls":        {[][]byte{first, second(func(s *entry.Savepoint) { s.Time = at.Add(-time.Second) })}, "is before"},
		"height falls":      {[][]byte{tall, second(func(s *entry.Savepoint) { s.Height = uintPtr(6) })}, "height 6 does not follow height 7"},
		"height stays":      {[][]byte{tall, second(func(s *entry.Savepoint) { s.Height = uintPtr(7) })}, "height 7 does not follow height 7"},
		"another log":       {[][]byte{record(func(s *entry.Savepoint) { s.Origin = "log.example/other" })}, "log.example/other"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLawless(t)
			l.add(t, c.records...)
			b, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "auditor"))
			must(t, err)
			t.Cleanup(func() { b.Close() })
			o := savepoints.AuditOptions{FetchOptions: savepoints.FetchOptions{Policy: l.policy, Sources: []string{l.url}}}
			r, err := b.Audit(ctx, o)
			if c.want == "" {
				must(t, err)
				// What was audited is not read again.
				if r, err = b.Audit(ctx, o); err != nil || r.From != int64(len(c.records)) {
					t.Errorf("the second audit is from %d, %v", r.From, err)
				}
				return
			}
			if !errors.Is(err, savepoints.ErrAudit) || r.Wrong != 1 || !strings.Contains(r.Findings[0].Err.Error(), c.want) {
				t.Fatalf("%v: %+v", err, r.Findings)
			}
			if r.Findings[0].Index != int64(len(c.records)-1) {
				t.Errorf("entry %d", r.Findings[0].Index)
			}
			// It is found as often as one looks.
			if r, err = b.Audit(ctx, o); !errors.Is(err, savepoints.ErrAudit) || r.From != 0 {
				t.Errorf("the second audit is from %d, %v", r.From, err)
			}
		})
	}
}

// An audit that goes on later knows what it knew.
func TestAuditResumes(t *testing.T) {
	b := initBank(t)
	for i := range 3 {
		take(t, b, smallState(i), "p")
	}
	p := policyOf(t, b)
	o := savepoints.AuditOptions{FetchOptions: savepoints.FetchOptions{Policy: p}}
	r, err := b.Audit(ctx, o)
	if err != nil || r.From != 0 || r.Savepoints != 3 || r.Held != 3 || r.Absent != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	take(t, b, smallState(4), "p")
	if r, err = b.Audit(ctx, o); err != nil || r.From != 3 || r.Savepoints != 1 || r.Held != 4 {
		t.Fatalf("%+v %v", r, err)
	}
	must(t, b.Repo().PutRecord("audits", savepoints.LogID(p.Origin), []byte("damaged")))
	if r, err = b.Audit(ctx, o); err != nil || r.From != 0 || r.Savepoints != 4 || r.EarlierErr == nil {
		t.Fatalf("%+v %v", r, err)
	}
	if r, err = b.Audit(ctx, o); err != nil || r.From != 4 || r.EarlierErr != nil {
		t.Fatalf("%+v %v", r, err)
	}
	// A save point whose manifest is gone, and a receipt of another entry.
	one := list(t, b)[0]
	data, err := b.Repo().Blocks.Get(ctx, one.CID)
	must(t, err)
	damageBlock(t, b, data)
	if r, err = b.Audit(ctx, o); !errors.Is(err, savepoints.ErrAudit) || r.Wrong != 1 || r.Findings[0].Index != 0 {
		t.Errorf("%+v %v", r.Findings, err)
	}
}

// What an audit left binds the next one as far as it can be read: its head, also where
// nothing else of it can.
func TestAuditOfDamagedRecord(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	fork := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	take(t, fork, smallState(3), "p")
	take(t, fork, smallState(4), "p")
	p := policyOf(t, b)
	o := savepoints.AuditOptions{FetchOptions: savepoints.FetchOptions{Policy: p}}
	_, err := b.Audit(ctx, o)
	must(t, err)
	record, err := b.Repo().Record("audits", savepoints.LogID(p.Origin))
	must(t, err)
	for what, damage := range map[string][2]string{
		"version": {`"v":2`, `"v":3`}, "history": {`"Policies":`, `"Policy":`}, "form": {`"v":2`, `"v":"2"`},
	} {
		damaged := strings.Replace(string(record), damage[0], damage[1], 1)
		must(t, b.Repo().PutRecord("audits", savepoints.LogID(p.Origin), []byte(damaged)))
		must(t, fork.Repo().PutRecord("audits", savepoints.LogID(p.Origin), []byte(damaged)))
		if r, err := b.Audit(ctx, o); err != nil || r.From != 0 || r.EarlierErr == nil {
			t.Errorf("%s: %+v %v", what, r, err)
		}
		if _, err := fork.Audit(ctx, o); !errors.Is(err, anchor.ErrFork) {
			t.Errorf("%s, another history: %v", what, err)
		}
	}
}

// After the log's key was replaced an audit goes on where the last one ended.
func TestAuditResumesAfterRotation(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	o := savepoints.AuditOptions{FetchOptions: savepoints.FetchOptions{Policy: p, Sources: []string{url}}}
	r, err := to.Audit(ctx, o)
	must(t, err)
	before := r.Head.Size
	rotated, to, next := withNewKey(t, b, to)
	_, url = countedGateway(t, rotated)
	o.Policy, o.Sources = next, []string{url}
	if r, err = to.Audit(ctx, o); err != nil || r.From != before || r.EarlierErr != nil {
		t.Errorf("%+v %v", r, err)
	}
}

// A save point that is held and lies beyond the log was not compared with it: a copy here may
// be behind, sources that show no more are not.
func TestAuditOfShortLog(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	_, url := countedGateway(t, openBank(t, copyBank(t, b)))
	to, p := reader(t, b)
	follows(t, to, p, url, 1)
	imports(t, to, p, archived(t, b, take(t, b, smallState(2), "p")))
	o := savepoints.AuditOptions{FetchOptions: savepoints.FetchOptions{Policy: p}}
	if r, err := to.Audit(ctx, o); err != nil || r.Held != 1 {
		t.Errorf("of the copy: %+v %v", r, err)
	}
	// Although it is forgotten what the archive showed.
	must(t, os.RemoveAll(filepath.Join(to.Repo().Dir(), "meta", "archived")))
	o.Sources = []string{url}
	r, err := to.Audit(ctx, o)
	if !errors.Is(err, savepoints.ErrAudit) || !errors.Is(err, anchor.ErrRollback) || r.Held != 1 || r.Wrong != 1 || r.Findings[0].Index != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

// An audit that finds another entry than the one that a receipt proves keeps both proofs.
func TestAuditKeepsEvidence(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	fork := openBank(t, copyBank(t, b))
	other := archived(t, fork, take(t, fork, smallState(3), "p"))
	take(t, b, smallState(2), "p")
	to, p := reader(t, b)
	imports(t, to, p, other)
	imports(t, to, p, archived(t, b, take(t, b, smallState(4), "p"))) // its head is the larger one
	_, url := countedGateway(t, b)
	o := savepoints.FetchOptions{Policy: p, Sources: []string{url}}
	r, err := to.Audit(ctx, savepoints.AuditOptions{FetchOptions: o})
	if !errors.Is(err, savepoints.ErrAudit) || !errors.Is(err, anchor.ErrFork) || r.Wrong != 1 || r.Findings[0].Index != 1 {
		t.Fatalf("%+v %v", r.Findings, err)
	}
	files := evidenceFiles(t, to)
	if len(files) != 1 {
		t.Fatalf("evidence %q", files)
	}
	text, err := os.ReadFile(files[0])
	must(t, err)
	if got, err := anchor.CheckEvidence(p, text); err != nil || got.Kind != anchor.EvidenceEntries || got.Index != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A damaged receipt is of the log and the entry under which it is kept.
func TestAuditOfDamagedReceipt(t *testing.T) {
	a, b := initBank(t), initBank(t)
	take(t, a, smallState(1), "p")
	imported := archived(t, a, take(t, a, smallState(2), "p"))
	take(t, b, smallState(3), "p")
	to, pa := reader(t, a)
	to, pb := trusting(t, to, b)
	imports(t, to, pa, imported)
	damage(t, receiptFiles(t, to)[0], 100)
	audit := func(p *anchor.Policy, of *savepoints.Bank) (savepoints.AuditReport, error) {
		_, url := countedGateway(t, of)
		return to.Audit(ctx, savepoints.AuditOptions{FetchOptions: savepoints.FetchOptions{Policy: p, Sources: []string{url}}})
	}
	if r, err := audit(pb, b); err != nil {
		t.Errorf("the other log: %+v %v", r.Findings, err)
	}
	if r, err := audit(pa, a); !errors.Is(err, savepoints.ErrAudit) || r.Wrong != 1 || r.Findings[0].Index != 1 {
		t.Errorf("its log: %+v %v", r.Findings, err)
	}
}
