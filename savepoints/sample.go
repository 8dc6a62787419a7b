package savepoints

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs/go-cid"
)

// sampleDAG returns the root of a DAG and others of its nodes, n in all if there are as
// many, each with the same probability. Those that are gone, since they were erased, are
// no part of it. The error is the reason why some of the DAG cannot be read.
func sampleDAG(ctx context.Context, src dag.Source, root cid.Cid, n int, gone func(cid.Cid) bool) ([]cid.Cid, error) {
	sample := []cid.Cid{root}
	met := 0
	for c, err := range dag.Walk(ctx, src, dag.Limits{}, root) {
		if err != nil {
			return nil, err
		}
		if c == root || gone(c) {
			continue
		}
		met++
		if len(sample) < n {
			sample = append(sample, c)
		} else if i := rand.IntN(met); i < n-1 {
			sample[1+i] = c // reservoir sampling
		}
	}
	return sample, nil
}

// probe asks a place for IPFS blocks of an item of which no more is known than the root:
// the root, and others on random ways down from it, n in all if it has as many. It
// returns nil if all of them came and are what they should be. Those that are gone are
// not asked for.
func probe(ctx context.Context, p replication.Place, item replication.Item, n int, gone func(cid.Cid) bool) error {
	links := map[cid.Cid][]cid.Cid{} // of what came
	for range 4 * n {                // a small DAG has not n
		for at := item.Root; ; {
			below, came := links[at]
			if !came {
				block, err := askOne(ctx, p, item, at)
				if err != nil {
					return err
				}
				if below, err = dag.Links(block); err != nil {
					return err
				}
				below = slices.DeleteFunc(below, gone)
				links[at] = below
			}
			if len(links) >= n {
				return nil
			}
			if len(below) == 0 {
				break
			}
			at = below[rand.IntN(len(below))]
		}
	}
	return nil
}

// askOne asks a place for one IPFS block, and checks it.
func askOne(ctx context.Context, p replication.Place, item replication.Item, c cid.Cid) (dag.Block, error) {
	got, err := p.Blocks(ctx, item, []cid.Cid{c})
	if err != nil {
		return dag.Block{}, err
	}
	for _, b := range got {
		if b.CID == c {
			return b, b.Check()
		}
	}
	return dag.Block{}, fmt.Errorf("%w: %s", dag.ErrNotFound, c)
}
