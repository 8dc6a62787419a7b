package node

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/peering"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	libp2phttp "github.com/libp2p/go-libp2p/p2p/http"
	"github.com/multiformats/go-multiaddr"
)

// newHost returns a libp2p host that listens on addrs, and nowhere if there are none.
// It relays nothing, opens no port of a router, and with a swarm key talks only to
// those who have it.
func newHost(key crypto.PrivKey, addrs []string, swarmKey []byte, more ...libp2p.Option) (host.Host, error) {
	listen := libp2p.ListenAddrStrings(addrs...)
	if len(addrs) == 0 {
		listen = libp2p.NoListenAddrs // libp2p's own default is every interface
	}
	options := []libp2p.Option{
		libp2p.Identity(key),
		listen,
		libp2p.DisableRelay(),
		libp2p.NATManager(nil),
		libp2p.Ping(false),
		libp2p.DisableMetrics(),
		libp2p.WithDialTimeout(dialTimeout),
	}
	if len(swarmKey) > 0 {
		psk, err := pnet.DecodeV1PSK(bytes.NewReader(swarmKey))
		if err != nil {
			return nil, fmt.Errorf("swarm key: %w", err)
		}
		options = append(options, libp2p.PrivateNetwork(psk))
	}
	return libp2p.New(append(options, more...)...)
}

// startSwarm starts the host with bitswap and the gateway, and what finds peers.
func (n *Network) startSwarm(r *Repo, o ServeOptions, swarmKey []byte, handler http.Handler) error {
	key, err := r.identity()
	if err != nil {
		return err
	}
	peers, err := parsePeers(o.Peers)
	if err != nil {
		return err
	}
	n.readers = newReaders(o.Open || len(swarmKey) > 0, peers)
	n.host, err = newHost(key, o.Swarm, swarmKey, libp2p.ConnectionGater(n.readers))
	if err != nil {
		return err
	}
	if len(o.Swarm) == 0 {
		return nil
	}
	// bitswap.New starts its network and stops with its own Close.
	filter := func(p peer.ID, _ cid.Cid) bool { return n.readers.mayRead(n.host.Network(), p) }
	n.bitswap = bitswap.New(context.Background(), bsnet.NewFromIpfsHost(n.host), nil, toPeers{readOnly{r.Blocks}},
		bitswap.WithPeerBlockRequestFilter(filter))
	n.p2pHTTP = &libp2phttp.Host{StreamHost: n.host}
	n.p2pHTTP.SetHTTPHandlerAtPath(gatewayProtocol, "/", n.readers.only(n.host.Network(), handler))
	n.run(n.p2pHTTP.Serve)
	// Addrs waits until it listens. If the host were closed before that, its server
	// would be left waiting for ever.
	n.p2pHTTP.Addrs()
	n.keepUp(peers)
	return n.discover(r, o)
}

// parsePeers reads multiaddrs that end in /p2p/<peer id>.
func parsePeers(list []string) ([]peer.AddrInfo, error) {
	var addrs []multiaddr.Multiaddr
	for _, s := range list {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("peer %q: %w", s, err)
		}
		addrs = append(addrs, a)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	return infos, nil
}

// keepUp connects to peers, again when a connection is lost.
func (n *Network) keepUp(peers []peer.AddrInfo) {
	if len(peers) == 0 {
		return
	}
	service := peering.NewPeeringService(n.host)
	for _, p := range peers {
		service.AddPeer(p)
	}
	service.Start() // its error is always nil
	n.stops = append(n.stops, func() error { service.Stop(); return nil })
}
