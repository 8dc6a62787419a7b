package savepoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// Freshness says what is known of whether the head that was read is the newest.
type Freshness string

const (
	// FreshnessUnknown: the trust policy names no witnesses, so nobody can say.
	FreshnessUnknown Freshness = "unknown"
	// FreshnessWitnessed: a quorum of the policy's witnesses says that they have seen
	// nothing newer, now or within the policy's max-age.
	FreshnessWitnessed Freshness = "witnessed"
	// FreshnessStaleAccepted: it should be known and is not, and the caller took it all
	// the same.
	FreshnessStaleAccepted Freshness = "stale-accepted"
)

// Discovery is the newest head of a log that the sources show, verified.
type Discovery struct {
	Head      anchor.Head
	Freshness Freshness
	// Stale is why the head may not be the newest, where that was accepted.
	Stale error

	view *anchor.View
	// shown is the view of the source that showed the head; view is of the bank's own
	// copy where that has as much.
	shown *anchor.View
	// heads are those that the sources show, that of the head first.
	heads []shownHead
	// sources are those that have the log, that of the head first, and then those
	// that may have IPFS blocks.
	sources []*source
}

const (
	// maxAhead is how far the clock of who writes the log may be ahead of this one.
	maxAhead = 5 * time.Minute
	// witnessTimeout bounds how long all witnesses together are waited for.
	witnessTimeout = 15 * time.Second
)

// Discover finds the newest head of a log. All sources are asked at the same time: those
// of o, those that the trust policy names, and what the policy's IPNS names stand for
// there. Every head must be accepted by the policy and be consistent with every other
// one, with the policy's floor, and with what the bank has seen before. Then the policy's
// witnesses are asked whether they have seen a larger log.
//
// Outcomes: anchor.ErrFork, with the evidence kept in the repository, anchor.ErrRollback,
// anchor.ErrStale if the policy demands witnesses, or an age, and the head cannot be
// shown to be fresh (unless AcceptStale), node.ErrUnreachable and others if no source
// shows a trusted head. Their texts say what to do.
func (b *Bank) Discover(ctx context.Context, o FetchOptions) (Discovery, error) {
	_, sources, err := b.gather(ctx, o)
	defer closeAll(sources)
	if err != nil {
		return Discovery{}, err
	}
	return b.with(o.Policy).discover(ctx, o, sources)
}

// discover is Discover with sources that stay open.
func (b *Bank) discover(ctx context.Context, o FetchOptions, sources []*source) (Discovery, error) {
	d, err := b.newest(ctx, o, sources)
	if err == nil {
		err = b.freshen(ctx, o, &d)
	}
	if err != nil {
		return Discovery{}, b.advise(err)
	}
	if d.Stale != nil {
		o.report("log %s: taken although it may be stale: %v", d.Head.Origin, d.Stale)
	}
	return d, nil
}

// newest finds the largest head whose newest entries can be read, and requires that it
// extends all others and what was seen before.
func (b *Bank) newest(ctx context.Context, o FetchOptions, sources []*source) (Discovery, error) {
	shown, reasons := b.heads(ctx, o, sources)
	var d Discovery
	var best shownHead
	for _, err := range reasons {
		if errors.Is(err, anchor.ErrFork) { // from the policy's floor: whatever others show
			return d, err
		}
	}
	for _, h := range shown {
		if d.shown == nil {
			err := readable(ctx, h.view)
			if ctx.Err() != nil {
				return d, ctx.Err()
			}
			if err == nil {
				best, d.shown = h, h.view
			} else {
				o.report("source %s: %v", h.source.Name, err)
				reasons = append(reasons, fmt.Errorf("%s: %w", h.source.Name, err))
				d.Stale = fmt.Errorf("%w: %s shows a head of size %d whose entries it does not give", anchor.ErrStale, h.source.Name, h.view.Head().Size)
				continue
			}
		}
		d.heads = append(d.heads, h)
		if !slices.Contains(d.sources, h.source) {
			d.sources = append(d.sources, h.source)
		}
	}
	if d.shown == nil {
		return d, fmt.Errorf("no source shows a trusted head of log %s: %w", o.Policy.Origin, errors.Join(reasons...))
	}
	if err := o.rootsShown(shown, reasons); err != nil {
		return d, err
	}
	d.sources = append(d.sources, logless(sources)...)
	d.view, d.Head = d.shown, d.shown.Head()
	if unread := shown[0].view.Head(); unread.Size == d.Head.Size {
		d.Stale = nil // another source gives the same
	}
	// Nothing is remembered of a head that another contradicts: the other may be right.
	if err := d.consistent(ctx, best, shown); err != nil {
		return d, err
	}
	if err := b.overtake(ctx, o.Policy, best, &d); err != nil {
		return d, fmt.Errorf("%s: %w", best.source.Name, err)
	}
	return d, d.consistent(ctx, best, shown) // the bank's own log may be the longer one
}

