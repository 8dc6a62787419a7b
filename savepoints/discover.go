package savepoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
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
	// sources are those that have the log, that of the head first, and then those
	// that may have IPFS blocks.
	sources []*source
}

const (
	// headTimeout bounds how long one source may take to show the head of a log.
	headTimeout = 15 * time.Second
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

// discover is Discover with sources that stay open. While a log is written, a follower here
// or a witness may know a head that is a moment newer than the one that was read: the
// sources are read again before that is called a rollback.
func (b *Bank) discover(ctx context.Context, o FetchOptions, sources []*source) (Discovery, error) {
	var d Discovery
	var err error
	for looks := 1; ; looks++ {
		most := knownLooks
		if d, err = b.newest(ctx, o, sources); err == nil {
			most = witnessLooks
			if err = b.freshen(ctx, o, &d); errors.Is(err, anchor.ErrRollback) {
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

// shownHead is a verified head and who showed it.
type shownHead struct {
	source *source
	view   *anchor.View
	prefix anchor.Fetcher
}

// newest finds the largest head whose newest entries can be read, and requires that it
// extends all others and what was seen before.
func (b *Bank) newest(ctx context.Context, o FetchOptions, sources []*source) (Discovery, error) {
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
				d.Stale = fmt.Errorf("%w: %s shows a head of size %d whose entries it does not give", anchor.ErrStale, h.source.Name, h.view.Head().Size)
				continue
			}
		}
		if !slices.Contains(d.sources, h.source) {
			d.sources = append(d.sources, h.source)
		}
	}
	if d.shown == nil {
		return d, fmt.Errorf("no source shows a trusted head of log %s: %w", o.Policy.Origin, errors.Join(reasons...))
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
		if other.Size > d.Head.Size {
			continue // not readable, or of the own log, whose newest is not published
		}
		if err := d.view.Extends(ctx, other); err != nil {
			return fmt.Errorf("%s and %s: %w", best.source.Name, h.source.Name, err)
		}
	}
	return nil
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

// heads returns the trusted heads that the sources show, the largest first, and
// why others are not among them.
func (b *Bank) heads(ctx context.Context, o FetchOptions, sources []*source) (shown []shownHead, reasons []error) {
	found := make([][]shownHead, len(sources))
	errs := make([]error, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Go(func() {
			limited, cancel := context.WithTimeoutCause(ctx, headTimeout, fmt.Errorf("%w: %s: no head within %s", node.ErrUnreachable, s.Name, headTimeout))
			defer cancel()
			found[i], errs[i] = b.headsOf(limited, s, o.Policy, o.names())
			if errs[i] != nil && ctx.Err() == nil && limited.Err() != nil {
				errs[i] = context.Cause(limited)
			}
		})
	}
	wg.Wait()
	for i, heads := range found {
		if len(heads) == 0 && errs[i] != nil {
			sources[i].logless = node.Answered(errs[i])
			o.report("source %s: %v", sources[i].Name, errs[i])
			reasons = append(reasons, fmt.Errorf("%s: %w", sources[i].Name, errs[i]))
		}
		shown = append(shown, heads...)
	}
	slices.SortStableFunc(shown, func(x, y shownHead) int { return cmp.Compare(y.view.Head().Size, x.view.Head().Size) })
	return shown, reasons
}

// headsOf asks one source for the log, and for what the log's names stand for. A name
// is only a hint where to look: it is followed if it speaks of a larger log than what
// the source shows by itself.
func (b *Bank) headsOf(ctx context.Context, s *source, p *anchor.Policy, names []string) ([]shownHead, error) {
	open := func(f anchor.Fetcher) (shownHead, error) {
		m := &memo{f: f}
		v, err := anchor.OpenView(ctx, m, p)
		return shownHead{s, v, m}, err
	}
	records := make([]node.Name, len(names))
	nameErrs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { records[i], nameErrs[i] = s.ReadName(ctx, name) })
	}
	h, err := open(s.Log(p.Origin))
	wg.Wait()
	var out []shownHead
	if err == nil {
		out = append(out, h)
	}
	for i, name := range names {
		if held, heldErr := b.repo.Name(name); heldErr == nil && held.Sequence > records[i].Sequence {
			records[i], nameErrs[i] = held, nil
		}
		if nameErrs[i] != nil {
			continue
		}
		root, rootErr := records[i].Root()
		if rootErr != nil || len(out) > 0 && nameSize(records[i]) <= out[0].view.Head().Size {
			continue
		}
		if h, nameErr := open(s.LogAt(root)); nameErr == nil {
			out = append(out, h)
		} else if err != nil {
			err = errors.Join(err, nameErr)
		}
	}
	return out, err
}

// memo reads each file of a tlog-tiles prefix once. What was read first stays, right or
// wrong: a source gets one try.
type memo struct {
	f    anchor.Fetcher
	mu   sync.Mutex
	held map[string][]byte
	size int
}

// memoLimit is how many bytes a memo holds: the right edge and some bundles.
const memoLimit = 4 << 20

func (m *memo) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	m.mu.Lock()
	data, ok := m.held[path]
	m.mu.Unlock()
	if ok {
		return data, nil
	}
	data, err := m.f.ReadEndpoint(ctx, path)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && m.size+len(data) <= memoLimit {
		if m.held == nil {
			m.held = map[string][]byte{}
		}
		m.held[path] = data
		m.size += len(data)
	}
	return data, err
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
	held, heldErr := b.view(ctx, p)
	if heldErr == nil {
		// Also where it is the larger one: its tiles tell a fork from an old head.
		if err := best.view.Succeeds(ctx, held); err != nil {
			return err
		}
	}
	if ok {
		if err := best.view.Extends(ctx, seen); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(heldErr, ErrNotFound) || unreadable(heldErr) && ctx.Err() == nil:
		return b.remember(d.Head, seen)
	case heldErr != nil:
		return heldErr
	}
	if err := b.mirrorUnlessBusy(ctx, best.prefix, p); err != nil && !unreadable(err) {
		return err
	}
	if v, err := b.view(ctx, p); err == nil && v.Head().Size == d.Head.Size && !anchor.Fresher(p, d.Head, v.Head()) {
		d.view, d.Head = v, v.Head()
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
	// Under the log's key alone: the witnesses may have been others, and the key too.
	h, err := anchor.VerifyCheckpoint(p.KeyOnly(), data)
	for _, e := range b.earlier[p.Origin] {
		if err == nil {
			break
		}
		if then, thenErr := anchor.VerifyCheckpoint(e.KeyOnly(), data); thenErr == nil {
			h, err = then, nil
		}
	}
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
	asked, err := v.Cosign(limited, o.Policy, o.witnesses(), v.Head().Size)
	for _, r := range asked.Reports {
		if err == nil && mustStop(r.Err) {
			o.report("witness %s contradicts a quorum of the others, and shows nothing: %v", r.Witness, r.Err)
		}
	}
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
		return withinAge(p, said.Base().Time)
	}
	return fmt.Errorf("%w: none of the newest entries of log %s says when it was made", anchor.ErrStale, p.Origin)
}
