package dag

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car/v2"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

var (
	// ErrTruncated: a CAR ends in the middle of a section.
	ErrTruncated = errors.New("CAR is truncated")
	// ErrAborted: a gateway ended a CAR before its end, and says so there: it has no
	// more of the DAG. It is an ErrTruncated too.
	ErrAborted = errors.New("the gateway says that it could not write all of it")
	// ErrMalformed: bytes that are not a CAR.
	ErrMalformed = errors.New("not a CAR")
	// ErrForeignBlock: a CAR holds an IPFS block that nothing before it links to.
	ErrForeignBlock = errors.New("IPFS block does not belong to the DAG")
)

// WriteCAR writes the DAGs at roots to w as a CARv1 with these roots: every node
// once, parents before children, depth first, links in the order of their node.
// The bytes are therefore a function of the roots, of which there may be about 90: the
// error wraps ErrUnsupported if ReadCAR would refuse the header. If a node cannot be read, those
// before it are written.
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
	walk := newWalker(ctx, Limits{}, func(c cid.Cid) ([]byte, error) { return getUnlessRaw(ctx, src, c) })
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
	err := walk.walk(roots)
	return errors.Join(err, out.Flush())
}

// WriteNodeCAR writes a CARv1 with one node and not what it links to.
func WriteNodeCAR(ctx context.Context, w io.Writer, src Source, c cid.Cid) error {
	data, err := src.Get(ctx, c)
	if err != nil {
		return err
	}
	if err := writeHeader(w, []cid.Cid{c}); err != nil {
		return err
	}
	return writeSection(w, c.KeyString(), data)
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
	if err == nil && len(header) > maxCARHeader {
		err = fmt.Errorf("%w: a CAR with %d roots", ErrUnsupported, len(roots))
	}
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

// maxCARHeader bounds what is allocated before anything of a CAR is known, and what is written.
const maxCARHeader = 4 << 10

// CARReader reads a CAR, of version 1 or 2, section by section and trusts none
// of it. It is not safe for concurrent use.
type CARReader struct {
	r       *car.BlockReader
	src     *input
	section *sectionReader
	// Roots are those that the CAR's header names. They are claims.
	Roots []cid.Cid

	want map[cid.Cid]bool // of the last CopyDAG
}

// ReadCAR reads the header of a CAR. The error wraps ErrMalformed or ErrTruncated, or
// is the reader's own.
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
		return nil, src.classify(err, section)
	}
	return &CARReader{r: br, src: src, section: section, Roots: br.Roots}, nil
}

// abortMark is how boxo's gateways, kubo's among them, go on where they cannot write
// the next section of a CAR: a section of 10 bytes, of which no CID begins so.
const abortMark = "\n\n[Gateway "

// sectionReader keeps how a section begins. go-car reports io.EOF not only between two
// sections, but also right after the length of one.
type sectionReader struct {
	r     *bufio.Reader
	begun [len(abortMark)]byte
	n     int   // of begun
	at    int64 // how much was read in all
}

func (s *sectionReader) keep(p []byte) {
	s.n += copy(s.begun[s.n:], p)
	s.at += int64(len(p))
}

// aborted reports whether it is none, but what a gateway says instead.
func (s *sectionReader) aborted() bool { return string(s.begun[:s.n]) == abortMark }

func (s *sectionReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.keep(p[:n])
	return n, err
}

func (s *sectionReader) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.keep([]byte{b})
	}
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

// close ends a read that another goroutine waits in, if that can be done.
func (in *input) close() {
	if c, ok := in.r.(io.Closer); ok {
		c.Close()
	}
}

