package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/libp2p/go-libp2p"
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

// ServeOptions says where a node listens.
type ServeOptions struct {
	// Gateway is host:port of the HTTP gateway; port 0 takes any.
	Gateway string
	// Swarm are multiaddrs for libp2p; with none the node has the gateway only.
	Swarm []string
	// Open allows addresses that are not on loopback. Whoever connects there
	// can read everything in the repository.
	Open bool
	// Logs finds the logs for /tlog/.
	Logs LogRoot
}

// Network is a node that listens. Close ends it.
type Network struct {
	host    host.Host
	bitswap *bitswap.Bitswap
	p2pHTTP *libp2phttp.Host
	server  *http.Server
	addr    net.Addr
	wg      sync.WaitGroup
	errs    chan error
}

// Serve starts the node's network: bitswap, and the gateway over HTTP and over
// libp2p.
func (r *Repo) Serve(ctx context.Context, o ServeOptions) (*Network, error) {
	if !o.Open {
		if err := onLoopback(o); err != nil {
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
	n := &Network{addr: listener.Addr(), errs: make(chan error, 2)}
	if err := n.startSwarm(r, o.Swarm, handler); err != nil {
		return nil, errors.Join(fmt.Errorf("swarm: %w", err), listener.Close(), n.Close())
	}
	if !o.Open {
		handler = loopbackOnly(handler)
	}
	n.server = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	n.run(func() error { return n.server.Serve(listener) })
	return n, nil
}

func onLoopback(o ServeOptions) error {
	host, _, err := net.SplitHostPort(o.Gateway)
	if err != nil {
		return fmt.Errorf("gateway address %q: %w", o.Gateway, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("gateway: %w: %s", ErrExposed, o.Gateway)
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

func (n *Network) startSwarm(r *Repo, addrs []string, handler http.Handler) error {
	key, err := r.identity()
	if err != nil {
		return err
	}
	listen := libp2p.ListenAddrStrings(addrs...)
	if len(addrs) == 0 {
		listen = libp2p.NoListenAddrs // libp2p's own default is every interface
	}
	n.host, err = libp2p.New(
		libp2p.Identity(key),
		listen,
		libp2p.DisableRelay(),
		libp2p.NATManager(nil),
		libp2p.Ping(false),
		libp2p.DisableMetrics(),
	)
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return nil
	}
	// bitswap.New starts its network and stops with its own Close.
	n.bitswap = bitswap.New(context.Background(), bsnet.NewFromIpfsHost(n.host), nil, readOnly{r.Blocks})
	n.p2pHTTP = &libp2phttp.Host{StreamHost: n.host}
	n.p2pHTTP.SetHTTPHandlerAtPath(gatewayProtocol, "/", handler)
	n.run(n.p2pHTTP.Serve)
	// Addrs waits until it listens. If the host were closed before that, its server
	// would be left waiting for ever.
	n.p2pHTTP.Addrs()
	return nil
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
	var errs []error
	if n.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := n.server.Shutdown(ctx); err != nil {
			errs = append(errs, n.server.Close())
		}
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
