package savepoints

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// ErrArchive: a CAR that is not the archive of a save point.
var ErrArchive = errors.New("not an archive of a save point")

// Export writes a save point as an archive: a CARv1 with two roots, the manifest,
// whose whole DAG follows depth first, and one raw block that holds the C2SP
// tlog-proof with the log entry in its extra line.
func (b *Bank) Export(ctx context.Context, s Savepoint, w io.Writer) error {
	proof := dag.RawBlock(s.Proof)
	src := &withBlock{b.repo.Blocks, proof}
	if err := dag.WriteCAR(ctx, w, src, s.CID, proof.CID); err != nil {
		return fmt.Errorf("export %s: %w", s.CID, err)
	}
	return nil
}

// withBlock is a source with one more IPFS block.
type withBlock struct {
	dag.Source
	block dag.Block
}

func (s *withBlock) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if c == s.block.CID {
		return s.block.Data, nil
	}
	return s.Source.Get(ctx, c)
}

// Import reads an archive, verifies it under the trust policies in force, and
// keeps the save point. policy, if not nil, is the only one that counts. Nothing
// of the archive is believed: the proof must verify, the manifest agree with its
// entry, the DAG be complete and canonical. The head in the proof must not contradict
// what is known of the log here, nor be older than the floor of the policy, unless the
// copy of the log that is held here extends it; see [Bank.Fetch] for who asks for the
// latest save point. The error wraps ErrArchive, dag.ErrTruncated, dag.ErrHash,
// anchor.ErrUntrusted, anchor.ErrFork, anchor.ErrRollback and others; nothing is kept then
// but unpinned IPFS blocks.
func (b *Bank) Import(ctx context.Context, r io.Reader, policy *anchor.Policy, progress func(dag.Received)) (Savepoint, error) {
	if policy != nil {
		b = b.with(policy)
	}
	s, err := b.importArchive(ctx, r, policy, progress, func(Savepoint, archived) error { return nil })
	if err != nil {
		return Savepoint{}, fmt.Errorf("import: %w", err)
	}
	return s, nil
}

// importArchive is Import with one more judge, who is asked before anything is kept.
func (b *Bank) importArchive(ctx context.Context, r io.Reader, policy *anchor.Policy, progress func(dag.Received), judge func(Savepoint, archived) error) (Savepoint, error) {
	defer b.repo.Blocks.Hold().Release()
	car, err := dag.ReadCAR(r)
	if err != nil {
		return Savepoint{}, err
	}
	if len(car.Roots) != 2 {
		return Savepoint{}, fmt.Errorf("%w: %d roots, not 2", ErrArchive, len(car.Roots))
	}
	// What is here already is read, so that the archive heals what is damaged.
	sink := &countingSink{store: b.repo.Blocks}
	if _, err := car.CopyDAG(ctx, sink, car.Roots, progress); err != nil {
		return Savepoint{}, err
	}
	manifest, proofCID := car.Roots[0], car.Roots[1]
	proof, err := b.repo.Blocks.Get(ctx, proofCID)
	if err != nil {
		return Savepoint{}, asTruncated(err)
	}
	s, err := b.openAnyProof(policy, proof)
	if err != nil {
		return Savepoint{}, err
	}
	if s.CID != manifest {
		return Savepoint{}, fmt.Errorf("%w: the proof is of %s, the archive of %s", entry.ErrContradiction, s.CID, manifest)
	}
	shown, err := b.openArchived(ctx, s)
	if err != nil {
		return Savepoint{}, b.advise(err)
	}
	return b.adopt(ctx, b.repo.Blocks, s, func(s Savepoint) error { return judge(s, shown) })
}

// openAnyProof verifies a proof under the one policy, or under the policy in
// force for its log.
func (b *Bank) openAnyProof(policy *anchor.Policy, proof []byte) (Savepoint, error) {
	if policy != nil {
		return openProof(policy, proof)
	}
	policies := b.Policies()
	if len(policies) == 0 {
		return Savepoint{}, ErrNoTrust
	}
	var errs []error
	for _, p := range policies {
		s, err := openProof(p, proof)
		if err == nil {
			return s, nil
		}
		errs = append(errs, fmt.Errorf("under the policy for %q: %w", p.Origin, err))
	}
	return Savepoint{}, errors.Join(errs...)
}

// adopt verifies a save point of somebody else, all of whose IPFS blocks should
// be in the repository, asks judge, and keeps it.
func (b *Bank) adopt(ctx context.Context, src dag.Source, s Savepoint, judge func(Savepoint) error) (Savepoint, error) {
	s, err := b.verifyForeign(ctx, src, s)
	if err == nil {
		err = judge(s)
	}
	if err == nil {
		err = b.keepReceipt(ctx, s)
	}
	if errors.Is(err, anchor.ErrFork) {
		err = b.advise(err)
	}
	if err != nil {
		return Savepoint{}, err
	}
	return s, nil
}

func (b *Bank) verifyForeign(ctx context.Context, src dag.Source, s Savepoint) (Savepoint, error) {
	if err := b.verifyEntry(ctx, s); err != nil {
		return s, err
	}
	s, err := b.withManifest(ctx, s)
	if err != nil {
		return s, asTruncated(err)
	}
	_, err = b.verifyState(ctx, src, s)
	return s, asTruncated(err)
}

// asTruncated says of a missing IPFS block that what should have brought it
// stopped short.
func asTruncated(err error) error {
	if errors.Is(err, dag.ErrNotFound) {
		return fmt.Errorf("%w: %w", dag.ErrTruncated, err)
	}
	return err
}