// consistent requires that the head extends all others that are not larger.
func (d *Discovery) consistent(ctx context.Context, best shownHead, shown []shownHead) error {
	for _, h := range shown {
		other := h.view.Head()
		switch {
		case other.Size <= d.Head.Size:
		case h.root.Defined():
			return fmt.Errorf("log root %s: %w", h.root, &anchor.RollbackError{Old: other, New: d.Head})
		default:
			continue // not readable, or of the own log, whose newest is not published
		}
		if err := d.view.Extends(ctx, other); err != nil {
			return fmt.Errorf("%s and %s: %w", best.source.Name, h.source.Name, err)
		}
	}
	return nil
}

// rootsShown requires that each log root among the sources was read: it is a floor.
func (o FetchOptions) rootsShown(shown []shownHead, reasons []error) error {
	roots, err := o.roots()
	for _, root := range roots {
		if !slices.ContainsFunc(shown, func(h shownHead) bool { return h.root == root }) {
			return fmt.Errorf("no source shows log root %s: %w", root, errors.Join(reasons...))
		}
	}
	return err
}

// readable reports whether the end of a log can be read: that is what comes next.
func readable(ctx context.Context, v *anchor.View) error {
	if v.Head().Size == 0 {
		return nil
	}
	_, err := v.Bundle(ctx, (v.Head().Size-1)/anchor.BundleWidth)
	return err
}

const seenKind = "seen"

// overtake compares the best head with what the bank knows of the log, which must not be
// more, and has it remember this head. A copy of the log that the bank follows is brought
// up to it. The log that is written here is never moved by what somebody else shows: a
// head of it that is larger than the own one says that this repository was rolled back.
func (b *Bank) overtake(ctx context.Context, p *anchor.Policy, best shownHead, d *Discovery) error {
	if p.Origin == b.Origin() {
		own, err := b.view(ctx, p)
		switch {
		case unreadable(err) && ctx.Err() == nil:
			return nil // damaged here: the source's is to heal it
		case err != nil:
			return err
		case d.Head.Size > own.Head().Size:
			if err := best.view.Extends(ctx, own.Head()); err != nil {
				return err
			}
			return rolledBack(own.Head(), d.Head)
		}
		d.view, d.Head = own, own.Head()
		return nil
	}
	seen, ok, err := b.seen(p)
	if err != nil && !errors.Is(err, ErrDamaged) { // verify tells of that
		return err
	}
	if ok {
		if err := best.view.Extends(ctx, seen); err != nil {
			return err
		}
	}
	held, err := b.copyHead(ctx, p)
	if errors.Is(err, ErrNotFound) || unreadable(err) && ctx.Err() == nil {
		return b.remember(d.Head, seen)
	}
	if err == nil {
		err = best.view.Extends(ctx, held)
	}
	if err != nil {
		return err
	}
	if _, err := anchor.Mirror(ctx, b.store, best.prefix, p); err != nil && !unreadable(err) {
		return err
	}
	if v, err := b.view(ctx, p); err == nil && v.Head().Size == d.Head.Size {
		d.view = v
	}
	return b.remember(d.Head, seen)
}

// seen returns the largest head of a log that was accepted here without a copy of the log
// being kept. The error wraps ErrDamaged, or is the store's own.
func (b *Bank) seen(p *anchor.Policy) (anchor.Head, bool, error) {
	data, err := b.repo.Record(seenKind, LogID(p.Origin))
	if err != nil || data == nil {
		return anchor.Head{}, false, err
	}
	// Under the log's key alone: the witnesses may have been others.
	h, err := anchor.VerifyCheckpoint(p.KeyOnly(), data)
	if err != nil {
		return anchor.Head{}, false, fmt.Errorf("%w: head of log %s that was seen before: %w", ErrDamaged, p.Origin, err)
	}
	return h, true, nil
}

func (b *Bank) remember(h, seen anchor.Head) error {
	if h.Size <= seen.Size && seen.Checkpoint != nil {
		return nil
	}
	return b.repo.PutRecord(seenKind, LogID(h.Origin), h.Checkpoint)
}

// freshen finds out whether the head is the newest.
func (b *Bank) freshen(ctx context.Context, o FetchOptions, d *Discovery) error {
	d.Freshness = FreshnessUnknown
	stale := d.Stale
	var err error
	if stale == nil {
		if o.Policy.Quorum {
			err = b.askWitnesses(ctx, o, d.view)
		} else {
			err = checkAge(ctx, o.Policy, d.view)
		}
		if errors.Is(err, anchor.ErrStale) {
			stale, err = err, nil
		}
	}
	switch {
	case err != nil:
		return err
	case stale == nil && o.Policy.Quorum:
		d.Freshness = FreshnessWitnessed
	case stale != nil && o.AcceptStale:
		d.Freshness, d.Stale = FreshnessStaleAccepted, stale
	case stale != nil:
		return stale
	}
	return nil
}

