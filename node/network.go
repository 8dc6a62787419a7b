package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2phttp "github.com/libp2p/go-libp2p/p2p/http"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// gatewayProtocol is the libp2p protocol under which IPFS nodes offer their
// trustless gateway.
const gatewayProtocol = "/ipfs/gateway"

// ErrExposed: an address that is not on loopback would let anybody read.
var ErrExposed = errors.New("address is not on loopback")

// ServeOptions says where a node listens, and for whom.
type ServeOptions struct {
	// Gateway is host:port of the HTTP gateway; port 0 takes any.
	Gateway string
	// Swarm are multiaddrs for libp2p; with none the node has the gateway only.
	Swarm []string
	// Open allows addresses that are not on loopback, and any peer. Whoever
	// connects there can read everything in the repository.
	Open bool
	// Peers are multiaddrs that end in /p2p/<peer id>: connections to them are
	// kept up, and they may connect and read from anywhere.
	Peers []string
	// MDNS announces the node on the local network and connects to those found. That
	// lets nobody read who could not before.
	MDNS bool
	// DHT are the bootstrap peers of a DHT in which the node, as a client,
	// announces its pins. None if empty.
	DHT []string
	// Routing answers delegated routing requests (/routing/v1) on the gateway, so
	// that an IPFS node that asks here finds this one.
	Routing bool
	// Logs finds the logs for /tlog/.
	Logs LogRoot
}

// Network is a node that listens. Close ends it.
type Network struct {
	repo    *Repo
	host    host.Host
	readers *readers
	bitswap *bitswap.Bitswap
	p2pHTTP *libp2phttp.Host
	server  *http.Server
	mux     *http.ServeMux // of server
	addr    net.Addr
	wg      sync.WaitGroup
	errs    chan error // has room for each server's
	// stops ends what was started beside the servers, last first.
	stops []func() error
}

// Serve starts the node's network: bitswap, and the gateway over HTTP and over
// libp2p. If the repository has a swarm key, only who has it too can connect to the
// swarm.
func (r *Repo) Serve(ctx context.Context, o ServeOptions) (*Network, error) {
	swarmKey, err := r.SwarmKey()
	if err != nil {
		return nil, err
	}
	if !o.Open {
		if err := onLoopback(o, len(swarmKey) > 0); err != nil {
			return nil, err
		}
	}
	handler, err := r.Gateway(o.Logs)
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Gateway)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	served := make(places, gatewayRequests)
	n := &Network{repo: r, mux: http.NewServeMux(), addr: listener.Addr(), errs: make(chan error, 3)}
	if err := n.startSwarm(r, o, swarmKey, unhurried(served.limit(handler), writeLimit)); err != nil {
		return nil, errors.Join(fmt.Errorf("swarm: %w", err), listener.Close(), n.Close())
	}
	n.mux.Handle("/", handler)
	if o.Routing {
		n.mux.Handle("/routing/v1/", n.routing(r))
	}
	handler = served.limit(n.mux)
	if !o.Open {
		handler = loopbackOnly(handler)
	}
	n.server = &http.Server{
		Handler:           introduced(n.PeerID(), unhurried(handler, writeLimit)),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	n.run(func() error { return n.server.Serve(listener) })
	if n.bitswap != nil {
		r.serving.Store(n)
	}
	return n, nil
}

func onLoopback(o ServeOptions, hasSwarmKey bool) error {
	host, _, err := net.SplitHostPort(o.Gateway)
	if err != nil {
		return fmt.Errorf("gateway address %q: %w", o.Gateway, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("gateway: %w: %s", ErrExposed, o.Gateway)
	}
	if hasSwarmKey || len(o.Peers) > 0 {
		return nil // who may connect to the swarm is known
	}
	for _, s := range o.Swarm {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return fmt.Errorf("swarm address: %w", err)
		}
		if !manet.IsIPLoopback(a) {
			return fmt.Errorf("swarm: %w: %s", ErrExposed, s)
		}
	}
	return nil
}

// loopbackOnly refuses requests for other names than this host's own. A web page
// that lets its own name point here could otherwise read everything (DNS rebinding).
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "this gateway serves its own host only", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// run starts a server that Close waits for.
func (n *Network) run(serve func() error) {
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			n.errs <- err
		}
	}()
}

// Handle adds a handler for a pattern of [http.ServeMux] to the gateway's HTTP listener. It is not offered over libp2p.
func (n *Network) Handle(pattern string, h http.Handler) { n.mux.Handle(pattern, h) }

// Errs delivers the error of a server that ended by itself.
func (n *Network) Errs() <-chan error { return n.errs }

// GatewayURL is the gateway's address, without a trailing slash.
func (n *Network) GatewayURL() string { return "http://" + n.addr.String() }

// Addresses are the multiaddrs, with peer id, at which the node is reached.
func (n *Network) Addresses() []string {
	var out []string
	for _, a := range n.host.Addrs() {
		out = append(out, a.String()+"/p2p/"+n.host.ID().String())
	}
	return out
}

// PeerID is the node's libp2p peer id.
func (n *Network) PeerID() peer.ID { return n.host.ID() }

// Close stops all servers and waits for them.
func (n *Network) Close() error {
	n.repo.serving.CompareAndSwap(n, nil)
	var errs []error
	if n.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := n.server.Shutdown(ctx); err != nil {
			errs = append(errs, n.server.Close())
		}
	}
	for _, stop := range slices.Backward(n.stops) {
		errs = append(errs, stop())
	}
	if n.p2pHTTP != nil {
		errs = append(errs, n.p2pHTTP.Close())
	}
	if n.bitswap != nil {
		errs = append(errs, n.bitswap.Close())
	}
	if n.host != nil {
		errs = append(errs, n.host.Close())
	}
	n.wg.Wait()
	return errors.Join(errs...)
}
