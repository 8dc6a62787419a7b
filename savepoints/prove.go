package savepoints

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// Prove writes to w a proof of a save point that the bank holds, and of the document at
// path in it, or of its absence; with an empty path of the save point alone. It is a CARv1
// with two roots: the manifest, with the nodes on path only, and one raw block that holds
// the C2SP tlog-proof with the log entry in its extra line.
//
// Of a document that was erased, and whose bytes are not here, it proves all the rest, and,
// with the proof of the log entry that says so as one more root, why they are missing.
func (b *Bank) Prove(ctx context.Context, s Savepoint, path string, w io.Writer) error {
	err := b.prove(ctx, s, path, w)
	if err != nil {
		return fmt.Errorf("prove %s: %w", s.CID, err)
	}
	return nil
}

func (b *Bank) prove(ctx context.Context, s Savepoint, path string, w io.Writer) error {
	proof, err := b.publicProof(ctx, s)
	if err != nil {
		return err
	}
	more := []dag.Block{dag.RawBlock(proof)}
	erasure, err := b.erasureAt(ctx, s, path)
	if err != nil {
		return err
	}
	if erasure != nil {
		more = append(more, dag.RawBlock(erasure))
	}
	return dag.WriteProofWithout(ctx, w, b.repo.Blocks, s.CID, path, func(cid.Cid) bool { return erasure != nil }, more...)
}

// erasureAt returns the proof that the document at a path was erased, if it was and bytes
// of it are missing.
func (b *Bank) erasureAt(ctx context.Context, s Savepoint, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	doc, err := dag.Lookup(ctx, b.repo.Blocks, s.CID, path)
	if errors.Is(err, dag.ErrNoDocument) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	missing, err := dag.Missing(ctx, b.repo.Blocks, doc.Link.CID)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	erased, err := b.erased(ctx, s.Origin, s.Entry.Instance)
	if err != nil || erased[doc.Link.CID] == "" {
		return nil, err // whoever reads what is missing says so
	}
	return b.erasureProof(ctx, s.Origin, erased[doc.Link.CID])
}

// RawProof returns the C2SP tlog-proof of a save point's entry, and the entry's bytes:
// what other people's tools take. The hash of the leaf is that of the entry.
func (b *Bank) RawProof(ctx context.Context, s Savepoint) (proof, record []byte, err error) {
	if proof, err = b.publicProof(ctx, s); err != nil {
		return nil, nil, fmt.Errorf("prove %s: %w", s.CID, err)
	}
	p, err := b.policy(s.Origin)
	if err != nil {
		return nil, nil, err
	}
	r, err := anchor.VerifyProof(p, proof)
	return proof, r.Record, err
}

// publicProof returns a proof that others believe: the receipt, or, where the receipt was
// made before witnesses had seen the entry, one made from the published head. The error
// wraps anchor.ErrNoQuorum if there is none yet.
func (b *Bank) publicProof(ctx context.Context, s Savepoint) ([]byte, error) {
	return b.public(ctx, s.Origin, s.LogIndex, s.Proof)
}

// erasureProof does so for an entry that erases documents, by the key of its record.
func (b *Bank) erasureProof(ctx context.Context, origin, key string) ([]byte, error) {
	proof, err := b.repo.Record(erasureKind, key)
	if err != nil {
		return nil, err
	}
	p, err := b.receiptPolicy(origin)
	if err != nil {
		return nil, err
	}
	_, index, err := b.openHeldErasure(p, proof)
	if err != nil {
		return nil, err
	}
	return b.public(ctx, origin, index, proof)
}

// public returns the proof of an entry if others believe it, or makes one that they do.
func (b *Bank) public(ctx context.Context, origin string, index int64, proof []byte) ([]byte, error) {
	p, err := b.policy(origin)
	if err != nil {
		return nil, err
	}
	_, proofErr := anchor.VerifyProof(p, proof)
	if proofErr == nil {
		return proof, nil
	}
	h, err := b.copyHead(ctx, p)
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, anchor.ErrUntrusted) {
		return nil, err
	}
	if err != nil || h.Size <= index || b.accepting(p, h) != p {
		return nil, b.notPublic(origin, index, proofErr)
	}
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(b.store, h.Root), p)
	if err != nil {
		return nil, err
	}
	e, err := v.Entry(ctx, index)
	if err != nil {
		return nil, err
	}
	return v.Prove(ctx, index, e.Record)
}

// notPublic says why nothing that is here makes others believe an entry, and what does.
func (b *Bank) notPublic(origin string, index int64, err error) error {
	if origin == b.Origin() {
		return fmt.Errorf("%w has seen entry %d yet; \"serve\" asks the witnesses, and \"take --wait witnessed\": %w", anchor.ErrNoQuorum, index, err)
	}
	return fmt.Errorf("what is here of log %q, entry %d, is from before its trust policy was replaced; \"fetch\" from a source brings what the policy in force accepts: %w", origin, index, err)
}

