package savepoints

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
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
// The IPFS blocks are removed by the next collection of garbage. Retain returns what
// it gave up, also with an error.
func (b *Bank) Retain(ctx context.Context, origin string, keep int, grace time.Duration) ([]Savepoint, error) {
	if keep < 0 || grace < 0 {
		return nil, fmt.Errorf("%w: keep %d, grace %s", ErrUsage, keep, grace)
	}
	if keep == 0 || origin == b.Origin() {
		return nil, nil
	}
	var old []Savepoint
	elsewhere := map[string]bool{} // what receipts of other entries hold
	settled := map[entry.PolicyKey][]Savepoint{}
	limit := time.Now().Add(-grace)
	err := b.each(ctx, func(s Savepoint) (bool, error) {
		received, err := b.repo.RecordTime(receiptKind, receiptKey(s.Origin, s.LogIndex))
		if err != nil {
			return false, err
		}
		if s.Origin == origin && !received.After(limit) {
			settled[s.Entry.Policy] = append(settled[s.Entry.Policy], s) // oldest first
		} else {
			elsewhere[s.CID.KeyString()] = true
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	for _, all := range settled {
		n := max(0, len(all)-keep)
		old = append(old, all[:n]...)
		for _, s := range all[n:] {
			elsewhere[s.CID.KeyString()] = true
		}
	}
	slices.SortFunc(old, func(x, y Savepoint) int { return int(x.LogIndex - y.LogIndex) })
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

// retain gives up what a follower is not to keep, and then the space that it took.
func (b *Bank) retain(ctx context.Context, o FollowOptions) error {
	grace := o.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	dropped, err := b.Retain(ctx, o.Policy.Origin, o.Keep, grace)
	for _, s := range dropped {
		o.Dropped(s)
	}
	if err != nil || len(dropped) == 0 {
		return err
	}
	_, err = b.Collect(ctx, segments.CollectOptions{})
	return err
}

// outdated returns the log's entries of save points of which there are keep newer ones of
// the same policy: they are not fetched. With 0 there are none.
func outdated(ctx context.Context, v *anchor.View, keep int) (map[int64]bool, error) {
	old := map[int64]bool{}
	if keep == 0 {
		return old, nil
	}
	newest := map[entry.PolicyKey][]int64{}
	for e, err := range v.Entries(ctx, 0) {
		if err != nil {
			return nil, err
		}
		s, err := entry.DecodeSavepoint(e.Record)
		if err != nil {
			continue // whoever follows the entry tells
		}
		all := append(newest[s.Policy], e.Index)
		if len(all) > keep {
			old[all[0]] = true
			all = all[1:]
		}
		newest[s.Policy] = all
	}
	return old, nil
}
