package savepoints

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// ErrAudit: an audit found what a sound log does not have.
var ErrAudit = errors.New("log does not pass the audit")

// AuditOptions says what is audited.
type AuditOptions struct {
	// Fetch says whose log it is and where it is read. Without sources the bank's own
	// copy is audited.
	FetchOptions
	// Restart begins with the first entry, whatever was audited before.
	Restart bool
}

// maxFindings is how many findings a report lists; all are counted.
const maxFindings = 100

// Finding is something wrong with an entry.
type Finding struct {
	Index int64 // of the entry
	Err   error
}

// AuditReport says what an audit did and found.
type AuditReport struct {
	Head      anchor.Head
	Freshness Freshness
	// From is the first entry that was read; those before it were audited earlier, up to
	// a head that this one extends.
	From int64
	// EarlierErr is why what an earlier audit left could not be used, or no more of it than
	// the head: all entries were read then. It is nil if it could, or if there was none.
	EarlierErr error
	// Of the entries read: those that anchor a save point, those of other types, and
	// those of types that are not known here.
	Savepoints, Others, Unknown int64
	// Of the log's save points: those held, whose manifests and receipts were compared with
	// their entries; of the others those that the log says are retired, and the rest.
	Held, Retired, Absent int64
	// Findings are the first maxFindings of what is wrong; Wrong counts all.
	Findings []Finding
	Wrong    int64
	// Ledger says what was compared with the topic that the policy names; nil where it
	// names none.
	Ledger *LedgerReport
}

// LedgerReport says how far an audit read the topic of a public ledger.
type LedgerReport struct {
	Topic string
	// Last is the last message that at least two mirror nodes showed.
	Last int64
	// Heads counts the different heads of the log that were read there, each of which the
	// audited head extends. Those of earlier audits are not read again.
	Heads int64
	// Err is why the topic was not read to its end; nil if it was.
	Err error
}

func (r *AuditReport) found(index int64, err error) {
	if r.Wrong++; len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, Finding{index, err})
	}
}

// Audit reads every entry of a log that no earlier audit has read, each proven to be in
// the tree of the log's newest head, which must extend the head that was audited last. It
// checks the rules between entries, and of the save points that the bank holds the
// manifest and the receipt's proof against the entry; of these all, since they can rot. The
// head must extend every head on the topic of a public ledger, where the policy names one.
// If all is well the next audit goes on from here.
//
// The error wraps ErrAudit if there are findings, which the report lists; otherwise it is
// as at [Bank.Discover], or says what could not be read. A topic that cannot be read is
// only reported.
func (b *Bank) Audit(ctx context.Context, o AuditOptions) (AuditReport, error) {
	b = b.with(o.Policy)
	earlier, err := b.earlierAudit(o)
	if err != nil {
		return AuditReport{}, err
	}
	// Before the head too: what comes meanwhile may be newer than that.
	before, err := b.repo.Records(receiptKind)
	if err != nil {
		return AuditReport{}, err
	}
	// Before the log, which then has all heads that are on the topic.
	t, err := auditTopic(ctx, o, earlier.topic)
	defer t.stop()
	if err != nil {
		return AuditReport{}, err
	}
	v, r, done, err := b.auditView(ctx, o, t)
	defer done()
	if err != nil {
		return r, err
	}
	a := &audit{b: b, v: v, r: &r, topic: t}
	if len(o.Sources) > 0 || o.Policy.Origin == b.Origin() {
		a.before = before
	}
	err = a.resume(ctx, earlier)
	if err == nil {
		err = a.sightings(ctx)
	}
	if err != nil {
		return r, b.advise(err)
	}
	if err := a.run(ctx); err != nil {
		return r, fmt.Errorf("audit of log %s: %w", o.Policy.Origin, err)
	}
	if r.Wrong > 0 {
		gravest := r.Findings[max(0, slices.IndexFunc(r.Findings, func(f Finding) bool { return mustStop(f.Err) }))]
		return r, fmt.Errorf("%w: %s: %d findings, such as entry %d: %w", ErrAudit, o.Policy.Origin, r.Wrong, gravest.Index, gravest.Err)
	}
	return r, a.save()
}

// auditView opens the log that is to be audited. The returned function is to be called in
// any case.
func (b *Bank) auditView(ctx context.Context, o AuditOptions, t *topicReading) (*anchor.View, AuditReport, func(), error) {
	r := AuditReport{Freshness: FreshnessUnknown}
	if len(o.Sources) == 0 {
		v, err := b.view(ctx, o.Policy)
		if err != nil {
			return nil, r, func() {}, err
		}
		r.Head = v.Head()
		if err := t.check(ctx, o.FetchOptions, v); err != nil {
			return nil, r, func() {}, b.advise(err)
		}
		if newest, err := t.says(r.Head); newest && err == nil {
			r.Freshness = FreshnessLedger
		}
		return v, r, func() {}, nil
	}
	_, sources, err := b.gather(ctx, o.FetchOptions)
	done := func() { closeAll(sources) }
	if err != nil {
		return nil, r, done, err
	}
	d, err := b.discoverBeside(ctx, o.FetchOptions, sources, t)
	r.Head, r.Freshness = d.Head, d.Freshness
	// What the sources give is audited, and not the bank's copy of it.
	if err == nil && d.shown.Head().Size == d.Head.Size {
		d.view = d.shown
	}
	return d.view, r, done, err
}

