package node

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestHeld: a node shows what it has over HTTP, over libp2p, and, where it has no
// gateway, by bitswap; what it has not is not found.
func TestHeld(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	n := serve(t, r, nil)
	absent := dag.RawBlock([]byte("absent")).CID
	patient, enough := context.WithCancel(ctx)
	defer enough()
	bitswapOnly := addressOf(bitswapPeer(t, r, soonAfter(absent, enough)))
	for _, source := range []string{n.GatewayURL(), n.Addresses()[0], bitswapOnly} {
		remote := dial(t, source)
		data, err := remote.Held(ctx, root)
		must(t, err)
		must(t, dag.Block{CID: root, Data: data}.Check())
		if _, err = remote.Held(patient, absent); !errors.Is(err, dag.ErrNotFound) {
			t.Errorf("what is not there: %v", err)
		}
	}
}

// TestHeldIsOwn: what a gateway has elsewhere only, it has not; where it says so it is
// not followed, also not on this host.
func TestHeldIsOwn(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	n := serve(t, r, nil)
	handler, err := r.Gateway(nil)
	must(t, err)
	to := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/ipfs/"+root.String() && req.URL.Query().Get("there") == "" {
			http.Redirect(w, req, to+req.URL.Path+"?format=raw&there=yes", http.StatusFound)
			return
		}
		handler.ServeHTTP(w, req)
	}))
	defer server.Close()
	for _, elsewhere := range []string{n.GatewayURL(), strings.Replace(server.URL, "127.0.0.1", "localhost", 1)} {
		to = elsewhere
		if _, err := dial(t, server.URL).Held(ctx, root); !errors.Is(err, ErrUnreachable) {
			t.Errorf("redirected to %s: %v", to, err)
		}
	}
	to = server.URL
	remote := dial(t, server.URL)
	if _, err = remote.Held(ctx, root); err != nil {
		t.Errorf("redirected on the same host: %v", err)
	}
	if got := remote.PeerID(); got != "" {
		t.Errorf("it has not said who it is, and is %s", got)
	}
	said := dial(t, n.GatewayURL())
	_, err = said.Held(ctx, dag.RawBlock([]byte("absent")).CID)
	if got := said.PeerID(); !errors.Is(err, dag.ErrNotFound) || got != n.PeerID().String() {
		t.Errorf("it is %q, %v", got, err)
	}
}

// TestHeldIsCached: a gateway is told not to look elsewhere.
func TestHeldIsCached(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Cache-Control"))
		w.WriteHeader(http.StatusPreconditionFailed)
	}))
	defer server.Close()
	_, err := dial(t, server.URL).Held(ctx, dag.RawBlock(nil).CID)
	if !errors.Is(err, dag.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	if !slices.Equal(asked, []string{"only-if-cached"}) {
		t.Errorf("asked with %q", asked)
	}
}

// TestDialPeer: a peer is reached at whichever of its addresses works.
func TestDialPeer(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	n := serve(t, r, nil)
	id, err := r.PeerID()
	must(t, err)
	if id != n.PeerID().String() {
		t.Errorf("the peer id is %s, the host's %s", id, n.PeerID())
	}
	other := newRepo(t)
	remote, err := other.DialPeer([]string{"/ip4/127.0.0.1/tcp/1/p2p/" + id, n.Addresses()[0]})
	must(t, err)
	defer remote.Close()
	_, err = remote.Held(ctx, root)
	must(t, err)
	elsewhere, err := other.PeerID()
	must(t, err)
	for _, bad := range [][]string{nil, {"x"}, {n.Addresses()[0], "/ip4/127.0.0.1/tcp/1/p2p/" + elsewhere}} {
		if _, err := other.DialPeer(bad); err == nil {
			t.Errorf("%q is taken for the addresses of one peer", bad)
		}
	}
	got := PeersOf([]string{"x", "/ip4/127.0.0.1/tcp/1", n.Addresses()[0], "/ip4/127.0.0.1/tcp/1/p2p/" + elsewhere, "/ip4/127.0.0.1/tcp/1/p2p/" + id})
	if len(got) != 2 || len(got[id]) != 2 || len(got[elsewhere]) != 1 {
		t.Errorf("peers %v", got)
	}
}

// TestConnect: after it the peer can ask back, whatever its own way here.
func TestConnect(t *testing.T) {
	a, b := serve(t, newRepo(t), nil), serve(t, newRepo(t), nil)
	gone := strings.Replace(b.Addresses()[0], b.PeerID().String(), a.PeerID().String(), 1)
	must(t, a.Connect(ctx, []string{"nonsense", gone, b.Addresses()[0]}))
	if !slices.Contains(b.host.Network().Peers(), a.PeerID()) {
		t.Error("they are not connected")
	}
	unknown, err := newRepo(t).PeerID()
	must(t, err)
	if err := a.Connect(ctx, []string{"/ip4/127.0.0.1/tcp/1/p2p/" + unknown}); err == nil {
		t.Error("nobody is there and it is connected")
	}
	must(t, a.Connect(ctx, nil))
	if _, err := peer.Decode(unknown); err != nil {
		t.Errorf("the peer id is none: %v", err)
	}
}

// TestHeldWhileServing: a node that serves asks one peer alone, and hears its answer
// although that peer prefers to talk to the host that serves.
func TestHeldWhileServing(t *testing.T) {
	has, r := newRepo(t), newRepo(t)
	root, _ := putState(t, has.Blocks, 1)
	n := serve(t, r, nil)
	patient, enough := context.WithCancel(ctx)
	defer enough()
	holder, other := bitswapPeer(t, has, nil), bitswapPeer(t, newRepo(t), soonAfter(root, enough))
	must(t, n.Connect(ctx, []string{addressOf(holder)}))
	must(t, n.Connect(ctx, []string{addressOf(other)}))
	for range 3 { // the connection with the most streams is preferred
		s, err := holder.NewStream(ctx, n.PeerID(), bsnet.ProtocolBitswap)
		must(t, err)
		defer s.Reset()
	}
	remote, err := r.Dial(addressOf(holder))
	must(t, err)
	defer remote.Close()
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = remote.Held(bounded, root)
	must(t, err)

	lacks, err := r.Dial(addressOf(other))
	must(t, err)
	defer lacks.Close()
	if _, err := lacks.Held(patient, root); !errors.Is(err, dag.ErrNotFound) {
		t.Errorf("one that has it not, beside one that has: %v", err)
	}
}

// bitswapPeer is a libp2p peer that has a repository's IPFS blocks and no gateway. asked,
// if not nil, is told of those that it is asked for.
func bitswapPeer(t *testing.T, r *Repo, asked func(cid.Cid)) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings(anySwarm))
	must(t, err)
	swap := bitswap.New(ctx, bsnet.NewFromIpfsHost(h), nil, overheard{readOnly{r.Blocks}, asked})
	t.Cleanup(func() {
		swap.Close()
		h.Close()
	})
	return h
}

// overheard tells of the IPFS blocks that bitswap looks for.
type overheard struct {
	readOnly
	asked func(cid.Cid)
}

func (o overheard) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	if o.asked != nil {
		o.asked(c)
	}
	return o.readOnly.GetSize(ctx, c)
}

// soonAfter ends the wait for an IPFS block soon after a peer was asked for it: one that
// has it not says nothing, and how long it takes to ask it is the machine's affair.
func soonAfter(wanted cid.Cid, enough func()) (asked func(cid.Cid)) {
	return func(c cid.Cid) {
		if c == wanted {
			time.AfterFunc(300*time.Millisecond, enough)
		}
	}
}
