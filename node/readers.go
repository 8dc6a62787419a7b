package node

import (
	"net/http"
	"sync"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2phttp "github.com/libp2p/go-libp2p/p2p/http"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// readers says who may connect and read by libp2p: on loopback everybody, from
// elsewhere the peers that are listed or admitted, and anybody if the node is open, or
// has a swarm key, without which nobody connects. The node itself may connect to
// anybody, so each request is asked for its peer: whoever was connected to, because
// somebody named an address, has no right to read from that.
//
// It is a connection gater. Safe for concurrent use.
type readers struct {
	open   bool
	listed map[peer.ID]bool

	mu       sync.Mutex
	admitted map[peer.ID]int // how many times each is
}

func newReaders(open bool, peers []peer.AddrInfo) *readers {
	r := &readers{open: open, listed: map[peer.ID]bool{}, admitted: map[peer.ID]int{}}
	for _, p := range peers {
		r.listed[p.ID] = true
	}
	return r
}

// admit lets peers read until release is called, once.
func (r *readers) admit(ids []peer.ID) (release func()) {
	count := func(n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, id := range ids {
			if r.admitted[id] += n; r.admitted[id] == 0 {
				delete(r.admitted, id)
			}
		}
	}
	count(1)
	return func() { count(-1) }
}

// known reports whether a peer may connect and read from anywhere.
func (r *readers) known(p peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open || r.listed[p] || r.admitted[p] > 0
}

// anybody reports whether there is somebody to let in from elsewhere.
func (r *readers) anybody() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open || len(r.listed)+len(r.admitted) > 0
}

// mayRead reports whether a peer that is connected may read.
func (r *readers) mayRead(net network.Network, p peer.ID) bool {
	if r.known(p) {
		return true
	}
	for _, c := range net.ConnsToPeer(p) {
		if manet.IsIPLoopback(c.RemoteMultiaddr()) {
			return true
		}
	}
	return false
}

// only refuses the requests of peers that may not read.
func (r *readers) only(net network.Network, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.mayRead(net, libp2phttp.ClientPeerID(req)) {
			http.Error(w, "this node does not know you", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, req)
	})
}

func (r *readers) InterceptPeerDial(peer.ID) bool                      { return true }
func (r *readers) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool { return true }

func (r *readers) InterceptAccept(c network.ConnMultiaddrs) bool {
	return manet.IsIPLoopback(c.RemoteMultiaddr()) || r.anybody()
}

func (r *readers) InterceptSecured(d network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	return d == network.DirOutbound || manet.IsIPLoopback(c.RemoteMultiaddr()) || r.known(p)
}

func (r *readers) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
