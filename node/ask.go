package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// peerHeader of an answer over HTTP has the peer id of the ipfs-savepoint that answers,
// so that who reaches it in several ways can tell.
const peerHeader = "X-Ipfs-Savepoint-Peer"

// introduced adds the peer id to all answers.
func introduced(id peer.ID, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(peerHeader, id.String())
		next.ServeHTTP(w, r)
	})
}

// hear keeps the peer id in an answer.
func (r *Remote) hear(h http.Header) {
	if r.said == nil {
		return
	}
	if id, err := peer.Decode(h.Get(peerHeader)); err == nil {
		r.said.Store(&id)
	}
}

// PeerID is the libp2p peer id of the remote; of a gateway what it said itself, which
// may be wrong, and "" if it has said none in an answer.
func (r *Remote) PeerID() string {
	if r.peer != nil {
		return r.peer.info.ID.String()
	}
	if r.said != nil {
		if id := r.said.Load(); id != nil {
			return id.String()
		}
	}
	return ""
}

// PeersOf sorts multiaddrs that end in /p2p/<peer id> by peer id. Others are left out.
func PeersOf(addrs []string) map[string][]string {
	peers := map[string][]string{}
	for _, a := range addrs {
		if info, err := peer.AddrInfoFromString(a); err == nil {
			id := info.ID.String()
			peers[id] = append(peers[id], a)
		}
	}
	return peers
}

// DialPeer is Dial of one peer at any of several multiaddrs, which all end in its
// peer id.
func (r *Repo) DialPeer(addrs []string) (*Remote, error) {
	infos, err := parsePeers(addrs)
	if err != nil {
		return nil, err
	}
	if len(infos) != 1 {
		return nil, fmt.Errorf("addresses of %d peers, not of one", len(infos))
	}
	return r.dialInfo("/p2p/"+infos[0].ID.String(), infos[0])
}

// Held asks for one IPFS block of those that the remote has at hand, and checks it: a
// gateway is told not to go and find it elsewhere, and a peer that has no gateway is
// asked by bitswap, under a peer id that it does not know. The error wraps dag.ErrNotFound
// if it was reached and has not shown it before ctx ended.
func (r *Remote) Held(ctx context.Context, c cid.Cid) ([]byte, error) {
	asked := *r
	asked.client = &http.Client{Transport: cachedOnly{r.client.Transport}, CheckRedirect: r.client.CheckRedirect}
	data, err := asked.Block(ctx, c)
	if r.peer == nil || !isNoGateway(err) {
		return data, err
	}
	alone, err := r.peer.alone()
	if err != nil {
		return nil, err
	}
	if err := alone.connect(ctx); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, r.Name, err)
	}
	got, err := alone.client.GetBlock(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("%w: it did not send %s in time: %w", dag.ErrNotFound, c, err)
	}
	return got.RawData(), dag.Block{CID: c, Data: got.RawData()}.Check()
}

// cachedOnly adds to requests that they are for what the gateway has at hand.
type cachedOnly struct{ http.RoundTripper }

func (t cachedOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Cache-Control", "only-if-cached")
	resp, err := t.RoundTripper.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusPreconditionFailed {
		resp.StatusCode = http.StatusNotFound // it has not what it would have to find
	}
	return resp, err
}

// Admit lets the peers at multiaddrs that end in /p2p/<peer id> connect and read
// everything until release is called, once. Others among the addresses are left out.
func (n *Network) Admit(addrs []string) (release func()) {
	var ids []peer.ID
	for id := range PeersOf(addrs) {
		if id, err := peer.Decode(id); err == nil {
			ids = append(ids, id)
		}
	}
	return n.readers.admit(ids)
}

// Connect connects to peers, at multiaddrs that end in /p2p/<peer id>. It returns nil
// if one connection is there, over which those who may read can do so.
func (n *Network) Connect(ctx context.Context, addrs []string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var errs []error
	for _, addrs := range PeersOf(addrs) {
		infos, err := parsePeers(addrs)
		if err == nil {
			err = n.host.Connect(ctx, infos[0])
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
