package node

import (
	"context"
	"errors"
	"io"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
)

// carBackend answers requests for a whole DAG, or one node, as a CAR, which is what
// a fetch asks for, without decoding nodes. All else is boxo's.
type carBackend struct {
	gateway.IPFSBackend
	blocks *segments.Store
}

func (b carBackend) GetCAR(ctx context.Context, p path.ImmutablePath, params gateway.CarParams) (gateway.ContentPathMetadata, io.ReadCloser, error) {
	root := p.RootCid()
	ours := len(p.Segments()) == 2 && params.Scope != gateway.DagScopeEntity && params.Range == nil &&
		params.Duplicates != gateway.DuplicateBlocksIncluded
	if ours {
		// Boxo has the right answer for what is not here.
		has, err := b.blocks.Has(ctx, root)
		ours = has && err == nil
	}
	if !ours {
		return b.IPFSBackend.GetCAR(ctx, p, params)
	}
	write := dag.WriteNodeCAR
	if params.Scope != gateway.DagScopeBlock {
		write = func(ctx context.Context, w io.Writer, src dag.Source, c cid.Cid) error {
			return dag.WriteCAR(ctx, w, src, c)
		}
	}
	stream := &carStream{func(w io.Writer) error { return write(ctx, w, b.blocks, root) }}
	return gateway.ContentPathMetadata{LastSegment: p}, stream, nil
}

// carStream is a CAR, for io.Copy.
type carStream struct {
	write func(io.Writer) error
}

// WriteTo writes the CAR. After an error it is cut short, which readers notice.
func (c *carStream) WriteTo(w io.Writer) (int64, error) {
	count := &countingWriter{w: w}
	err := c.write(count)
	return count.n, err
}

// Read is there for io.Copy, which uses WriteTo.
func (c *carStream) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

func (c *carStream) Close() error { return nil }

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