// audit is an audit in progress.
type audit struct {
	b       *Bank
	v       *anchor.View
	r       *AuditReport
	history *entry.History
	topic   *topicReading
	// before has the keys of the receipts that were here before the log was read, sorted, if
	// the log was to have their entries: a copy that is held here may only be behind.
	before []string
}

// auditTopic reads the policy's topic from where an earlier audit read it, or from its
// beginning: the heads up to there are not known to be extended otherwise.
func auditTopic(ctx context.Context, o AuditOptions, from topicRecord) (*topicReading, error) {
	if o.Policy.Topic == nil {
		return nil, nil
	}
	t := newTopicReading(o.Policy, from)
	t.heads = map[headKey]anchor.Head{}
	t.start(ctx, auditTopicTimeout, func() error { return nil })
	<-t.done // ctx ends it too
	return t, ctx.Err()
}

// sightings requires that the head extends every head on the ledger.
func (a *audit) sightings(ctx context.Context) error {
	t := a.topic
	if t == nil {
		return nil
	}
	a.r.Ledger = &LedgerReport{Topic: t.policy.Topic.ID, Last: t.report.Agreed.Sequence, Err: t.err}
	for _, h := range t.heads {
		if err := a.v.Extends(ctx, h); err != nil {
			return a.b.notOurs(h.Origin, fmt.Errorf("topic %s: %w", t.policy.Topic.ID, err))
		}
		a.r.Ledger.Heads++
	}
	return nil
}

func (a *audit) run(ctx context.Context) error {
	for e, err := range a.v.Entries(ctx, a.r.From) {
		if err != nil {
			return err
		}
		said, err := entry.Decode(e.Record)
		switch {
		case errors.Is(err, entry.ErrUnknownType):
			a.r.Unknown++
			continue
		case err != nil:
			a.r.found(e.Index, err)
			continue
		}
		if _, ok := said.(*entry.Savepoint); ok {
			a.r.Savepoints++
		} else {
			a.r.Others++
		}
		if err := a.history.Add(e.Index, said); err != nil {
			a.r.found(e.Index, err)
		}
	}
	a.r.Retired = a.history.Retirements()
	held, err := a.receipts(ctx)
	a.r.Held = held
	a.r.Absent = max(0, a.history.Savepoints()-held-a.r.Retired)
	return err
}

// receipts compares what the bank holds of the log's save points with their entries, and
// takes them off the retired ones.
func (a *audit) receipts(ctx context.Context) (held int64, err error) {
	origin, size := a.v.Head().Origin, a.v.Head().Size
	bundle, entries := int64(-1), []anchor.Entry(nil)
	err = a.b.receipts(ctx, func(s Savepoint, err error) (bool, error) {
		if s.Origin != origin {
			return true, nil
		}
		if err != nil {
			a.r.found(s.LogIndex, err)
			return true, nil
		}
		if s.LogIndex >= size {
			if _, here := slices.BinarySearch(a.before, receiptKey(origin, s.LogIndex)); here {
				a.r.found(s.LogIndex, a.beyond(s))
			}
			return true, nil
		}
		held++
		if _, retired := a.history.Retired(s.Entry.Policy, s.Entry.Sequence); retired {
			a.r.Retired--
		}
		if n := s.LogIndex / anchor.BundleWidth; n != bundle {
			if entries, err = a.v.Bundle(ctx, n); err != nil {
				return false, err
			}
			bundle = n
		}
		if err := a.compare(ctx, s, entries[s.LogIndex%anchor.BundleWidth]); err != nil {
			a.r.found(s.LogIndex, a.b.advise(err))
		}
		return true, ctx.Err()
	})
	return held, err
}

// beyond says of a save point whose entry is not in the log that is audited, although it is
// held, that the log was rolled back.
func (a *audit) beyond(s Savepoint) error {
	p, err := a.b.receiptPolicy(s.Origin)
	if err != nil {
		return err
	}
	r, err := then(a.b, p, func(p *anchor.Policy) (anchor.ProofResult, error) { return anchor.VerifyProof(p, s.Proof) })
	if err != nil {
		return err
	}
	return &anchor.RollbackError{Old: r.Head, New: a.v.Head()}
}

// compare compares a save point with its entry: the receipt's proof was verified when it
// was read.
func (a *audit) compare(ctx context.Context, s Savepoint, e anchor.Entry) error {
	if err := isProven(ctx, s, a.v, e); err != nil {
		return err
	}
	s, err := a.b.withManifest(ctx, s)
	if err != nil {
		return err
	}
	m := s.Manifest
	if m.Parent != nil && m.Parent.Sequence >= m.Sequence {
		return fmt.Errorf("%w: sequence %d has a parent of sequence %d", entry.ErrContradiction, m.Sequence, m.Parent.Sequence)
	}
	return nil
}
