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
// tlog-proof with the log entry in its extra line. Where documents of it were erased and
// are not here, their IPFS blocks are left out, and there is one more root: a raw block with
// the proof of the log entry that says so or, of several, the list of links to these. The
// proofs are such as others believe: the error wraps anchor.ErrNoQuorum, and nothing is
// written, as long as no quorum of witnesses has seen an entry. It wraps dag.ErrUnsupported
// if the list is too long for an IPFS block.
func (b *Bank) Export(ctx context.Context, s Savepoint, w io.Writer) error {
	a, err := b.archive(ctx, s)
	if err == nil {
		err = a.write(ctx, w)
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", s.CID, err)
	}
	return nil
}

// archive is what an archive of a save point is made of: the bank's IPFS blocks, and proofs.
type archive struct {
	dag.Source
	more    map[cid.Cid][]byte // proofs, and what links to them
	roots   []cid.Cid
	without []cid.Cid // was erased
}

func (b *Bank) archive(ctx context.Context, s Savepoint) (archive, error) {
	a := archive{Source: b.repo.Blocks, more: map[cid.Cid][]byte{}}
	erased, err := b.erased(ctx, s.Origin, s.Entry.Instance)
	if err != nil {
		return a, err
	}
	var records []string
	if len(erased) > 0 {
		without, keys, whole, err := b.gaps(ctx, s)
		if ctx.Err() != nil {
			return a, ctx.Err()
		}
		if err == nil && whole { // else whoever reads what is missing or damaged says so
			a.without, records = without, keys
		}
	}
	proof, err := b.publicProof(ctx, s)
	if err != nil {
		return a, err
	}
	a.roots = []cid.Cid{s.CID, a.put(dag.RawBlock(proof))}
	if len(records) == 0 {
		return a, nil
	}
	var proofs []cid.Cid
	for _, key := range records {
		proof, err := b.erasureProof(ctx, s.Origin, key)
		if err != nil {
			return a, err
		}
		proofs = append(proofs, a.put(dag.RawBlock(proof)))
	}
	if len(proofs) == 1 {
		a.roots = append(a.roots, proofs[0])
		return a, nil
	}
	list, err := dag.LinkList(proofs)
	if err == nil {
		a.roots = append(a.roots, a.put(list))
	}
	return a, err
}

func (a archive) write(ctx context.Context, w io.Writer) error {
	return dag.WritePartialCAR(ctx, w, a, a.without, a.roots...)
}

func (a *archive) put(block dag.Block) cid.Cid {
	a.more[block.CID] = block.Data
	return block.CID
}

func (a archive) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if data, ok := a.more[c]; ok {
		return data, nil
	}
	return a.Source.Get(ctx, c)
}

// Import reads an archive, verifies it under the trust policies in force, and
// keeps the save point. policy, if not nil, is the only one that counts. Nothing
// of the archive is believed: the proof must verify, the manifest agree with its
// entry, the DAG be complete and canonical. The head in the proof must not contradict
// what is known of the log here, nor be older than the floor of the policy, unless the
// copy of the log that is held here extends it; what is read of the log later must extend
// it. See [Bank.Fetch] for who asks for the latest save point. The error wraps ErrArchive, dag.ErrTruncated, dag.ErrHash,
// anchor.ErrUntrusted, anchor.ErrFork, anchor.ErrRollback and others; nothing is kept then
// but unpinned IPFS blocks.
func (b *Bank) Import(ctx context.Context, r io.Reader, policy *anchor.Policy, progress func(dag.Received)) (Savepoint, error) {
	s, _, err := b.importFile(ctx, r, policy, progress)
	return s, err
}

// importFile is Import, and returns what of the save point was erased as well.
func (b *Bank) importFile(ctx context.Context, r io.Reader, policy *anchor.Policy, progress func(dag.Received)) (Savepoint, dag.Totals, error) {
	if policy != nil {
		b = b.with(policy)
	}
	s, erased, err := b.importArchive(ctx, r, policy, progress, func(Savepoint, archived) error { return nil })
	if err != nil {
		return Savepoint{}, dag.Totals{}, fmt.Errorf("import: %w", err)
	}
	return s, erased, nil
}

// importArchive is Import with one more judge, who is asked before anything is kept.
func (b *Bank) importArchive(ctx context.Context, r io.Reader, policy *anchor.Policy, progress func(dag.Received), judge func(Savepoint, archived) error) (Savepoint, dag.Totals, error) {
	defer b.repo.Blocks.Hold().Release()
	s, more, err := b.readArchive(ctx, r, policy, progress)
	if err != nil {
		return Savepoint{}, dag.Totals{}, err
	}
	shown, err := b.openArchived(ctx, s, more)
	if err != nil {
		return Savepoint{}, dag.Totals{}, b.advise(err)
	}
	return b.adopt(ctx, b.repo.Blocks, s, func(s Savepoint) error {
		if err := judge(s, shown); err != nil {
			return err
		}
		return b.rememberArchived(ctx, shown) // before the receipt: no crash leaves that alone
	})
}