// classify says what an error in a section is.
func (in *input) classify(err error, section *sectionReader) error {
	switch {
	case in.err != nil:
		return fmt.Errorf("read CAR: %w", in.err)
	case section.aborted():
		return fmt.Errorf("%w: %w", ErrTruncated, ErrAborted)
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}

// Next returns the next IPFS block, checked against its CID, or io.EOF. The
// error wraps ErrTruncated, ErrMalformed, ErrHash or ErrUnsupported, or is the
// reader's own.
func (r *CARReader) Next() (Block, error) {
	b, err := r.next()
	if err != nil {
		return Block{}, err
	}
	return b, b.Check()
}

// next returns the next IPFS block unchecked.
func (r *CARReader) next() (Block, error) {
	r.section.n = 0
	b, err := r.r.Next()
	if err == io.EOF && r.src.err == nil && r.section.n == 0 {
		return Block{}, io.EOF
	}
	if err != nil {
		return Block{}, r.src.classify(err, r.section)
	}
	return Block{b.Cid(), b.RawData()}, nil
}

// CopyDAG copies to sink the IPFS blocks of the DAGs at roots from a CAR that
// holds parents before children, as exports of a DAG do. A block that nothing
// before it links to ends the copy with ErrForeignBlock, so that no CAR can make
// the receiver keep what it did not ask for. The blocks before an error have
// been put. Whether the DAG is complete is for Missing to say, unless nothing is
// left that Received counts as linked.
//
// Blocks are read ahead and checked on all cores. If the CAR's reader is an
// io.Closer, an error or the end of ctx closes it, so that nothing waits for it any
// longer. It holds some 100 bytes for every link that it has met.
//
// progress, if not nil, is called now and then with the counts so far.
func (r *CARReader) CopyDAG(ctx context.Context, sink Sink, roots []cid.Cid, progress func(Received)) (Received, error) {
	return r.copyDAG(ctx, &copying{sink: sink}, roots, progress)
}

func (r *CARReader) copyDAG(ctx context.Context, c *copying, roots []cid.Cid, progress func(Received)) (Received, error) {
	c.want = make(map[cid.Cid]bool, len(roots))
	for _, root := range roots {
		c.link(root)
	}
	r.want = c.want
	stop := context.AfterFunc(ctx, r.src.close)
	defer stop()
	err := pipeline(r.batches(), checkBatch, func(b carBatch) error {
		err := errors.Join(ctx.Err(), c.put(ctx, b))
		if err != nil {
			r.src.close()
		} else if progress != nil && len(b.blocks) > 0 {
			progress(c.got)
		}
		return err
	})
	return c.got, err
}

// Lacking returns the IPFS blocks that were linked in the last CopyDAG, or asked for, and
// have not come: those that Received counts as linked. Their order says nothing.
func (r *CARReader) Lacking() []cid.Cid {
	var out []cid.Cid
	for c, wanted := range r.want {
		if wanted {
			out = append(out, c)
		}
	}
	return out
}

// Received counts what came out of a CAR.
type Received struct {
	Blocks uint64
	Bytes  uint64
	// Linked is how many IPFS blocks are linked by those received, or were asked
	// for, and have not come.
	Linked uint64
}

// carBatch is some blocks of a CAR, one after the other, and what came after them if
// that is an error.
type carBatch struct {
	blocks []Block
	ends   []int64     // where in the CAR the data of each block ends
	links  [][]cid.Cid // of each block, once it is checked
	err    error
}

// carBatchSize is how many bytes of blocks are handed over together. Each counts for
// blockCost more than its data, so that blocks without data end a batch too.
const (
	carBatchSize = 256 << 10
	blockCost    = 256
)

// batches reads the CAR. A batch ends where nothing has arrived yet to follow, so
// that a slow source does not keep back what is wrong with it.
func (r *CARReader) batches() iter.Seq[carBatch] {
	return func(yield func(carBatch) bool) {
		for {
			var b carBatch
			for n := 0; b.err == nil && n < carBatchSize; {
				var block Block
				if block, b.err = r.next(); b.err == nil {
					b.blocks = append(b.blocks, block)
					b.ends = append(b.ends, r.section.at)
					n += len(block.Data) + blockCost
					if r.section.r.Buffered() == 0 {
						break
					}
				}
			}
			if !yield(b) || b.err != nil {
				return
			}
		}
	}
}

// checkBatch checks blocks against their CIDs and finds their links, up to the first
// that is wrong.
func checkBatch(b carBatch) carBatch {
	b.links = make([][]cid.Cid, len(b.blocks))
	for i, block := range b.blocks {
		err := block.Check()
		if err == nil {
			b.links[i], err = Links(block)
		}
		if err != nil {
			return carBatch{b.blocks[:i], b.ends[:i], b.links[:i], err}
		}
	}
	return b
}

// copying is a CopyDAG in progress.
type copying struct {
	sink  Sink
	want  map[cid.Cid]bool    // false once received
	index map[cid.Cid]carSpan // where each block is in the CAR, if not nil
	got   Received
}

// carSpan is where in a CAR the data of an IPFS block is.
type carSpan struct {
	end    int64
	length int
}

func (c *copying) link(to cid.Cid) {
	if _, ok := c.want[to]; !ok {
		c.want[to] = true
		c.got.Linked++
	}
}

// put puts what is wanted of a batch.
func (c *copying) put(ctx context.Context, b carBatch) error {
	fresh := b.blocks[:0]
	bytes := uint64(0)
	err := b.err
	for i, block := range b.blocks {
		wanted, known := c.want[block.CID]
		if !known {
			err = fmt.Errorf("%w: %s", ErrForeignBlock, block.CID)
			break
		}
		if !wanted {
			continue // some exporters repeat blocks
		}
		c.want[block.CID] = false
		c.got.Linked--
		for _, to := range b.links[i] {
			c.link(to)
		}
		if c.index != nil {
			c.index[block.CID] = carSpan{b.ends[i], len(block.Data)}
		}
		fresh = append(fresh, block)
		bytes += uint64(len(block.Data))
	}
	if err := c.sink.Put(ctx, fresh...); err != nil {
		return err
	}
	c.got.Blocks += uint64(len(fresh))
	c.got.Bytes += bytes
	if err == nil || err == io.EOF {
		return nil
	}
	return fmt.Errorf("after %d IPFS blocks: %w", c.got.Blocks, err)
}
