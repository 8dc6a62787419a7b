package savepoints

import (
	"context"
	"fmt"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/go-cid"
)

// Collect removes the IPFS blocks that belong to no pinned save point, to the newest
// head of no log, and to nothing that the name of a log stands for: what a take left that
// was killed or refused, and the partial tiles that a log has outgrown. Others may read and write meanwhile. An erasure
// that was interrupted is finished first.
func (b *Bank) Collect(ctx context.Context, o segments.CollectOptions) (node.Collected, error) {
	if !o.DryRun {
		if err := b.finishErasing(ctx); err != nil {
			return node.Collected{}, fmt.Errorf("finish erasing: %w", err)
		}
	}
	return b.repo.Collect(ctx, b.logRoots, o)
}

// logRoots returns the roots of the logs that the bank holds, of those too whose
// trust policy it has not: a policy may be given anew at each command.
func (b *Bank) logRoots(ctx context.Context) ([]cid.Cid, error) {
	names, err := b.repo.Heads()
	if err != nil {
		return nil, err
	}
	var roots []cid.Cid
	for _, name := range names {
		if strings.HasPrefix(name, witness.HeadPrefix) {
			continue // the checkpoint that a witness cosigned last: nothing of it is here
		}
		data, err := b.repo.Head(ctx, name)
		if err != nil {
			return nil, err
		}
		root, err := anchor.StoredRoot(data)
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	named, err := b.nameRoots(ctx)
	return append(roots, named...), err
}
