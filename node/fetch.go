package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/go-cid"
)

// ErrIncomplete: no source had all of a DAG.
var ErrIncomplete = errors.New("DAG is incomplete")

// Progress tells how far a fetch is.
type Progress struct {
	Blocks, Bytes uint64 // received so far
	Source        string // which gave the last of them
	// SourceBlocks and SourceBytes are what this source gave.
	SourceBlocks, SourceBytes uint64
	// Total is how many bytes there are in all, as far as the caller of Fetch
	// knows; Fetch leaves it 0.
	Total uint64
	// Dropped, if not nil, is why the source is not asked any more: it lied, fell
	// silent or cannot be reached. Others go on.
	Dropped error
}

// Fetch brings the DAG at root into the repository from the sources, all of which
// are asked at once. IPFS blocks that are there already are not asked for: a fetch
// that was interrupted goes on where it was, and of a save point that resembles
// one which the repository holds only what differs is fetched. Each block is
// checked before it is kept; a source that sends a wrong one, falls silent or is
// slower than minRate is dropped. When Fetch returns nil the DAG is complete and
// on disk. The error otherwise wraps ErrIncomplete, with the reason of each source.
// progress is not called by two goroutines at a time.
func (r *Repo) Fetch(ctx context.Context, sources []*Remote, root cid.Cid, progress func(Progress)) error {
	return r.FetchNoting(ctx, sources, root, nil, progress)
}

// FetchNoting is Fetch that notes what arrived, unless arrived is nil.
func (r *Repo) FetchNoting(ctx context.Context, sources []*Remote, root cid.Cid, arrived *Arrived, progress func(Progress)) error {
	f := newFetch(r, sources, progress)
	f.arrived = arrived
	err := f.run(ctx, root)
	if ctx.Err() != nil {
		// What was received stays, for the next try.
		return errors.Join(context.Cause(ctx), r.Blocks.Sync(context.WithoutCancel(ctx)))
	}
	if err := errors.Join(err, r.Blocks.Sync(ctx)); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrIncomplete, root, err)
	}
	return nil
}

// run fetches what is missing until nothing is, or the sources have no more.
func (f *fetch) run(ctx context.Context, root cid.Cid) error {
	for {
		missing, err := dag.Missing(ctx, f.repo.Blocks, root)
		if errors.Is(err, dag.ErrHash) {
			continue // damage on disk: from now on the block is missing
		}
		if err != nil || len(missing) == 0 {
			return err
		}
		similar, err := f.holdsOther(root)
		if err != nil {
			return err
		}
		for _, gap := range missing {
			t := task{cid: gap.CID}
			if similar {
				t.levels = strangerLevels
			}
			f.add(t)
		}
		whole, err := f.work(ctx)
		if whole || err != nil {
			return err
		}
	}
}

// holdsOther reports whether the repository holds another DAG, which the one that is
// fetched may resemble.
func (f *fetch) holdsOther(root cid.Cid) (bool, error) {
	pins, err := f.repo.Records(pinKind)
	for _, pin := range pins {
		if pin != root.String() {
			return true, err
		}
	}
	return false, err
}

// maxRepeated is how many bytes a source may send without a new IPFS block among
// them: some repeat blocks, and one that does nothing else would never end.
const maxRepeated = 16 << 20

// patience ends a stream of which left bytes were read. It may be given more while
// it is read.
type patience struct {
	io.ReadCloser
	left atomic.Int64
}

func (p *patience) Read(b []byte) (int, error) {
	left := p.left.Load()
	if left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := p.ReadCloser.Read(b[:min(int64(len(b)), left)])
	p.left.Add(-int64(n))
	return n, err
}

// receive brings one node, or with whole the DAG below it, from a source as a CAR. It
// returns an error unless at least the node came.
func (f *fetch) receive(ctx context.Context, src *source, c cid.Cid, whole bool) (dag.Received, error) {
	var none dag.Received
	rc, err := src.car(ctx, c, whole)
	if err != nil {
		return none, err
	}
	defer rc.Close()
	in := &patience{ReadCloser: rc}
	in.left.Store(maxRepeated)
	car, err := dag.ReadCAR(in)
	if err != nil {
		return none, nothing(c, err)
	}
	var last dag.Received
	got, err := car.CopyDAG(ctx, healer{f.repo.Blocks, f.arrived}, []cid.Cid{c}, func(got dag.Received) {
		if got.Blocks > last.Blocks {
			in.left.Store(maxRepeated)
			f.received(src, got.Blocks-last.Blocks, got.Bytes-last.Bytes)
		}
		last = got
	})
	if got.Blocks > 0 && (err == nil || errors.Is(err, dag.ErrTruncated)) {
		return got, nil // gateways cut streams; the rest is asked for anew
	}
	if err == nil {
		err = dag.ErrTruncated
	}
	return got, nothing(c, err)
}

// nothing makes of the error of a CAR, of which no IPFS block came, what it says about
// the source.
func nothing(c cid.Cid, err error) error {
	switch {
	case errors.Is(err, dag.ErrAborted):
		return fmt.Errorf("%w: %s: %w", dag.ErrNotFound, c, dag.ErrAborted)
	case errors.Is(err, dag.ErrTruncated):
		return fmt.Errorf("%w: it sent nothing of %s: %w", ErrUnreachable, c, err)
	}
	return err
}

// healer is a store as a place for blocks that are wanted, of which it may hold
// damaged copies.
type healer struct {
	*segments.Store
	arrived *Arrived
}

func (h healer) Put(ctx context.Context, blocks ...dag.Block) error {
	if err := h.Heal(ctx, nil, blocks...); err != nil {
		return &storeError{err}
	}
	h.arrived.add(blocks)
	return nil
}
