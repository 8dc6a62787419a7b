package node

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// ErrIncomplete: no source had all of a DAG.
var ErrIncomplete = errors.New("DAG is incomplete")

// Progress tells how far a fetch is.
type Progress struct {
	Blocks, Bytes uint64 // received so far
	Source        string // which gave the last of them
}

// Fetch brings the DAG at root into the repository from the sources, each of
// which is asked for the parts that are still missing. IPFS blocks that are
// there already are not asked for, so a fetch that was interrupted goes on where
// it was. Each block is checked before it is kept; a source that sends a wrong
// one is dropped. When Fetch returns nil the DAG is complete and on disk. The
// error otherwise wraps ErrIncomplete, with the reason of each source.
func (r *Repo) Fetch(ctx context.Context, sources []*Remote, root cid.Cid, progress func(Progress)) error {
	f := &fetch{repo: r, progress: progress}
	var reasons []error
	for _, src := range sources {
		err := f.from(ctx, src, root)
		if err == nil {
			return r.Blocks.Sync(ctx)
		}
		if ctx.Err() != nil {
			// What was received stays, for the next try.
			return errors.Join(context.Cause(ctx), r.Blocks.Sync(context.WithoutCancel(ctx)))
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", src.Name, err))
	}
	err := r.Blocks.Sync(ctx)
	if len(sources) == 0 {
		missing, missErr := dag.Missing(ctx, r.Blocks, root)
		if missErr != nil || len(missing) == 0 {
			return errors.Join(missErr, err)
		}
		reasons = append(reasons, fmt.Errorf("no source to ask for %s", missing[0]))
	}
	return fmt.Errorf("%w: %s: %w", ErrIncomplete, root, errors.Join(append(reasons, err)...))
}

// maxRepeated is how many bytes a source may send without a new IPFS block among
// them: some repeat blocks, and one that does nothing else would never end.
const maxRepeated = 16 << 20

// patience ends a stream of which left bytes were read.
type patience struct {
	r    io.Reader
	left int
}

func (p *patience) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := p.r.Read(b[:min(len(b), p.left)])
	p.left -= n
	return n, err
}

type fetch struct {
	repo     *Repo
	done     dag.Received
	progress func(Progress)
}

// from asks one source for what is missing until nothing is, or it has no more.
func (f *fetch) from(ctx context.Context, src *Remote, root cid.Cid) error {
	for {
		missing, err := dag.Missing(ctx, f.repo.Blocks, root)
		if errors.Is(err, dag.ErrHash) {
			continue // damage on disk: from now on the block is missing
		}
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		for _, gap := range missing {
			if ok, err := f.repo.Blocks.Has(ctx, gap.CID); err != nil || ok {
				if err != nil {
					return err
				}
				continue // came with another part
			}
			if err := f.subtree(ctx, src, gap.CID); err != nil {
				return err
			}
		}
	}
}

// subtree fetches the DAG at c as one CAR. It returns nil only if c itself came,
// so that every round of from makes progress.
func (f *fetch) subtree(ctx context.Context, src *Remote, c cid.Cid) error {
	rc, err := src.CAR(ctx, c)
	if err != nil {
		return err
	}
	defer rc.Close()
	in := &patience{r: rc, left: maxRepeated}
	car, err := dag.ReadCAR(in)
	if errors.Is(err, dag.ErrTruncated) {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err != nil {
		return err
	}
	before := f.done
	got, err := car.CopyDAG(ctx, f.repo.Blocks, []cid.Cid{c}, func(got dag.Received) {
		in.left = maxRepeated
		f.done = dag.Received{Blocks: before.Blocks + got.Blocks, Bytes: before.Bytes + got.Bytes}
		if f.progress != nil {
			f.progress(Progress{f.done.Blocks, f.done.Bytes, src.Name})
		}
	})
	if got.Blocks > 0 && errors.Is(err, dag.ErrTruncated) {
		return nil // gateways cut streams; the next round asks for the rest
	}
	if err == nil && got.Blocks == 0 {
		err = dag.ErrTruncated
	}
	if errors.Is(err, dag.ErrTruncated) {
		return fmt.Errorf("%w: it sent nothing of %s: %w", ErrUnreachable, c, err)
	}
	return err
}
