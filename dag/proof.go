package dag

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ipfs/go-cid"
)

// WriteProof writes to w a CARv1 with the root that proves what is at path of
// the state at root, or of the save point whose manifest is at root: the nodes on
// the path, and, if a document is there, all of its nodes. They are the nodes that
// a trustless gateway gives for the document with ?format=car&dag-scope=entity
// (Trustless Gateway specification). Where there is no document the nodes show
// that; WriteProof then returns nil all the same, since the proof is whole. An empty path
// proves nothing but the node at root.
//
// Each of more becomes one more root of the CAR, and comes last: they must link to
// nothing.
func WriteProof(ctx context.Context, w io.Writer, src Source, root cid.Cid, path string, more ...Block) error {
	return WriteProofWithout(ctx, w, src, root, path, nil, more...)
}

// WriteProofWithout is WriteProof of a document without those of its raw IPFS blocks that
// mayLack says may be missing. The proof then shows that the document is there, with its
// CID and length, and not its bytes: [Proof.Document] says so with [ErrNoBytes].
func WriteProofWithout(ctx context.Context, w io.Writer, src Source, root cid.Cid, path string, mayLack func(cid.Cid) bool, more ...Block) error {
	onPath := &recording{Source: src}
	var doc Document
	var err error
	if path == "" {
		_, err = onPath.Get(ctx, root)
	} else {
		doc, err = Lookup(ctx, onPath, root, path)
	}
	if err != nil && !errors.Is(err, ErrNoDocument) {
		return err
	}
	roots := []cid.Cid{root}
	for _, b := range more {
		roots = append(roots, b.CID)
	}
	out := bufio.NewWriter(w)
	if err := writeHeader(out, roots); err != nil {
		return err
	}
	walk := newWalker(ctx, Limits{}, func(c cid.Cid) ([]byte, error) {
		data, err := src.Get(ctx, c)
		if errors.Is(err, ErrNotFound) && mayLack != nil && codecOf(c) == codecRaw && mayLack(c) {
			return nil, errSkip
		}
		if err != nil {
			return nil, err
		}
		return data, writeSection(out, c.KeyString(), data)
	})
	for _, b := range onPath.blocks {
		if b.CID == doc.Link.CID {
			continue // the top of a document of several chunks comes with the rest of it
		}
		walk.seen[cidKey(b.CID.Bytes())] = struct{}{}
		if err := writeSection(out, b.CID.KeyString(), b.Data); err != nil {
			return err
		}
	}
	if doc.Link.CID.Defined() {
		if err := walk.walk([]cid.Cid{doc.Link.CID}); err != nil {
			return fmt.Errorf("document %q: %w", path, err)
		}
	}
	for _, b := range more {
		if err := writeSection(out, b.CID.KeyString(), b.Data); err != nil {
			return err
		}
	}
	return out.Flush()
}

// recording is a source that remembers what was read.
type recording struct {
	Source
	blocks []Block
}

func (r *recording) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	data, err := r.Source.Get(ctx, c)
	if err == nil {
		r.blocks = append(r.blocks, Block{c, data})
	}
	return data, err
}

// VerifyProof checks a CAR from [WriteProof] or from a trustless gateway and
// writes the bytes of the document at path to w, which may be nil. It needs the
// CAR, the root and the path, and believes nothing else: the root is the caller's,
// not the CAR's. If the CAR proves that there is no document the error wraps
// [ErrNoDocument]; that holds if the state is canonical, which only all of it can
// show ([VerifyState]). Any other error proves nothing. IPFS blocks that lie on no
// path from the root are refused with ErrForeignBlock.
//
// It holds the CAR in memory; bound it by bounding r, or see [ReadProof]. What was written
// to w counts only if the error is nil.
func VerifyProof(ctx context.Context, r io.Reader, root cid.Cid, path string, w io.Writer) (Document, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return Document{}, fmt.Errorf("proof: %w", err)
	}
	p, err := readProof(ctx, bytes.NewReader(data), root)
	if err != nil {
		return Document{}, err
	}
	return p.Document(ctx, root, path, w)
}

// Proof is a CAR from [WriteProof], all of whose IPFS blocks have been checked against
// their CIDs and are linked from a root. It is a [Source] of them, which reads each from the
// CAR when it is asked for, and checks it again. It is safe for concurrent use.
type Proof struct {
	// Roots are those that the CAR names. Nothing is known of them.
	Roots []cid.Cid
	car   io.ReaderAt
	index map[cid.Cid]carSpan
}

var _ Checked = (*Proof)(nil)

// ReadProof reads a CAR from [WriteProof], or an archive, with all its roots. r must last
// as long as the Proof. The CAR may be of any length: some 250 bytes are held for each IPFS
// block. The error wraps ErrMalformed, ErrTruncated, ErrHash or ErrForeignBlock.
func ReadProof(ctx context.Context, r io.ReaderAt) (*Proof, error) { return readProof(ctx, r) }

// readProof reads with the roots that the caller names, or else with the CAR's own.
func readProof(ctx context.Context, r io.ReaderAt, roots ...cid.Cid) (*Proof, error) {
	in, err := ReadCAR(io.NewSectionReader(r, 0, math.MaxInt64))
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	if len(roots) == 0 {
		roots = in.Roots
	}
	c := copying{sink: Discard, index: map[cid.Cid]carSpan{}}
	if _, err := in.copyDAG(ctx, &c, roots, nil); err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	return &Proof{in.Roots, r, c.index}, nil
}

// Get returns an IPFS block of the proof. The error wraps ErrNotFound, or ErrHash or
// ErrTruncated if the CAR is not any more what it was.
func (p *Proof) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	span, ok := p.index[c]
	if !ok {
		return nil, fmt.Errorf("IPFS block %s is not in it: %w", c, ErrNotFound)
	}
	b := Block{c, make([]byte, span.length)}
	_, err := io.ReadFull(io.NewSectionReader(p.car, span.end-int64(span.length), int64(span.length)), b.Data)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("%w: it became shorter while it was read", ErrTruncated)
	}
	if err != nil {
		return nil, fmt.Errorf("read CAR: %w", err)
	}
	return b.Data, b.Check()
}

// Checked implements [Checked].
func (p *Proof) Checked(c cid.Cid) (length int, ok bool) {
	span, ok := p.index[c]
	return span.length, ok
}

// Blocks is how many IPFS blocks the proof has.
func (p *Proof) Blocks() int { return len(p.index) }

// Document is [VerifyProof] for a CAR that has been read. With an error that wraps
// ErrNoBytes comes the document, of which bytes are not in the CAR.
func (p *Proof) Document(ctx context.Context, root cid.Cid, path string, w io.Writer) (Document, error) {
	if w == nil {
		w = io.Discard
	}
	doc, err := Lookup(ctx, p, root, path)
	if err == nil {
		_, err = CopyDocument(ctx, p, doc.Link, w)
	}
	if errors.Is(err, ErrNoBytes) {
		return doc, fmt.Errorf("proof: %w", err)
	}
	if err != nil {
		return Document{}, fmt.Errorf("proof: %w", err)
	}
	return doc, nil
}
