package savepoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// FollowOptions says what a follower does.
type FollowOptions struct {
	// Policy is the trust policy of the log that is followed.
	Policy *anchor.Policy
	// Source is asked for it: a multiaddr or the URL of a gateway.
	Source string
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
// ends. That the source cannot be reached, or cannot be believed, is reported and
// tried again. Nothing is ever deleted because of it, or because of what the log says:
// only by the follower's own rule, Keep.
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
	r, err := b.repo.Dial(o.Source)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	defer r.Close()
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	last := ""
	// One may have ended, by a crash too, between giving up and collecting.
	garbage := collection{due: o.Keep > 0}
	done := int64(-1) // the size of the log up to which nothing is left to fetch
	for {
		size, err := b.followOnce(ctx, r, o, done)
		if err == nil {
			done = size
		}
		if mustStop(err) {
			err = b.advise(err)
		} else if err == nil {
			err = b.keepNames(ctx, r, o.Policy)
		}
		if ctx.Err() == nil {
			err = errors.Join(err, b.retain(ctx, o, &garbage))
		}
		if ctx.Err() != nil {
			return nil
		}
		// The same trouble is not worth a line at every look.
		if err != nil && err.Error() != last {
			o.Failed(err)
		}
		last = ""
		if err != nil {
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// followOnce looks at the log, fetches what is new, and returns the log's size.
func (b *Bank) followOnce(ctx context.Context, r *node.Remote, o FollowOptions, done int64) (int64, error) {
	defer b.repo.Blocks.Hold().Release()
	head, err := anchor.Mirror(ctx, b.store, r.Log(o.Policy.Origin), o.Policy)
	if err != nil || head.Size == done {
		return head.Size, err
	}
	if seen, ok, err := b.seen(o.Policy); ok && seen.Size > head.Size {
		return head.Size, &anchor.RollbackError{Old: seen, New: head}
	} else if err != nil {
		return head.Size, err
	}
	held := map[int64]bool{}
	err = b.receipts(ctx, func(s Savepoint, err error) (bool, error) {
		if err == nil && s.Origin == o.Policy.Origin { // a damaged one is made again
			held[s.LogIndex] = true
		}
		return true, nil
	})
	if err != nil {
		return head.Size, err
	}
	v, err := b.view(ctx, o.Policy)
	if err != nil {
		return head.Size, err
	}
	given, err := b.givenUp(ctx, v)
	if err != nil {
		return head.Size, err
	}
	if err := b.keepErasures(ctx, v, given); err != nil {
		return head.Size, err
	}
	wanted, err := toFollow(ctx, v, given.retired)
	var errs []error
	if o.Keep > 0 {
		slices.Reverse(wanted)
	}
	here := map[entry.PolicyKey]int{}
	for _, f := range wanted {
		// Only what is here makes older ones needless: newer ones may be withheld.
		if o.Keep > 0 && here[f.policy] >= o.Keep {
			continue
		}
		if held[f.index] {
			here[f.policy]++
			continue
		}
		s, err := b.followEntry(ctx, r, v, f.index)
		if err != nil {
			// One save point that cannot be had must not keep others away.
			errs = append(errs, fmt.Errorf("log entry %d: %w", f.index, err))
			continue
		}
		here[f.policy]++
		o.Fetched(s)
	}
	return head.Size, errors.Join(append(errs, err)...)
}

// followed is a log entry of a save point.
type followed struct {
	index  int64
	policy entry.PolicyKey
}

// toFollow returns the save points of a log that are not retired, oldest first, also with
// an error, which says what entries are none that can be read.
func toFollow(ctx context.Context, v *anchor.View, retired map[int64]bool) ([]followed, error) {
	var all []followed
	var errs []error
	for e, err := range v.Entries(ctx, 0) {
		if err != nil {
			return all, errors.Join(append(errs, err)...)
		}
		s, err := entry.DecodeSavepoint(e.Record)
		switch {
		case err == nil && !retired[e.Index]:
			all = append(all, followed{e.Index, s.Policy})
		case err != nil && !errors.Is(err, entry.ErrNotSavepoint):
			errs = append(errs, fmt.Errorf("log entry %d: %w", e.Index, err))
		}
	}
	return all, errors.Join(errs...)
}

func (b *Bank) followEntry(ctx context.Context, r *node.Remote, v *anchor.View, index int64) (Savepoint, error) {
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
	f, err := b.fetchSavepoint(ctx, s, nil, []*node.Remote{r}, nil)
	return f.Savepoint, err
}
