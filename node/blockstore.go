package node

import (
	"context"
	"errors"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// readOnly shows a Store to boxo, for serving. What serves must not write: a
// request from outside never changes the store. Bytes are found by their digest,
// whatever codec and version of CID they are asked for by.
type readOnly struct{ s *segments.Store }

// stored is the CID by which the store has the bytes of c, if it has them.
func stored(c cid.Cid) cid.Cid {
	if !c.Defined() || dag.CheckCID(c) == nil {
		return c
	}
	return cid.NewCidV1(cid.Raw, c.Hash())
}

var _ blockstore.Blockstore = readOnly{}

var errReadOnly = errors.New("the store is read only for the network")

func (r readOnly) Has(ctx context.Context, c cid.Cid) (bool, error) {
	ok, err := r.s.Has(ctx, stored(c))
	if errors.Is(err, dag.ErrUnsupported) {
		return false, nil
	}
	return ok, err
}

func (r readOnly) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	data, err := r.s.Get(ctx, stored(c))
	if err != nil {
		return nil, ipldError(c, err)
	}
	return blocks.NewBlockWithCid(data, c)
}

func (r readOnly) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	n, err := r.s.Size(ctx, stored(c))
	return n, ipldError(c, err)
}

// toPeers is readOnly for bitswap's server, which takes a size of 0 for "do not send
// it": whoever wants the block without bytes would wait for ever.
type toPeers struct{ readOnly }

func (p toPeers) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	n, err := p.readOnly.GetSize(ctx, c)
	if err != nil {
		return 0, err
	}
	return max(n, 1), nil
}

// ipldError turns what we have not, and what no save point holds, into the one
// error that boxo knows.
func ipldError(c cid.Cid, err error) error {
	if errors.Is(err, dag.ErrNotFound) || errors.Is(err, dag.ErrUnsupported) {
		return ipld.ErrNotFound{Cid: c}
	}
	return err
}

func (r readOnly) Put(context.Context, blocks.Block) error       { return errReadOnly }
func (r readOnly) PutMany(context.Context, []blocks.Block) error { return errReadOnly }
func (r readOnly) DeleteBlock(context.Context, cid.Cid) error    { return errReadOnly }
func (r readOnly) AllKeysChan(context.Context) (<-chan cid.Cid, error) {
	return nil, errReadOnly // nothing that serves asks for it
}
