package savepoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
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
// witnesses are asked whether they have seen a larger log. Where the policy names a topic
// of a public ledger, that is read meanwhile: the head must extend the newest one there.
//
// Outcomes: anchor.ErrFork, with the evidence kept in the repository, anchor.ErrRollback,
// anchor.ErrStale if the policy demands witnesses, a ledger, or an age, and the head cannot
// be shown to be fresh (unless AcceptStale), hcs.ErrChain and hcs.ErrDisagree if the
// ledger's mirror nodes lie (unless AcceptStale), node.ErrUnreachable and others if no
// source shows a trusted head. Their texts say what to do.
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
	t := b.readTopic(ctx, o.Policy)
	defer t.stop()
	return b.discoverBeside(ctx, o, sources, t)
}

// discoverBeside is discover with a reading of the policy's topic.
func (b *Bank) discoverBeside(ctx context.Context, o FetchOptions, sources []*source, t *topicReading) (Discovery, error) {
	d, err := b.newest(ctx, o, sources, t)
	if t != nil && errors.Is(err, anchor.ErrRollback) {
		// The log may have grown, and its head been published, since the source was asked.
		d, err = b.newest(ctx, o, sources, t)
	}
	if err == nil {
		err = b.freshen(ctx, o, &d, t)
	}
	if err != nil {
		return Discovery{}, b.advise(err)
	}
	if d.Stale != nil {
		o.report("log %s: taken although it may be stale: %v", d.Head.Origin, d.Stale)
	}
	return d, nil
}

// errWithheld: there is a larger head than the one that was taken.
var errWithheld = errors.New("entries are not given")

// newest finds the largest head whose newest entries can be read, and requires that it
// extends all others and what was seen before.
func (b *Bank) newest(ctx context.Context, o FetchOptions, sources []*source, t *topicReading) (Discovery, error) {
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
				d.Stale = fmt.Errorf("%w: %w: %s shows a head of size %d", anchor.ErrStale, errWithheld, h.source.Name, h.view.Head().Size)
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
	if err := b.overtake(ctx, o, best, &d, t); err != nil {
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
// up to it. Before that it must extend what the ledger knows. The log that is written here is never moved by what somebody else shows: a
// head of it that is larger than the own one says that this repository was rolled back.
func (b *Bank) overtake(ctx context.Context, o FetchOptions, best shownHead, d *Discovery, t *topicReading) error {
	p := o.Policy
	if p.Origin == b.Origin() {
		own, err := b.view(ctx, p)
		switch {
		case unreadable(err) && ctx.Err() == nil:
			return t.check(ctx, o, best.view) // damaged here: the source's is to heal it
		case err != nil:
			return err
		case d.Head.Size > own.Head().Size:
			if err := best.view.Extends(ctx, own.Head()); err != nil {
				return err
			}
			return rolledBack(own.Head(), d.Head)
		}
		d.view, d.Head = own, own.Head()
		return t.check(ctx, o, own)
	}
	if err := t.check(ctx, o, best.view); err != nil {
		return err
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
	case errors.Is(err, hcs.ErrChain) || errors.Is(err, hcs.ErrDisagree):
		return fmt.Errorf("%w. A mirror node that the trust policy names lies, or somebody on the way to it; of the log nothing is wrong. Ask from another network, name other mirror nodes, or take the log as it is and have that noted (--accept-stale)", err)
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
