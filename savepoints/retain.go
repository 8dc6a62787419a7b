package savepoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// DefaultGrace is how long a follower keeps save points beyond those that it is to
// keep.
const DefaultGrace = 24 * time.Hour

// Retain gives up save points of a log that is followed: those of which keep newer ones
// of the same policy have been here, verified, for the time of grace. So who gets hold
// of the log's key and fills it cannot push out what is good before somebody had that
// time to notice. It does not give up what was received within the time of grace, nor
// anything if keep is 0, nor anything of the bank's own log.
//
// Time is that of this machine's clock when a save point was received here. If the clock
// went back, that is in the future, and the save point is kept.
//
// What a receipt of another log holds too stays pinned, whether or not that log is
// trusted. If a receipt is damaged nothing is given up.
//
// The IPFS blocks are removed by the next collection of garbage. Retain returns what
// it gave up, also with an error.
func (b *Bank) Retain(ctx context.Context, origin string, keep int, grace time.Duration) ([]Savepoint, error) {
	if keep < 0 || grace < 0 {
		return nil, fmt.Errorf("%w: keep %d, grace %s", ErrUsage, keep, grace)
	}
	if keep == 0 || origin == b.Origin() {
		return nil, nil
	}
	if err := b.beginKeeping(ctx); err != nil {
		return nil, err
	}
	defer b.endKeeping()
	old, err := b.outdated(ctx, origin, keep, time.Now().Add(-grace))
	if err != nil || len(old) == 0 {
		return nil, err
	}
	return b.giveUp(old)
}

// GiveUp ends the keeping of a save point of another log than the bank's own: as Retain
// does, but at once, whichever it is. No log says so, and a follower of that log fetches
// the save point again. The error wraps ErrUsage if it is of the bank's own log (see
// [Bank.Retire]), and ErrConflict if a policy that was taken over is to go on from it.
func (b *Bank) GiveUp(ctx context.Context, s Savepoint) error {
	if s.Origin == b.Origin() {
		return fmt.Errorf("%w: save point %s is of the repository's own log, which has to say that it is retired", ErrUsage, s.CID)
	}
	if b.ledger != nil {
		if err := b.write(ctx, func(l *ledger) error { return l.notFollowed(s) }); err != nil {
			return err
		}
	}
	if err := b.beginKeeping(ctx); err != nil {
		return err
	}
	defer b.endKeeping()
	_, err := b.giveUp([]Savepoint{s})
	return err
}

// notFollowed refuses a save point from whose policy, taken over, nothing was saved here yet:
// the next save point follows the newest one held.
func (l *ledger) notFollowed(s Savepoint) error {
	k, _ := l.b.naming(l.b.own.Origin).Key(s.Entry.Instance, s.Manifest.Policy.ID)
	if from := l.history.TakenFrom(k); from != nil && from.Origin == s.Origin && l.history.Last(k) == nil {
		return fmt.Errorf("%w: policy %s goes on from the save points of log %s until one is taken here", ErrConflict, s.Manifest.Policy.ID, s.Origin)
	}
	return nil
}

// giveUp unpins save points, and returns those of which nothing holds the receipt any more.
// The caller holds keeping.
func (b *Bank) giveUp(old []Savepoint) ([]Savepoint, error) {
	elsewhere, err := b.heldBeside(old)
	if err != nil {
		return nil, err
	}
	for i, s := range old {
		// The pin goes first: what is left of a crash is a receipt, by which this
		// is done again.
		if !elsewhere[s.CID.KeyString()] {
			err = b.repo.Unpin(s.CID)
		}
		if err == nil {
			err = b.repo.DeleteRecord(receiptKind, receiptKey(s.Origin, s.LogIndex))
		}
		if err != nil {
			return old[:i], fmt.Errorf("give up save point %s: %w", s.CID, err)
		}
	}
	return old, nil
}

// outdated returns the save points of a log of which keep newer ones of the same
// policy were received before a time, as they were themselves, oldest first.
func (b *Bank) outdated(ctx context.Context, origin string, keep int, limit time.Time) ([]Savepoint, error) {
	settled := map[entry.PolicyKey][]Savepoint{}
	err := b.each(ctx, func(s Savepoint) (bool, error) {
		if s.Origin != origin {
			return true, nil
		}
		received, err := b.repo.RecordTime(receiptKind, receiptKey(s.Origin, s.LogIndex))
		if err == nil && !received.After(limit) {
			settled[s.Entry.Policy] = append(settled[s.Entry.Policy], s)
		}
		return true, err
	})
	var old []Savepoint
	for _, all := range settled {
		old = append(old, all[:max(0, len(all)-keep)]...)
	}
	slices.SortFunc(old, func(x, y Savepoint) int { return int(x.LogIndex - y.LogIndex) })
	return old, err
}

// heldBeside returns what receipts hold other than those of the given save points,
// by CID. A policy is not asked for: one may be given anew at each command.
func (b *Bank) heldBeside(old []Savepoint) (map[string]bool, error) {
	ours := map[string]bool{}
	for _, s := range old {
		ours[receiptKey(s.Origin, s.LogIndex)] = true
	}
	keys, err := b.repo.Records(receiptKind)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	for _, key := range keys {
		if ours[key] {
			continue
		}
		e, err := b.readReceipt(key)
		if err != nil {
			return nil, err
		}
		held[e.Savepoint.KeyString()] = true
	}
	return held, nil
}

// readReceipt returns the entry that a receipt is of, believed or not.
func (b *Bank) readReceipt(key string) (entry.Savepoint, error) {
	proof, err := b.repo.Record(receiptKind, key)
	if err != nil {
		return entry.Savepoint{}, err
	}
	index, record, err := anchor.ProofRecord(proof)
	var e entry.Savepoint
	if err == nil {
		e, err = entry.DecodeSavepoint(record)
	}
	if err == nil && receiptKey(e.Origin, index) != key {
		err = errors.New("it is of another entry")
	}
	if err != nil {
		return e, fmt.Errorf("%w: receipt %s: %w", ErrDamaged, key, err)
	}
	return e, nil
}

// collection is what a follower remembers of giving space back.
type collection struct {
	due  bool      // there may be garbage
	next time.Time // when to try again
	err  error     // of the last try
}

// retain gives up what a follower is not to keep, and then the space that it took.
func (b *Bank) retain(ctx context.Context, o FollowOptions, c *collection) error {
	grace := o.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	dropped, err := b.Retain(ctx, o.Policy.Origin, o.Keep, grace)
	for _, s := range dropped {
		o.Dropped(s)
		c.due = true
	}
	if c.due && !time.Now().Before(c.next) {
		c.run(ctx, b)
	}
	return errors.Join(err, c.err)
}

// run collects. What failed is due again, but takes no more than a tenth of the time:
// while something is missing, all there is is looked through in vain.
func (c *collection) run(ctx context.Context, b *Bank) {
	began := time.Now()
	got, err := b.Collect(ctx, segments.CollectOptions{})
	c.due = err != nil
	if err == nil && got.Damaged > 0 {
		err = fmt.Errorf("%w: %d IPFS blocks that are needed cannot be read, and what is beside them was not removed", node.ErrDamaged, got.Damaged)
	}
	c.err = err
	c.next = time.Now().Add(9 * time.Since(began))
}
