package node

import (
	"context"
	"errors"
	"net/http"

	"github.com/ipfs/boxo/gateway"
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

// goneStatus makes of an error that says that a block is not there one that says why.
func (r *Repo) goneStatus(ctx context.Context, c cid.Cid, err error) error {
	if err == nil || !r.isGone(ctx, stored(c)) {
		return err
	}
	return gateway.NewErrorStatusCode(errors.Join(ErrGone, err), http.StatusGone)
}
