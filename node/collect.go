package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/go-cid"
)

// Collected is what a collection of garbage found and did.
type Collected struct {
	segments.Collected
	// Missing are IPFS blocks that pins or roots reach and the store has not, or
	// only damaged, and that were not erased: at most maxMissing of them.
	Missing []cid.Cid
}

// maxMissing is how many missing IPFS blocks a Collected names.
const maxMissing = 16

// Collect removes the IPFS blocks that neither a pin nor one of the roots reaches,
// while others read and write. roots is asked once Collect has begun, so that no
// head slips through that a writer with a [segments.Hold] puts in the place of
// another. Documents are marked by their CIDs and not read.
//
// If a node that is to be kept is missing or damaged, what hangs below it is not
// known and may be here: then nothing is removed, and the error wraps ErrDamaged.
// Fetching or taking the save point again heals it.
func (r *Repo) Collect(ctx context.Context, roots func(context.Context) ([]cid.Cid, error), o segments.CollectOptions) (Collected, error) {
	var out Collected
	got, err := r.Blocks.Collect(ctx, func(ctx context.Context, marks *segments.Marks) error {
		wanted, err := roots(ctx)
		if err != nil {
			return err
		}
		pins, err := r.Pins()
		if err != nil {
			return err
		}
		for _, p := range pins {
			wanted = append(wanted, p.CID)
		}
		out.Missing, err = r.mark(ctx, marks, wanted)
		if i := slices.IndexFunc(out.Missing, isNode); err == nil && i >= 0 && !o.DryRun {
			err = fmt.Errorf("%w: %s is missing, and what it links to must not be removed", ErrDamaged, out.Missing[i])
		}
		return err
	}, o)
	out.Collected = got
	if err != nil {
		return out, fmt.Errorf("collect garbage: %w", err)
	}
	return out, nil
}

// isNode reports whether a block may link to others.
func isNode(c cid.Cid) bool { return c.Prefix().Codec != cid.Raw }

// mark marks the DAGs at roots, each node once, and returns what is missing of them.
func (r *Repo) mark(ctx context.Context, marks *segments.Marks, roots []cid.Cid) (missing []cid.Cid, err error) {
	var gone []cid.Cid
	for stack := roots; len(stack) > 0; {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		links, err := r.markNode(ctx, marks, c)
		if errors.Is(err, dag.ErrNotFound) || errors.Is(err, dag.ErrHash) {
			if r.isGone(ctx, c) {
				gone = append(gone, c)
				continue
			}
			if len(missing) < maxMissing {
				missing = append(missing, c)
			} else if isNode(c) {
				missing[0] = c // the first one of these decides
			}
			continue
		}
		if err != nil {
			return missing, err
		}
		stack = append(stack, links...)
	}
	if len(gone) > 0 && r.Needed != nil {
		needed, err := r.Needed(ctx, gone)
		if err != nil {
			return missing, err
		}
		missing = append(missing, needed[:min(len(needed), maxMissing-len(missing))]...)
	}
	return missing, nil
}

// markNode marks one IPFS block and returns its links, unless it was marked before.
func (r *Repo) markNode(ctx context.Context, marks *segments.Marks, c cid.Cid) ([]cid.Cid, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	first, err := marks.Add(ctx, c)
	if err != nil || !first || !isNode(c) {
		return nil, err
	}
	data, err := r.Blocks.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	return dag.Links(dag.Block{CID: c, Data: data})
}
