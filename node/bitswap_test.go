package node

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Any bitswap client gets what the node holds.
func TestBitswap(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	n := serve(t, r, nil)
	h, err := libp2p.New(libp2p.NoListenAddrs)
	must(t, err)
	defer h.Close()
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := bitswap.New(bounded, bsnet.NewFromIpfsHost(h), nil, blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())))
	defer client.Close()
	info, err := peer.AddrInfoFromString(n.Addresses()[0])
	must(t, err)
	must(t, h.Connect(bounded, *info))
	b, err := client.GetBlock(bounded, root)
	must(t, err)
	want, err := r.Blocks.Get(ctx, root)
	must(t, err)
	if !bytes.Equal(b.RawData(), want) {
		t.Error("other bytes")
	}
	must(t, r.Blocks.Put(ctx, emptyBlock))
	if b, err := client.GetBlock(bounded, emptyBlock.CID); err != nil || len(b.RawData()) != 0 {
		t.Errorf("the block without bytes: %v", err)
	}
}
