package savepoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// FollowOptions says what a follower does.
type FollowOptions struct {
	// Policy is the trust policy of the log that is followed.
	Policy *anchor.Policy
	// Sources are asked for it: multiaddrs, URLs, folders that are tlog-tiles prefixes,
	// names and log roots, as at [FetchOptions]. If there are only names and log roots, the
	// places that the policy names are asked for them.
	Sources []string
	// Interval is the pause between two looks at the log; 2 s if 0.
	Interval time.Duration
	// Keep is how many save points of each policy are kept, the newest ones; all
	// if 0. See [Bank.Retain].
	Keep int
	// Grace is for how long a save point that is no longer to be kept is kept all
	// the same; DefaultGrace if 0.
	Grace time.Duration
	// Fetched, if not nil, is called for each save point that was fetched and
	// verified.
	Fetched func(Savepoint)
	// Dropped, if not nil, is called for each save point that is not kept any more.
	Dropped func(Savepoint)
	// Failed, if not nil, is called with what went wrong; following goes on.
	Failed func(error)
}

// Follow keeps a verified copy of a log and of all its save points until ctx
// ends. All sources are asked at each look: one that is reached is enough, and what
// they show must not contradict each other. That a source cannot be reached, or cannot be
// believed, is reported and tried again. Nothing is ever deleted because of it, or because
// of what the log says: only by the follower's own rule, Keep.
func (b *Bank) Follow(ctx context.Context, o FollowOptions) error {
	if o.Interval == 0 {
		o.Interval = 2 * time.Second
	}
	if o.Fetched == nil {
		o.Fetched = func(Savepoint) {}
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	if o.Dropped == nil {
		o.Dropped = func(Savepoint) {}
	}
	if o.Policy.Origin == b.Origin() {
		return fmt.Errorf("%w: the bank writes log %s itself", ErrUsage, o.Policy.Origin)
	}
	b = b.with(o.Policy)
	sources, err := b.followSources(ctx, o)
	defer closeAll(sources)
	if err != nil {
		return err
	}
	f := &follower{b: b, o: o, sources: sources, done: -1, garbage: collection{due: o.Keep > 0}}
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	for {
		f.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// followSources prepares the sources of a follower: those that were given, and for names and log
// roots alone those that the trust policy names. All must be of a kind that can be followed.
func (b *Bank) followSources(ctx context.Context, o FollowOptions) (sources []*source, err error) {
	archives, list, err := sortSources(o.Sources)
	if err != nil {
		return nil, err
	}
	if len(archives) > 0 {
		return nil, fmt.Errorf("%w: %s is a file, and is not followed", ErrUsage, archives[0])
	}
	if len(list) == 0 {
		list = places(o.Policy)
	}
	if len(list) == 0 {
		return nil, errNobody
	}
	for _, place := range list {
		if !isPlace(place) && !strings.Contains(place, "://") && !isPrefix(place) {
			return sources, fmt.Errorf("%w: %s has no log's checkpoint, and a repository is followed by its address", ErrUsage, place)
		}
		s, err := b.dialOne(ctx, place)
		if err != nil {
			return sources, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// followLooks is how often the sources are read before they are said to show an old head.
const followLooks = 3

// follower is a Follow in progress.
type follower struct {
	b       *Bank
	o       FollowOptions
	sources []*source
	done    int64 // the size of the log up to which nothing is left to fetch; -1 at first
	// garbage may be left by a crash, between giving up and collecting.
	garbage collection
	told    string // what was reported at the last look
}

// look looks at the log once, and does what there is to do.
func (f *follower) look(ctx context.Context) {
	unreached, err := f.once(ctx)
	// Somebody else here may have seen, of the same sources, a head that is a moment newer.
	for looks := 1; errors.Is(err, anchor.ErrRollback) && looks < followLooks && waitFor(ctx, lookPause); looks++ {
		unreached, err = f.once(ctx)
	}
	if mustStop(err) {
		err = f.b.advise(err)
	} else if err == nil {
		err = f.b.keepNames(ctx, f.sources, f.o.Policy)
	}
	if ctx.Err() == nil {
		err = errors.Join(err, f.b.retain(ctx, f.o, &f.garbage))
	}
	if ctx.Err() != nil {
		return
	}
	f.b.following.note(f.o.Policy.Origin, func(l *followedLog) { l.err = err })
	// The same trouble is not worth a line at every look.
	told := ""
	if err = errors.Join(err, unreached); err != nil {
		told = err.Error()
	}
	if told != f.told && err != nil {
		f.o.Failed(err)
	}
	f.told = told
}

// once looks at the log and fetches what is new. unreached says of which sources nothing
// was had although others showed the log.
func (f *follower) once(ctx context.Context) (unreached, err error) {
	defer f.b.repo.Blocks.Hold().Release()
	head, unreached, err := f.mirror(ctx)
	if err != nil {
		return nil, err
	}
	f.b.following.note(f.o.Policy.Origin, func(l *followedLog) { l.reached = time.Now() })
	if head.Size == f.done {
		return unreached, nil
	}
	if err := f.fetch(ctx); err != nil {
		return unreached, err
	}
	f.done = head.Size
	return unreached, nil
}

// mirror brings the copy of the log up to the largest head that the sources show and give
// the entries of, and returns the copy's head. That all show less than was accepted here
// before is a rollback, unless a source is silent that may show more.
func (f *follower) mirror(ctx context.Context) (_ anchor.Head, unreached, err error) {
	b, p := f.b, f.o.Policy
	fail := func(errs ...error) (anchor.Head, error, error) { return anchor.Head{}, nil, errors.Join(errs...) }
	o := FetchOptions{Policy: p, Sources: f.o.Sources}
	before := b.knownSize(ctx, p)
	shown, reasons := b.heads(ctx, o, f.sources)
	if err := cmp.Or(ctx.Err(), o.rootsShown(shown, reasons)); err != nil {
		return fail(err)
	}
	var errs []error
	for _, s := range f.sources {
		if s.err == nil || s.logless && len(shown) > 0 {
			continue // one that has no log may have IPFS blocks
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.Name, s.err))
	}
	unreached = errors.Join(errs...)
	known, damage, err := b.known(ctx, p)
	if err != nil {
		return fail(err)
	}
	behind := len(shown) > 0 && shown[0].view.Head().Size < known.size()
	// Since the sources were asked somebody else here may have brought the copy further.
	grown := behind && damage == nil && known.grownFrom(shown[0].view.Head().Size, before)
	if behind && (grown || unreached != nil) {
		if err := known.agree(ctx, shown); errors.Is(err, anchor.ErrFork) {
			return fail(err)
		}
		if grown {
			return known.copied.Head(), unreached, nil
		}
		return fail(unreached)
	}
	for i, best := range shown {
		var head anchor.Head
		err := known.agree(ctx, shown[i:])
		if err == nil {
			err = floored(best.view.Head(), shown[:i])
		}
		if err == nil {
			head, err = b.mirror(ctx, best.prefix, p)
		}
		if err == nil {
			// What it was to extend is in the copy now.
			f.o.Sources = slices.DeleteFunc(slices.Clone(f.o.Sources), func(s string) bool { return strings.HasPrefix(s, rootPath) })
			if damage != nil { // told of once: the copy's head takes the place of the damaged one
				return head, errors.Join(damage, unreached), b.remember(p, head, known.damaged())
			}
			return head, unreached, nil
		}
		errs = append(errs, &sourceError{best.source.Name, err})
		if !unreadable(err) || mustStop(err) || ctx.Err() != nil {
			break
		}
	}
	return fail(append(errs, damage)...)
}

// floored requires that a head is not behind the log roots among larger ones, of which
// nobody gave the entries.
func floored(h anchor.Head, larger []shownHead) error {
	for _, l := range larger {
		if old := l.view.Head(); l.root.Defined() && old.Size > h.Size {
			return fmt.Errorf("log root %s: %w", l.root, &anchor.RollbackError{Old: old, New: h})
		}
	}
	return nil
}

// fetch fetches the save points of the copy that are to be kept and are not here.
func (f *follower) fetch(ctx context.Context) error {
	b, o := f.b, f.o
	held := map[int64]bool{}
	err := b.receipts(ctx, func(s Savepoint, err error) (bool, error) {
		if err == nil && s.Origin == o.Policy.Origin { // a damaged one is made again
			held[s.LogIndex] = true
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	v, err := b.view(ctx, o.Policy)
	if err != nil {
		return err
	}
	given, err := b.givenUp(ctx, v)
	if err != nil {
		return err
	}
	if err := b.keepErasures(ctx, v, given); err != nil {
		return err
	}
	wanted, err := toFollow(ctx, v, given.retired)
	sources := remotes(slices.DeleteFunc(slices.Clone(f.sources), func(s *source) bool { return s.err != nil && !s.logless }))
	var errs []error
	if o.Keep > 0 {
		slices.Reverse(wanted)
	}
	here := map[entry.PolicyKey]int{}
	for _, w := range wanted {
		// Only what is here makes older ones needless: newer ones may be withheld.
		if o.Keep > 0 && here[w.policy] >= o.Keep {
			continue
		}
		if held[w.index] {
			here[w.policy]++
			continue
		}
		s, err := b.followEntry(ctx, sources, v, w.index)
		if err != nil {
			// One save point that cannot be had must not keep others away.
			errs = append(errs, fmt.Errorf("log entry %d: %w", w.index, err))
			continue
		}
		here[w.policy]++
		o.Fetched(s)
	}
	return errors.Join(append(errs, err)...)
}

// followed is a log entry of a save point.
type followed struct {
	index  int64
	policy entry.PolicyKey
}

// toFollow returns the save points of a log that are not passed over, oldest first, also with
// an error, which says what entries are none that can be read.
func toFollow(ctx context.Context, v *anchor.View, over map[int64]bool) ([]followed, error) {
	var all []followed
	var errs []error
	for e, err := range v.Entries(ctx, 0) {
		if err != nil {
			return all, errors.Join(append(errs, err)...)
		}
		s, err := entry.DecodeSavepoint(e.Record)
		switch {
		case err == nil && !over[e.Index]:
			all = append(all, followed{e.Index, s.Policy})
		case err != nil && !errors.Is(err, entry.ErrNotSavepoint):
			errs = append(errs, fmt.Errorf("log entry %d: %w", e.Index, err))
		}
	}
	return all, errors.Join(errs...)
}

func (b *Bank) followEntry(ctx context.Context, sources []*node.Remote, v *anchor.View, index int64) (Savepoint, error) {
	e, err := v.Entry(ctx, index)
	if err != nil {
		return Savepoint{}, err
	}
	p, err := b.policy(v.Head().Origin)
	if err != nil {
		return Savepoint{}, err
	}
	proof, err := v.Prove(ctx, e.Index, e.Record)
	if err != nil {
		return Savepoint{}, err
	}
	s, err := openProof(p, proof)
	if err != nil {
		return Savepoint{}, err
	}
	f, err := b.fetchSavepoint(ctx, s, nil, sources, nil)
	return f.Savepoint, err
}
