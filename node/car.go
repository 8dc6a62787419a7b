package node

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// GetCAR answers requests for a whole DAG, or one node, as a CAR, which is what a fetch
// asks for, without decoding nodes. All else is boxo's.
func (b backend) GetCAR(ctx context.Context, p path.ImmutablePath, params gateway.CarParams) (gateway.ContentPathMetadata, io.ReadCloser, error) {
	root := p.RootCid()
	if has, err := b.blocks.Has(ctx, root); err != nil {
		return gateway.ContentPathMetadata{}, nil, err
	} else if !has { // boxo would give a CAR of nothing, with status 200
		return gateway.ContentPathMetadata{}, nil, b.repo.goneStatus(ctx, root, ipld.ErrNotFound{Cid: root})
	}
	if params.Range != nil {
		params.Scope = gateway.DagScopeEntity // as entity-bytes implies; boxo would ignore the range
	}
	req := requestOf(ctx)
	ours := len(p.Segments()) == 2 && params.Scope != gateway.DagScopeEntity &&
		params.Duplicates != gateway.DuplicateBlocksIncluded && dag.CheckCID(root) == nil
	if !ours {
		md, stream, err := b.IPFSBackend.GetCAR(ctx, p, params)
		if err != nil {
			return md, nil, err
		}
		if req.head {
			return md, http.NoBody, stream.Close()
		}
		return md, &foreignStream{stream, req}, nil
	}
	md := gateway.ContentPathMetadata{LastSegment: p}
	if req.head {
		return md, http.NoBody, nil
	}
	write := dag.WriteNodeCAR
	if params.Scope != gateway.DagScopeBlock {
		write = func(ctx context.Context, w io.Writer, src dag.Source, c cid.Cid) error {
			return dag.WriteCAR(ctx, w, src, c)
		}
	}
	return md, &carStream{req, func(w io.Writer) error { return write(ctx, w, b.repo.Blocks, root) }}, nil
}

// carStream is a CAR, for io.Copy.
type carStream struct {
	req   *gatewayRequest
	write func(io.Writer) error
}

// WriteTo writes the CAR. After an error it is cut short, which readers notice.
func (c *carStream) WriteTo(w io.Writer) (int64, error) {
	count := &countingWriter{w: w}
	err := c.write(count)
	c.req.cut = err != nil
	return count.n, err
}

// Read is there for io.Copy, which uses WriteTo.
func (c *carStream) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

func (c *carStream) Close() error { return nil }

// foreignStream is a CAR that boxo writes.
type foreignStream struct {
	io.ReadCloser
	req *gatewayRequest
}

func (s *foreignStream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.req.cut = err != nil && err != io.EOF
	return n, err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
