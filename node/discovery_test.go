package node

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Nothing that finds peers, or lets them find this node, is on unless asked for.
func TestNothingIsAnnouncedByDefault(t *testing.T) {
	c := DefaultConfig()
	if len(c.Peers) > 0 || c.MDNS || len(c.DHT) > 0 || c.Routing {
		t.Errorf("%+v", c)
	}
	n := serve(t, newRepo(t), nil)
	if len(n.stops) > 0 {
		t.Errorf("%d things were started", len(n.stops))
	}
	for _, p := range n.host.Mux().Protocols() {
		if strings.Contains(string(p), "/kad/") || strings.Contains(string(p), "circuit") || strings.Contains(string(p), "autonat") {
			t.Errorf("it speaks %s", p)
		}
	}
	resp, err := http.Get(n.GatewayURL() + "/routing/v1/providers/bafkqaaa")
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("routing answers %s", resp.Status)
	}
}

// Pins are announced in a DHT, those that were there and those that come, and a peer
// that asks it finds this node and gets the DAG.
func TestDHT(t *testing.T) {
	h := stranger(t)
	server, err := dht.New(h, dht.Mode(dht.ModeServer))
	must(t, err)
	defer server.Close()
	o := newOrigin(t)
	must(t, o.repo.Pin(ctx, o.root, "p"))
	n, err := o.repo.Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: []string{anySwarm}, DHT: []string{addressOf(h)}})
	must(t, err)
	defer func() { must(t, n.Close()) }()

	asker := stranger(t)
	client, err := dht.New(asker, dht.Mode(dht.ModeClient), dht.BootstrapPeers(peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}))
	must(t, err)
	defer client.Close()
	must(t, asker.Connect(ctx, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}))
	var found peer.AddrInfo
	await(t, "the pin to be found", func() bool {
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		all, err := client.FindProviders(limited, o.root)
		if err != nil || len(all) == 0 {
			return false
		}
		found = all[0]
		return true
	})
	if found.ID != n.PeerID() {
		t.Fatalf("found %s, not %s", found.ID, n.PeerID())
	}
	// A new one is announced too; what is unpinned is forgotten.
	other := dag.RawBlock([]byte("another pin"))
	must(t, o.repo.Blocks.Put(ctx, other))
	must(t, o.repo.Pin(ctx, other.CID, "p"))
	must(t, o.repo.Unpin(o.root))
	own, err := dht.New(stranger(t), dht.Mode(dht.ModeClient), dht.BootstrapPeers(peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}))
	must(t, err)
	defer own.Close()
	must(t, own.Host().Connect(ctx, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}))
	var told map[cid.Cid]time.Time
	await(t, "the new pin to be told of", func() bool {
		told = announce(ctx, o.repo, own, map[cid.Cid]time.Time{o.root: time.Now()})
		return len(told) > 0
	})
	if _, ok := told[other.CID]; !ok || len(told) != 1 {
		t.Errorf("told of %v", told)
	}
	to := newRepo(t)
	src, err := to.Dial(found.Addrs[0].String() + "/p2p/" + found.ID.String())
	must(t, err)
	defer src.Close()
	must(t, to.Fetch(ctx, []*Remote{src}, o.root, nil))
	checkState(t, to.Blocks, o.root, o.docs)
}

// A DHT whose peers cannot be reached keeps nobody from serving, and from ending.
func TestDHTOutOfReach(t *testing.T) {
	h := stranger(t)
	gone := addressOf(h)
	must(t, h.Close())
	o := newOrigin(t)
	must(t, o.repo.Pin(ctx, o.root, "p"))
	n, err := o.repo.Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: []string{anySwarm}, DHT: []string{gone}})
	must(t, err)
	src := dial(t, n.GatewayURL())
	_, err = src.Block(ctx, o.root)
	must(t, err)
	must(t, within(t, n.Close))
	select {
	case err := <-n.Errs():
		t.Errorf("a server ended by itself: %v", err)
	default:
	}
}

// Connections to listed peers are kept up: one that was away is connected again.
func TestPeersReconnect(t *testing.T) {
	t.Parallel() // it waits most of the time
	there := newRepo(t)
	o := ServeOptions{Gateway: anyGateway, Swarm: []string{anySwarm}}
	n, err := there.Serve(ctx, o)
	must(t, err)
	address := n.Addresses()[0]
	here, err := newRepo(t).Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: []string{anySwarm}, Peers: []string{address}})
	must(t, err)
	defer func() { must(t, here.Close()) }()
	connected := func() bool { return len(here.host.Network().ConnsToPeer(n.PeerID())) > 0 }
	await(t, "the connection", connected)
	must(t, n.Close())
	await(t, "the connection to end", func() bool { return !connected() })
	o.Swarm = []string{strings.TrimSuffix(address, "/p2p/"+n.PeerID().String())}
	n, err = there.Serve(ctx, o)
	must(t, err)
	defer func() { must(t, n.Close()) }()
	await(t, "the connection again", connected)
}

// Who asks /routing/v1 who has a block is told of this node, for what it holds.
func TestRouting(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	n, err := r.Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: []string{anySwarm}, Routing: true})
	must(t, err)
	defer func() { must(t, n.Close()) }()
	ask := func(c cid.Cid) (ids []string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.GatewayURL()+"/routing/v1/providers/"+c.String(), nil)
		must(t, err)
		req.Header.Set("Accept", "application/json")
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		defer resp.Body.Close()
		var out struct {
			Providers []struct {
				ID    string
				Addrs []string
			}
		}
		err = json.NewDecoder(resp.Body).Decode(&out)
		if err != nil && resp.StatusCode != http.StatusNotFound {
			t.Fatal(err)
		}
		for _, p := range out.Providers {
			if len(p.Addrs) == 0 || p.Addrs[0]+"/p2p/"+p.ID != n.Addresses()[0] {
				t.Errorf("address %v of %s", p.Addrs, p.ID)
			}
			ids = append(ids, p.ID)
		}
		return ids
	}
	if got := ask(root); len(got) != 1 || got[0] != n.PeerID().String() {
		t.Errorf("what is held: %v", got)
	}
	if got := ask(dag.RawBlock([]byte("unknown")).CID); len(got) != 0 {
		t.Errorf("what is not: %v", got)
	}
}

func TestBadPeers(t *testing.T) {
	r := newRepo(t)
	for _, o := range []ServeOptions{{Peers: []string{"x"}}, {Peers: []string{"/ip4/127.0.0.1/tcp/1"}}, {DHT: []string{"x"}}} {
		o.Gateway, o.Swarm = anyGateway, []string{anySwarm}
		n, err := r.Serve(ctx, o)
		if err == nil {
			n.Close()
			t.Errorf("%+v is served", o)
		}
		if errors.Is(err, ErrExposed) {
			t.Error(err)
		}
	}
}
