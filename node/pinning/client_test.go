package pinning

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	client "github.com/ipfs/boxo/pinning/remote/client"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	peers "github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

func origin(t *testing.T, address string) multiaddr.Multiaddr {
	t.Helper()
	a, err := multiaddr.NewMultiaddr(address)
	must(t, err)
	return a
}

// awaitPinned waits until the foreign client is told that a request is pinned.
func awaitPinned(t *testing.T, c *client.Client, id string) client.PinStatusGetter {
	t.Helper()
	var got client.PinStatusGetter
	await(t, id+" to be pinned", func() bool {
		var err error
		got, err = c.GetStatusByID(ctx, id)
		must(t, err)
		if got.GetStatus() == client.StatusFailed {
			t.Fatalf("it failed: %v", got.GetInfo())
		}
		return got.GetStatus() == client.StatusPinned
	})
	return got
}

// What boxo's client, which is kubo's, asks for is fetched from its origin and pinned,
// listed, and given up.
func TestForeignClient(t *testing.T) {
	from, to := newPeer(t), newPeer(t).start(Options{})
	root := from.putDAG("one")
	c := to.client()

	added, err := c.Add(ctx, root, client.PinOpts.WithName("precious"),
		client.PinOpts.WithOrigins(origin(t, from.address()), origin(t, "/dns4/nowhere.example/tcp/1")),
		client.PinOpts.AddMeta(map[string]string{"app": "test"}))
	must(t, err)
	got := awaitPinned(t, c, added.GetRequestId())
	if got.GetPin().GetCid() != root || got.GetPin().GetName() != "precious" || got.GetPin().GetMeta()["app"] != "test" ||
		len(got.GetPin().GetOrigins()) != 2 || !got.GetCreated().Equal(added.GetCreated()) {
		t.Errorf("it is said to be %v", got)
	}
	if d := got.GetDelegates(); len(d) != 1 || d[0].String() != to.address() {
		t.Errorf("delegates %v, not %s", d, to.address())
	}
	if !to.holds(root) {
		t.Error("the DAG is not complete")
	}
	pins, err := to.repo.Pins()
	must(t, err)
	if len(pins) != 1 || pins[0].CID != root || pins[0].Owner != Owner || pins[0].Name != "precious" {
		t.Errorf("pins %v", pins)
	}
	for what, o := range map[string][]client.LsOption{
		"all": nil, "its CID": {client.PinOpts.FilterCIDs(root)}, "its name": {client.PinOpts.FilterName("precious")},
		"its status": {client.PinOpts.FilterStatus(client.StatusFailed, client.StatusPinned)},
	} {
		if list, err := c.LsSync(ctx, o...); err != nil || len(list) != 1 || list[0].GetRequestId() != added.GetRequestId() {
			t.Errorf("list by %s: %v, %v", what, list, err)
		}
	}
	must(t, c.DeleteByID(ctx, added.GetRequestId()))
	if _, err := c.GetStatusByID(ctx, added.GetRequestId()); err == nil || !strings.Contains(err.Error(), "NOT_FOUND") {
		t.Errorf("after it was deleted: %v", err)
	}
	if to.pinned(root) {
		t.Error("the pin is still there")
	}
}

// A list of more than a page is read page by page, each request once.
func TestForeignClientPages(t *testing.T) {
	p := newPeer(t).start(Options{})
	c := p.client()
	var want []string
	for i := range 35 {
		b := dag.RawBlock([]byte(fmt.Sprint(i)))
		must(t, p.repo.Blocks.Put(ctx, b))
		want = append(want, p.add(b.CID))
	}
	for _, id := range want {
		p.awaitStatus(id, pinned)
	}
	slices.Reverse(want) // newest first
	list, err := c.LsSync(ctx)
	must(t, err)
	var got []string
	for _, r := range list {
		got = append(got, r.GetRequestId())
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, not %v", got, want)
	}
}

// An origin that has bitswap only, as kubo has, and that is connected to the node as
// kubo is once it knows the delegates.
func TestBitswapOrigin(t *testing.T) {
	holder, to := newPeer(t), newPeer(t).start(Options{})
	root := holder.putDAG("bitswap")

	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	must(t, err)
	t.Cleanup(func() { h.Close() })
	store := blockstore.NewBlockstore(sync.MutexWrap(datastore.NewMapDatastore()))
	for c, err := range holder.repo.Blocks.All(ctx) {
		must(t, err)
		data, err := holder.repo.Blocks.Get(ctx, c)
		must(t, err)
		b, err := blocks.NewBlockWithCid(data, c)
		must(t, err)
		must(t, store.Put(ctx, b))
	}
	life, end := context.WithCancel(ctx)
	t.Cleanup(end)
	swap := bitswap.New(life, bsnet.NewFromIpfsHost(h), nil, store)
	t.Cleanup(func() { swap.Close() })
	delegate, err := peers.AddrInfoFromString(to.address())
	must(t, err)
	must(t, h.Connect(ctx, *delegate))

	c := to.client()
	added, err := c.Add(ctx, root, client.PinOpts.WithOrigins(origin(t, h.Addrs()[0].String()+"/p2p/"+h.ID().String())))
	must(t, err)
	awaitPinned(t, c, added.GetRequestId())
	if !to.holds(root) {
		t.Error("the DAG is not complete")
	}
}

// A replacement is another request, and the DAG before it stays until its own is here.
func TestReplace(t *testing.T) {
	from, to := newPeer(t), newPeer(t).start(Options{})
	one, two := from.putDAG("one"), from.putDAG("two")
	c := to.client()
	first, err := c.Add(ctx, one, client.PinOpts.WithOrigins(origin(t, from.address())))
	must(t, err)
	awaitPinned(t, c, first.GetRequestId())

	nowhere, err := c.Replace(ctx, first.GetRequestId(), two)
	must(t, err)
	await(t, "it to fail", func() bool {
		got, err := c.GetStatusByID(ctx, nowhere.GetRequestId())
		must(t, err)
		return got.GetStatus() == client.StatusFailed
	})
	if _, err := c.GetStatusByID(ctx, first.GetRequestId()); err == nil {
		t.Error("the replaced request is still there")
	}
	if !to.pinned(one) {
		t.Error("what was pinned is given up for what could not be had")
	}
	second, err := c.Replace(ctx, nowhere.GetRequestId(), two, client.PinOpts.WithOrigins(origin(t, from.address())))
	must(t, err)
	awaitPinned(t, c, second.GetRequestId())
	if got := to.pinsOf(Owner); !slices.Equal(got, []cid.Cid{two}) {
		t.Errorf("pinned: %v, not %s alone", got, two)
	}
	if _, err := c.Replace(ctx, first.GetRequestId(), one); err == nil || !strings.Contains(err.Error(), "NOT_FOUND") {
		t.Errorf("a request that is gone is replaced: %v", err)
	}
}
