package savepoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
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
	// knownLooks and witnessLooks are how often the sources are read before they are said to
	// show an old head: where a newer one is known here, and where witnesses say that they
	// have seen one, which is published when a quorum of them has. The pauses between
	// looks double; those of witnessLooks take three seconds.
	knownLooks, witnessLooks = 2, 6
	lookPause                = 50 * time.Millisecond
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

// discover is Discover with sources that stay open. While a log is written, a follower here
// or a witness may know a head that is a moment newer than the one that was read: the
// sources are read again before that is called a rollback.
func (b *Bank) discover(ctx context.Context, o FetchOptions, sources []*source) (Discovery, error) {
	t := b.readTopic(ctx, o.Policy)
	defer t.stop()
	return b.discoverBeside(ctx, o, sources, t)
}

// discoverBeside is discover with a reading of the policy's topic.
func (b *Bank) discoverBeside(ctx context.Context, o FetchOptions, sources []*source, t *topicReading) (Discovery, error) {
	var d Discovery
	var err error
	for looks := 1; ; looks++ {
		most := knownLooks
		if d, err = b.newest(ctx, o, sources, t); err == nil {
			most = witnessLooks
			if err = b.freshen(ctx, o, &d, t); errors.Is(err, anchor.ErrRollback) {
				err = &sourceError{d.sources[0].Name, err}
			}
		}
		if !errors.Is(err, anchor.ErrRollback) || looks == most || !waitFor(ctx, lookPause<<looks) {
			break
		}
	}
	if err != nil {
		return Discovery{}, b.advise(err)
	}
	if d.Stale != nil {
		o.report("log %s: taken although it may be stale: %v", d.Head.Origin, d.Stale)
	}
	return d, nil
}

// waitFor waits, and reports whether the context allowed it.
func waitFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errWithheld: there is a larger head than the one that was taken.
var errWithheld = errors.New("entries are not given")

// newest finds the largest head whose newest entries can be read, and requires that it
// extends all others and what was seen before.
func (b *Bank) newest(ctx context.Context, o FetchOptions, sources []*source, t *topicReading) (Discovery, error) {
	before := b.knownSize(ctx, o.Policy)
	shown, reasons := b.heads(ctx, o, sources)
	slices.SortStableFunc(shown, func(x, y shownHead) int { return fresherFirst(o.Policy, x, y) })
	var d Discovery
	var best shownHead
	for _, err := range reasons {
		if errors.Is(err, anchor.ErrFork) { // from the policy's floor: whatever others show
			return d, err
		}
	}
	for _, h := range shown {
		if d.shown == nil {
			err := readable(ctx, h)
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
	if err := b.overtake(ctx, o, best, before, &d, t); err != nil {
		return d, &sourceError{best.source.Name, err}
	}
	return d, d.consistent(ctx, best, shown) // the bank's own log may be the longer one
}

// fresherFirst sorts heads that are sorted by size also by how recent their cosignatures are.
func fresherFirst(p *anchor.Policy, x, y shownHead) int {
	a, b := x.view.Head(), y.view.Head()
	switch {
	case a.Size != b.Size:
		return cmp.Compare(b.Size, a.Size)
	case anchor.Fresher(p, a, b):
		return -1
	case anchor.Fresher(p, b, a):
		return 1
	}
	return 0
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

// readable reports whether the end of a log can be read, within the time that a source
// has: that is what comes next.
func readable(ctx context.Context, h shownHead) error {
	size := h.view.Head().Size
	if size == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	_, err := h.view.Bundle(limited, (size-1)/anchor.BundleWidth)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %s: no entries within %s", node.ErrUnreachable, h.source.Name, headTimeout)
	}
	return err
}

// knownSize is the size of the largest head of a log that was accepted here before, as far
// as that can be read.
func (b *Bank) knownSize(ctx context.Context, p *anchor.Policy) int64 {
	before, _ := b.seen(p) // whoever compares heads with it tells of that
	size := before.largest().Size
	if v, err := b.view(ctx, p); err == nil {
		return max(size, v.Head().Size)
	}
	return size
}

// overtake compares the best head with what the bank knows of the log, which must not be
// more, and has it remember this head. A copy of the log that the bank follows is brought
// up to it; one that has grown beyond it only since the sources were asked, when before was
// known, takes its place. Before that it must extend what the ledger knows. The log that is
// written here is never moved by what somebody else shows: a head of it that is larger than
// the own one says that this repository was rolled back, and stops this host.
func (b *Bank) overtake(ctx context.Context, o FetchOptions, best shownHead, before int64, d *Discovery, t *topicReading) error {
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
				return b.notOurs(p.Origin, err)
			}
			return b.notOurs(p.Origin, rolledBack(own.Head(), d.Head))
		}
		d.view, d.Head = own, own.Head()
		return b.notOurs(p.Origin, t.check(ctx, o, own))
	}
	if err := t.check(ctx, o, best.view); err != nil {
		return err
	}
	seen, err := b.seen(p)
	if err != nil && !errors.Is(err, ErrDamaged) { // verify tells of that
		return err
	}
	held, heldErr := b.view(ctx, p)
	newest := best.view
	if heldErr == nil {
		// Also where it is the larger one: its tiles tell a fork from an old head.
		err := best.view.Succeeds(ctx, held)
		if errors.Is(err, anchor.ErrRollback) && best.view.Head().Size >= before {
			newest, err = held, held.Extends(ctx, best.view.Head())
		}
		if err != nil {
			return err
		}
	}
	for _, h := range seen.heads() {
		if err := newest.Extends(ctx, h); err != nil {
			return err
		}
	}
	switch {
	case newest == held:
		d.view, d.Head = held, held.Head()
		return b.remember(p, d.Head, seen)
	case errors.Is(heldErr, ErrNotFound) || unreadable(heldErr) && ctx.Err() == nil:
		return b.remember(p, d.Head, seen)
	case heldErr != nil:
		return heldErr
	}
	if err := b.mirrorUnlessBusy(ctx, best.prefix, p); err != nil && !unreadable(err) {
		return err
	}
	if v, err := b.view(ctx, p); err == nil && v.Head().Size == d.Head.Size && !anchor.Fresher(p, d.Head, v.Head()) {
		d.view, d.Head = v, v.Head()
	}
	return b.remember(p, d.Head, seen)
}