// askWitnesses asks whether a larger head was seen than v's.
func (b *Bank) askWitnesses(ctx context.Context, o FetchOptions, v *anchor.View) error {
	limited, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	_, err := v.Cosign(limited, o.Policy, o.witnesses(), v.Head().Size)
	if err == nil || mustStop(err) || ctx.Err() != nil {
		return cmp.Or(ctx.Err(), err)
	}
	p := o.Policy
	if p.MaxAge > 0 && anchor.CosignedSince(p, v.Head(), time.Now().Add(-p.MaxAge)) {
		return nil
	}
	return fmt.Errorf("%w: the witnesses of log %s do not say that size %d is the newest: %w", anchor.ErrStale, p.Origin, v.Head().Size, err)
}

func (o FetchOptions) witnesses() []anchor.Witness {
	if o.Witnesses != nil {
		return o.Witnesses
	}
	return witness.Clients(o.Policy, witness.ClientOptions{})
}

// checkAge compares the age that a policy without witnesses allows with what the newest
// entry says.
func checkAge(ctx context.Context, p *anchor.Policy, v *anchor.View) error {
	size := v.Head().Size
	if p.MaxAge == 0 {
		return nil
	}
	if size == 0 {
		return fmt.Errorf("%w: log %s is empty, its age is not known", anchor.ErrStale, p.Origin)
	}
	last, err := v.Bundle(ctx, (size-1)/anchor.BundleWidth)
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(last) {
		said, err := entry.Decode(e.Record)
		if err != nil {
			continue
		}
		s := said.Base()
		age := time.Since(s.Time)
		if age < -maxAhead {
			return fmt.Errorf("%w: the newest entry of log %s says %s, which is not yet: this machine's clock may be wrong",
				anchor.ErrStale, p.Origin, s.Time.Format(time.RFC3339))
		}
		if age > p.MaxAge {
			return fmt.Errorf("%w: the newest entry of log %s says %s, more than the trust policy's %s ago",
				anchor.ErrStale, p.Origin, s.Time.Format(time.RFC3339), p.MaxAge)
		}
		return nil
	}
	return fmt.Errorf("%w: none of the newest entries of log %s says when it was made", anchor.ErrStale, p.Origin)
}

// advise adds to an outcome what to do next, and keeps the evidence that it has.
func (b *Bank) advise(err error) error {
	kept, evidenceErr := b.keepEvidence(err)
	if evidenceErr != nil {
		err = errors.Join(err, fmt.Errorf("evidence could not be kept: %w", evidenceErr))
	}
	if kept != "" {
		err = fmt.Errorf("%w (evidence that others can check: %s)", err, kept)
	}
	switch {
	case errors.Is(err, anchor.ErrFork):
		return fmt.Errorf("%w. Believe neither history: ask the log's keeper and the witnesses which one is right; nothing was taken from either", err)
	case errors.Is(err, anchor.ErrRollback):
		return fmt.Errorf("%w. There is a newer log than this: ask other sources (--from); what is newer and lost everywhere can only be given up by a trust policy that does not demand it", err)
	case errors.Is(err, anchor.ErrStale):
		return fmt.Errorf("%w. Ask again when they can be reached, ask other sources (--from), or take it as it is and have that noted (--accept-stale)", err)
	}
	return err
}

const evidenceDir = "evidence"

// keepEvidence writes what an error proves against a log to a file, and returns its
// path; empty if it proves nothing to others.
func (b *Bank) keepEvidence(err error) (string, error) {
	var data []byte
	var old, new anchor.Head
	var fork *anchor.ForkError
	var rollback *anchor.RollbackError
	var encodeErr error
	switch {
	case errors.As(err, &fork):
		old, new = fork.Old, fork.New
		data, encodeErr = fork.Evidence()
	case errors.As(err, &rollback) && rollback.Old.Checkpoint != nil && rollback.New.Checkpoint != nil:
		old, new = rollback.Old, rollback.New
		data, encodeErr = rollback.Evidence()
	}
	if encodeErr != nil || data == nil {
		return "", encodeErr
	}
	name := fmt.Sprintf("%s/%s-%d-%d.json", evidenceDir, LogID(new.Origin)[:16], old.Size, new.Size)
	return b.repo.Dir() + "/" + name, b.repo.WriteFile(name, data)
}
