package anchor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"filippo.io/torchwood"
)

// mirrorBatch is how many records a mirror holds in memory at a time. It is a
// multiple of the width of a tile, so that batches end with full bundles.
const mirrorBatch = 16 * torchwood.TileWidth

// Mirror brings the copy of p's log that store keeps up to the head that f
// shows, and returns the durable head. The new head must extend the one held:
// a *[RollbackError] or *[ForkError] says that it does not, and nothing is
// changed. A head of the same tree changes nothing either, unless it is cosigned more
// recently. The head held may satisfy an earlier policy of the log instead of p, as after
// its key was replaced; the new one must satisfy p.
//
// Only records are taken from f. The tiles are computed from them and must give
// the signed root; what another host made of its directory does not matter. The
// other errors are as at [OpenView] and [LoadHead]. Several mirrors and a [Log]
// may run on one store: whoever comes second gets ErrHeadChanged.
func Mirror(ctx context.Context, store Store, f Fetcher, p *Policy, earlier ...*Policy) (Head, error) {
	if p == nil {
		return Head{}, &PolicyError{Err: errors.New("no policy")}
	}
	name := HeadName(p.Origin)
	s, err := loadStored(ctx, store, p, name, earlier...)
	if err != nil {
		return Head{}, err
	}
	v, err := OpenView(ctx, f, p)
	if err != nil {
		return Head{}, err
	}
	t := newTree()
	if s.record != nil {
		if err := v.Succeeds(ctx, newView(LocalFetcher(store, s.Root), s.Head)); err != nil {
			return Head{}, err
		}
		if s.Size == v.head.Size && !Fresher(p, v.head, s.Head) {
			return s.Head, nil
		}
		if t, err = loadTree(ctx, store, s); err != nil {
			return Head{}, err
		}
	}
	if err := copyRecords(ctx, store, t, v); err != nil {
		return Head{}, err
	}
	if t.Tree != v.head.tree() {
		return Head{}, fmt.Errorf("%w: records give root %v, checkpoint of size %d says %v", ErrCorrupt, t.Hash, v.head.Size, v.head.RootHash)
	}
	if s.record == nil || s.Size < t.N { // else only the checkpoint is another
		if err := store.Put(ctx, t.publish(time.Now())...); err != nil {
			return Head{}, fmt.Errorf("put of log tiles: %w", err)
		}
	}
	next, err := commit(ctx, store, name, t, v.head, s.record)
	return next.Head, err
}

// copyRecords extends t by the records that v has more, and puts the tiles that
// become full.
func copyRecords(ctx context.Context, store Store, t *tree, v *View) error {
	var batch [][]byte
	flush := func() error {
		blocks, err := t.add(batch)
		if err != nil {
			return err
		}
		batch = batch[:0]
		if err := store.Put(ctx, blocks...); err != nil {
			return fmt.Errorf("put of log tiles: %w", err)
		}
		return nil
	}
	for e, err := range v.Entries(ctx, t.N) {
		if err != nil {
			return err
		}
		batch = append(batch, e.Record)
		if (e.Index+1)%mirrorBatch == 0 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
