package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/path"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// ErrGone: an IPFS block that was erased on purpose.
var ErrGone = errors.New("erased on purpose, as the log says")

// withGone is the store of the gateway. What was erased is 410 and not 404: nobody need
// look for it elsewhere.
type withGone struct {
	readOnly
	repo *Repo
}

func (s withGone) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := s.readOnly.Get(ctx, c)
	return b, s.repo.goneStatus(ctx, c, err)
}

func (s withGone) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	n, err := s.readOnly.GetSize(ctx, c)
	return n, s.repo.goneStatus(ctx, c, err)
}

// goneDocument reports whether a path leads to a large document of which bytes were erased:
// boxo would begin to send it. The error then has the status.
func (b backend) goneDocument(ctx context.Context, p path.ImmutablePath) error {
	if b.repo.Gone == nil {
		return nil
	}
	md, err := b.ResolvePath(ctx, p)
	if err != nil {
		return nil // boxo says it with a status of its own
	}
	c := md.LastSegment.RootCid()
	if c.Prefix().Codec != cid.DagProtobuf || !b.repo.Gone(ctx, c) {
		return nil
	}
	missing, err := dag.Missing(ctx, b.repo.Blocks, c)
	if err != nil || len(missing) == 0 {
		return nil
	}
	return gateway.NewErrorStatusCode(fmt.Errorf("%s: %w", c, ErrGone), http.StatusGone)
}

// Head answers as Get would.
func (b backend) Head(ctx context.Context, p path.ImmutablePath) (gateway.ContentPathMetadata, *gateway.HeadResponse, error) {
	if err := b.goneDocument(ctx, p); err != nil {
		return gateway.ContentPathMetadata{}, nil, err
	}
	return b.IPFSBackend.Head(ctx, p)
}

// goneStatus makes of an error that says that a block is not there one that says why.
func (r *Repo) goneStatus(ctx context.Context, c cid.Cid, err error) error {
	if err == nil || !r.isGone(ctx, stored(c)) {
		return err
	}
	return gateway.NewErrorStatusCode(errors.Join(ErrGone, err), http.StatusGone)
}
