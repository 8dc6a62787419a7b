package node

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/routing/http/server"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/boxo/routing/http/types/iter"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
)

// routing is the Delegated Routing V1 HTTP API (specs.ipfs.tech/routing/http-routing-v1):
// this node provides what it holds, has the records of names that it holds, and knows
// of nobody else.
func (n *Network) routing(r *Repo) http.Handler { return server.Handler(router{n, r}) }

type router struct {
	n *Network
	r *Repo
}

var _ server.DelegatedRouter = router{}

// self is the record of this node.
func (r router) self() *types.PeerRecord {
	id := r.n.host.ID()
	rec := &types.PeerRecord{Schema: types.SchemaPeer, ID: &id, Protocols: []string{"transport-bitswap", "transport-ipfs-gateway-libp2p"}}
	for _, a := range r.n.host.Addrs() {
		rec.Addrs = append(rec.Addrs, types.Multiaddr{Multiaddr: a})
	}
	return rec
}

func (r router) FindProviders(ctx context.Context, c cid.Cid, _ int) (iter.ResultIter[types.Record], error) {
	var out []iter.Result[types.Record]
	if has, err := (readOnly{r.r.Blocks}).Has(ctx, c); err != nil {
		return nil, err
	} else if has {
		out = append(out, iter.Result[types.Record]{Val: r.self()})
	}
	return iter.FromSlice(out), nil
}

func (r router) FindPeers(_ context.Context, id peer.ID, _ int) (iter.ResultIter[*types.PeerRecord], error) {
	var out []iter.Result[*types.PeerRecord]
	if id == r.n.host.ID() {
		out = append(out, iter.Result[*types.PeerRecord]{Val: r.self()})
	}
	return iter.FromSlice(out), nil
}

func (r router) GetClosestPeers(context.Context, cid.Cid) (iter.ResultIter[*types.PeerRecord], error) {
	return nil, routing.ErrNotSupported
}

// GetIPNS answers with the record that the repository holds.
func (r router) GetIPNS(_ context.Context, name ipns.Name) (*ipns.Record, error) {
	n, err := r.r.Name(name.String())
	if errors.Is(err, ErrNoName) {
		return nil, routing.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return ipns.UnmarshalRecord(n.Record)
}

func (r router) PutIPNS(context.Context, ipns.Name, *ipns.Record) error {
	return routing.ErrNotSupported
}

// ProvideBitswap is a historic part of the API.
//
//lint:ignore SA1019 the interface still has it
func (r router) ProvideBitswap(context.Context, *server.BitswapWriteProvideRequest) (time.Duration, error) {
	return 0, routing.ErrNotSupported
}