// Proven is what a proof file shows to whoever believes the trust policy.
type Proven struct {
	Savepoint // Manifest is nil where the file has only the log's part
	Head      anchor.Head
	// Document is the one at the path that was asked for. Absent says that there is
	// none there, given that the state is canonical.
	Document dag.Document
	Absent   bool
	// Erased: the document's bytes are not in the file, since they are gone on purpose, as
	// entry ErasedBy of the log says.
	Erased   bool
	ErasedBy int64
}

// VerifyProofFile checks a file from [Bank.Prove] or [Bank.RawProof], or an archive,
// under a trust policy. It needs nothing else: no repository, no network. All of the file is
// checked, and of it is held what [dag.ReadProof] says. If path is not empty the file must
// prove what is there, and the document's bytes go to w, which may be nil; they count only
// if there is no error, and may be more than the file has (see [dag.CopyDocument]). The
// error wraps ErrArchive, anchor.ErrUntrusted, anchor.ErrCorrupt, dag.ErrHash,
// dag.ErrForeignBlock, entry.ErrContradiction, or dag.ErrTruncated if the file lacks nodes
// of the path.
func VerifyProofFile(ctx context.Context, p *anchor.Policy, r io.ReaderAt, path string, w io.Writer) (Proven, error) {
	text, err := readTlogProof(r)
	if err != nil {
		return Proven{}, err
	}
	if text != nil {
		if path != "" {
			return Proven{}, fmt.Errorf("%w: a tlog-proof says nothing of documents", ErrUsage)
		}
		return proven(p, text)
	}
	car, err := dag.ReadProof(ctx, r)
	if err != nil {
		return Proven{}, err
	}
	if len(car.Roots) < 2 {
		return Proven{}, fmt.Errorf("%w: %d roots, not 2 or more", ErrArchive, len(car.Roots))
	}
	proof, err := car.Get(ctx, car.Roots[1])
	if err != nil {
		return Proven{}, asTruncated(err)
	}
	out, err := proven(p, proof)
	if err != nil {
		return Proven{}, err
	}
	if out.CID != car.Roots[0] {
		return Proven{}, fmt.Errorf("%w: the proof is of %s, the file of %s", entry.ErrContradiction, out.CID, car.Roots[0])
	}
	if out.Manifest, err = dag.ReadManifest(ctx, car, out.CID); err != nil {
		return Proven{}, asTruncated(err)
	}
	if err := out.Entry.Agrees(out.Manifest, out.CID, entry.Naming{Private: p.PrivateIDs}); err != nil {
		return Proven{}, err
	}
	erased, err := erasuresIn(ctx, p, car, out.Entry)
	if err != nil {
		return Proven{}, err
	}
	if path == "" {
		return out, nil
	}
	out.Document, err = car.Document(ctx, out.CID, path, w)
	switch {
	case errors.Is(err, dag.ErrNoDocument):
		out.Absent = true
	case errors.Is(err, dag.ErrNoBytes):
		out.ErasedBy, out.Erased = erased[out.Document.Link.CID]
		if !out.Erased {
			return Proven{}, asTruncated(err)
		}
	case err != nil:
		return Proven{}, asTruncated(err)
	}
	return out, nil
}

// erasuresIn reads the entries that the further roots of a file prove, and returns which
// documents they erase, each with the index of the first entry that does.
func erasuresIn(ctx context.Context, p *anchor.Policy, car *dag.Proof, s entry.Savepoint) (map[cid.Cid]int64, error) {
	erased := map[cid.Cid]int64{}
	err := erasuresAt(ctx, car, car.Roots[2:], func(proof []byte) error {
		said, index, err := openErasure(p, proof)
		if err == nil {
			err = ofInstance(said, s)
		}
		if err != nil {
			return err
		}
		for _, c := range said.Documents {
			if _, ok := erased[c]; !ok {
				erased[c] = index
			}
		}
		return nil
	})
	return erased, err
}

// tlogProofMagic is the first line of a tlog-proof (c2sp.org/tlog-proof).
const tlogProofMagic = "c2sp.org/tlog-proof@v1\n"

// readTlogProof returns the tlog-proof that a file is, nil if it is none.
func readTlogProof(r io.ReaderAt) ([]byte, error) {
	text, err := io.ReadAll(io.NewSectionReader(r, 0, anchor.MaxProofSize+1))
	if err != nil || !bytes.HasPrefix(text, []byte(tlogProofMagic)) {
		return nil, err
	}
	return text, nil
}

// proven is the log's part of a proof.
func proven(p *anchor.Policy, proof []byte) (Proven, error) {
	s, err := openProof(p, proof)
	if err != nil {
		return Proven{}, err
	}
	r, err := anchor.VerifyProof(p, proof)
	return Proven{Savepoint: s, Head: r.Head}, err
}
