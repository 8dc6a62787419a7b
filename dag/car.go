package dag

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car/v2"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

var (
	// ErrTruncated: a CAR ends in the middle of a section.
	ErrTruncated = errors.New("CAR is truncated")
	// ErrMalformed: bytes that are not a CAR.
	ErrMalformed = errors.New("not a CAR")
	// ErrForeignBlock: a CAR holds an IPFS block that nothing before it links to.
	ErrForeignBlock = errors.New("IPFS block does not belong to the DAG")
)

// WriteCAR writes the DAGs at roots to w as a CARv1 with these roots: every node
// once, parents before children, depth first, links in the order of their node.
// The bytes are therefore a function of the roots.
func WriteCAR(ctx context.Context, w io.Writer, src Source, roots ...cid.Cid) error {
	return WritePartialCAR(ctx, w, src, nil, roots...)
}

// WritePartialCAR writes what WriteCAR does without the nodes of the DAGs at held:
// what somebody lacks who has those. src must have the directories of both; the
// documents of held are not read.
func WritePartialCAR(ctx context.Context, w io.Writer, src Source, held []cid.Cid, roots ...cid.Cid) error {
	out := bufio.NewWriterSize(w, 1<<18)
	if err := writeHeader(out, roots); err != nil {
		return err
	}
	walk := newWalker(ctx, Limits{}, func(c cid.Cid) ([]byte, error) {
		if codecOf(c) == codecRaw {
			return nil, nil
		}
		return src.Get(ctx, c)
	})
	if err := walk.walk(held); err != nil {
		return fmt.Errorf("what is held: %w", err)
	}
	walk.open = func(c cid.Cid) ([]byte, error) {
		data, err := src.Get(ctx, c)
		if err != nil {
			return nil, err
		}
		return data, writeSection(out, c.KeyString(), data)
	}
	if err := walk.walk(roots); err != nil {
		return err
	}
	return out.Flush()
}

func writeHeader(w io.Writer, roots []cid.Cid) error {
	n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "version", qp.Int(1))
		qp.MapEntry(ma, "roots", qp.List(-1, func(la datamodel.ListAssembler) {
			for _, r := range roots {
				qp.ListEntry(la, link(r))
			}
		}))
	})
	if err != nil {
		return err
	}
	header, err := EncodeCBOR(n)
	if err != nil {
		return err
	}
	return writeSection(w, "", header)
}

// writeSection writes a section: its length, the bytes of a CID and those of its
// block.
func writeSection(w io.Writer, c string, data []byte) error {
	if _, err := w.Write(binary.AppendUvarint(nil, uint64(len(c)+len(data)))); err != nil {
		return err
	}
	if _, err := io.WriteString(w, c); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// maxCARHeader bounds what is allocated before anything of a CAR is known.
const maxCARHeader = 4 << 10

// CARReader reads a CAR, of version 1 or 2, section by section and trusts none
// of it. It is not safe for concurrent use.
type CARReader struct {
	r       *car.BlockReader
	src     *input
	section *sectionReader
	// Roots are those that the CAR's header names. They are claims.
	Roots []cid.Cid
}

// ReadCAR reads the header of a CAR. The error wraps ErrMalformed or ErrTruncated.
func ReadCAR(r io.Reader) (*CARReader, error) {
	src := &input{r: r}
	section := &sectionReader{r: bufio.NewReaderSize(src, 1<<18)}
	br, err := car.NewBlockReader(section,
		car.MaxAllowedHeaderSize(maxCARHeader),
		// A section holds a CID besides the IPFS block.
		car.MaxAllowedSectionSize(MaxBlockSize+128),
		// Blocks are checked below, where the codec is checked too.
		car.WithTrustedCAR(true))
	if err != nil {
		return nil, src.classify(err)
	}
	return &CARReader{r: br, src: src, section: section, Roots: br.Roots}, nil
}

// sectionReader tells whether anything of a section was read. go-car reports
// io.EOF not only between two sections, but also right after the length of one.
type sectionReader struct {
	r       *bufio.Reader
	started bool
}

func (s *sectionReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.started = s.started || n > 0
	return n, err
}

func (s *sectionReader) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	s.started = s.started || err == nil
	return b, err
}

// input remembers the error of the underlying reader, to tell a broken source
// from a broken CAR.
type input struct {
	r   io.Reader
	err error
}

func (in *input) Read(p []byte) (int, error) {
	n, err := in.r.Read(p)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		in.err = err
	}
	return n, err
}

func (in *input) classify(err error) error {
	switch {
	case in.err != nil:
		return fmt.Errorf("read CAR: %w", in.err)
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}

// Next returns the next IPFS block, checked against its CID, or io.EOF. The
// error wraps ErrTruncated, ErrMalformed, ErrHash or ErrUnsupported.
func (r *CARReader) Next() (Block, error) {
	r.section.started = false
	b, err := r.r.Next()
	if err == io.EOF && r.src.err == nil && !r.section.started {
		return Block{}, io.EOF
	}
	if err != nil {
		return Block{}, r.src.classify(err)
	}
	out := Block{b.Cid(), b.RawData()}
	return out, out.Check()
}

// Received counts what came out of a CAR.
type Received struct {
	Blocks uint64
	Bytes  uint64
}

// CopyDAG copies to sink the IPFS blocks of the DAGs at roots from a CAR that
// holds parents before children, as exports of a DAG do. A block that nothing
// before it links to ends the copy with ErrForeignBlock, so that no CAR can make
// the receiver keep what it did not ask for. The blocks before an error have
// been put. Whether the DAG is complete is for Missing to say.
//
// progress, if not nil, is called after each block with the counts so far.
func (r *CARReader) CopyDAG(ctx context.Context, sink Sink, roots []cid.Cid, progress func(Received)) (Received, error) {
	var got Received
	want := make(map[cid.Cid]bool, len(roots)) // false once received
	for _, c := range roots {
		want[c] = true
	}
	for {
		if err := ctx.Err(); err != nil {
			return got, err
		}
		b, err := r.Next()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, fmt.Errorf("after %d IPFS blocks: %w", got.Blocks, err)
		}
		fresh, known := want[b.CID]
		if !known {
			return got, fmt.Errorf("after %d IPFS blocks: %w: %s", got.Blocks, ErrForeignBlock, b.CID)
		}
		if !fresh {
			continue // some exporters repeat blocks
		}
		want[b.CID] = false
		links, err := Links(b)
		if err != nil {
			return got, err
		}
		for _, c := range links {
			if _, ok := want[c]; !ok {
				want[c] = true
			}
		}
		if err := sink.Put(ctx, b); err != nil {
			return got, err
		}
		got.Blocks++
		got.Bytes += uint64(len(b.Data))
		if progress != nil {
			progress(got)
		}
	}
}