// readArchive puts the IPFS blocks of an archive and proves its save point. It also returns
// the heads that prove what was erased.
func (b *Bank) readArchive(ctx context.Context, r io.Reader, policy *anchor.Policy, progress func(dag.Received)) (Savepoint, []anchor.Head, error) {
	car, err := dag.ReadCAR(r)
	if err != nil {
		return Savepoint{}, nil, err
	}
	if len(car.Roots) < 2 {
		return Savepoint{}, nil, fmt.Errorf("%w: %d roots, not 2 or more", ErrArchive, len(car.Roots))
	}
	// What is here already is read, so that the archive heals what is damaged.
	sink := &countingSink{store: b.repo.Blocks}
	if _, err := car.CopyDAG(ctx, sink, car.Roots, progress); err != nil {
		return Savepoint{}, nil, err
	}
	manifest, proofCID := car.Roots[0], car.Roots[1]
	proof, err := b.repo.Blocks.Get(ctx, proofCID)
	if err != nil {
		return Savepoint{}, nil, asTruncated(err)
	}
	s, err := b.openAnyProof(policy, proof)
	if err != nil {
		return Savepoint{}, nil, err
	}
	if s.CID != manifest {
		return Savepoint{}, nil, fmt.Errorf("%w: the proof is of %s, the archive of %s", entry.ErrContradiction, s.CID, manifest)
	}
	heads, err := b.importErasures(ctx, s, car.Roots[2:])
	return s, heads, err
}

// importErasures keeps the proofs of what was erased that came with an archive, and returns
// their heads.
func (b *Bank) importErasures(ctx context.Context, s Savepoint, roots []cid.Cid) ([]anchor.Head, error) {
	p, err := b.policy(s.Origin)
	if err != nil {
		return nil, err
	}
	var heads []anchor.Head
	err = erasuresAt(ctx, b.repo.Blocks, roots, func(proof []byte) error {
		r, err := anchor.VerifyProof(p, proof)
		if err != nil {
			return err
		}
		said, err := erasureOf(p, r)
		if err == nil {
			err = ofInstance(said, s.Entry)
		}
		if err != nil {
			return err
		}
		heads = append(heads, r.Head)
		return b.putErasure(p, proof)
	})
	return heads, err
}

// ofInstance refuses an entry of another instance than a save point of the same log.
func ofInstance(said *entry.Erase, s entry.Savepoint) error {
	if said.Instance != s.Instance {
		return fmt.Errorf("%w: the erasure is of instance %x, the save point of %x", entry.ErrContradiction, said.Instance, s.Instance)
	}
	return nil
}

// erasuresAt calls f with the proofs that the further roots of a file are: each a raw block
// with one, or a list of links to these.
func erasuresAt(ctx context.Context, src dag.Source, roots []cid.Cid, f func(proof []byte) error) error {
	for _, root := range roots {
		cids := []cid.Cid{root}
		data, err := src.Get(ctx, root)
		if err == nil && root.Type() != cid.Raw {
			cids, err = dag.Links(dag.Block{CID: root, Data: data})
		}
		for _, c := range cids {
			if err == nil {
				data, err = src.Get(ctx, c)
			}
			if err == nil {
				err = f(data)
			}
		}
		if err != nil {
			return fmt.Errorf("%w: root %s: %w", ErrArchive, root, asTruncated(err))
		}
	}
	return nil
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
// be in the repository, asks judge, and keeps it. It returns what of it was erased.
func (b *Bank) adopt(ctx context.Context, src dag.Source, s Savepoint, judge func(Savepoint) error) (Savepoint, dag.Totals, error) {
	s, erased, err := b.adoptForeign(ctx, src, s, judge)
	if errors.Is(err, anchor.ErrFork) {
		err = b.advise(err)
	}
	if err != nil {
		return Savepoint{}, dag.Totals{}, err
	}
	return s, erased, nil
}

func (b *Bank) adoptForeign(ctx context.Context, src dag.Source, s Savepoint, judge func(Savepoint) error) (Savepoint, dag.Totals, error) {
	var none dag.Totals
	if err := b.verifyEntry(ctx, s); err != nil {
		return s, none, err
	}
	s, err := b.withManifest(ctx, s)
	if err != nil {
		return s, none, asTruncated(err)
	}
	for judged := false; ; judged = true {
		keep, err := b.beginFetching(ctx)
		if err != nil {
			return s, none, err
		}
		v, err := b.verifyState(ctx, src, s)
		if err != nil {
			return s, none, asTruncated(err)
		}
		if !judged {
			if err := judge(s); err != nil {
				return s, none, err
			}
		}
		kept, err := keep(ctx, func() error { return b.putReceipt(ctx, s) })
		if kept || err != nil {
			return s, v.Erased, err
		}
		src = b.repo.Blocks // what had just arrived may be gone
	}
}

// beginFetching is called before something is read or fetched that is to be kept. What it
// returns does that while nothing is erased, unless IPFS blocks were erased since then: no
// pin said yet that they are needed.
func (b *Bank) beginFetching(ctx context.Context) (keep func(ctx context.Context, f func() error) (bool, error), err error) {
	if err := b.beginKeeping(ctx); err != nil {
		return nil, err
	}
	defer b.endKeeping()
	removals := b.erasures.removals
	return func(ctx context.Context, f func() error) (bool, error) {
		if err := b.beginKeeping(ctx); err != nil {
			return false, err
		}
		defer b.endKeeping()
		if b.erasures.removals != removals {
			return false, nil
		}
		return true, f()
	}, nil
}

// asTruncated says of a missing IPFS block that what should have brought it
// stopped short.
func asTruncated(err error) error {
	if errors.Is(err, dag.ErrNotFound) {
		return fmt.Errorf("%w: %w", dag.ErrTruncated, err)
	}
	return err
}
