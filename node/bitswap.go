package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	libp2phttp "github.com/libp2p/go-libp2p/p2p/http"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
	"github.com/multiformats/go-multistream"
)

// maxWants is how many blocks a peer is asked for at a time. Peers forget wants
// beyond 1,024 and are told again only after a minute.
const maxWants = 500

// maxSilent is how many times in a row a peer may have nothing of what it is asked for
// by bitswap, which costs its patience each time.
const maxSilent = 3

// remotePeer is a libp2p peer, and a bitswap client for it that begins with the
// first want.
type remotePeer struct {
	host     host.Host
	owned    bool // the host is closed with this
	info     peer.AddrInfo
	blocks   *segments.Store
	swarmKey []byte

	once   sync.Once
	net    interface{ Stop() } // nil if the client is the host's own and stays
	client *client.Client

	mu      sync.Mutex
	through *remotePeer // see alone
}

// alone returns the peer as it is reached from a host that connects to nobody else, of a
// passing peer id: what comes by bitswap there, this peer sent. The host that serves hears
// others too, and one of its own peer id would not hear all that is sent to it.
func (p *remotePeer) alone() (*remotePeer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.through != nil {
		return p.through, nil
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	h, err := newHost(key, nil, p.swarmKey)
	if err != nil {
		return nil, err
	}
	p.through = &remotePeer{host: h, owned: true, info: p.info, blocks: p.blocks}
	return p.through, nil
}

// isNoGateway reports whether a peer was reached that offers no gateway.
func isNoGateway(err error) bool {
	var unsupported multistream.ErrNotSupported[protocol.ID]
	return errors.As(err, &unsupported)
}

// dialGateway opens a stream on which the peer serves its gateway.
func (p *remotePeer) dialGateway(ctx context.Context, _, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := p.host.Connect(ctx, p.info); err != nil {
		return nil, err
	}
	c, err := gostream.Dial(ctx, p.host, p.info.ID, libp2phttp.ProtocolIDForMultistreamSelect)
	if err != nil {
		return nil, err
	}
	return &resetConn{c}, nil
}

// resetConn ends its stream at once, instead of telling the other side and waiting
// until that could be sent.
type resetConn struct{ net.Conn }

func (c *resetConn) Close() error { return c.Conn.(interface{ Reset() error }).Reset() }

// connect makes the connection, and starts the client that talks over it.
func (p *remotePeer) connect(ctx context.Context) error {
	p.once.Do(func() {
		if p.client != nil {
			return
		}
		wire := bsnet.NewFromIpfsHost(p.host)
		p.client = client.New(context.Background(), wire, nil, readOnly{p.blocks})
		wire.Start(p.client)
		p.net = wire
	})
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return p.host.Connect(ctx, p.info)
}

func (p *remotePeer) close() error {
	var errs []error
	if p.through != nil {
		errs = append(errs, p.through.close())
	}
	if p.net != nil {
		p.net.Stop()
		errs = append(errs, p.client.Close())
	}
	if p.owned {
		errs = append(errs, p.host.Close())
	}
	return errors.Join(errs...)
}

// swap does tasks with a source by bitswap, many at a time. The caller holds mu; one
// worker of the source is enough.
func (f *fetch) swap(ctx, asking context.Context, src *source) {
	if src.swapping {
		return
	}
	src.swapping = true
	defer func() { src.swapping = false }()
	for {
		first, ok := f.take(asking, src)
		if !ok {
			return
		}
		tasks := append([]task{first}, f.takeMore(src, maxWants-1)...)
		f.mu.Unlock()
		next, left, err := f.want(ctx, asking, src, tasks)
		f.mu.Lock()
		f.running -= len(tasks)
		src.tasks -= len(tasks)
		src.silent++
		if len(left) < len(tasks) {
			src.silent = 0
		}
		if src.silent == maxSilent && errors.Is(err, dag.ErrNotFound) {
			err = fmt.Errorf("%w: %s had nothing of what it was asked for, %d times", ErrUnreachable, src.Name, maxSilent)
		}
		for _, t := range left {
			f.settle(asking, src, t, nil, err)
		}
		f.settleMore(next, err)
		f.changed.Broadcast()
	}
}

// takeMore takes up to n tasks that are there.
func (f *fetch) takeMore(src *source, n int) []task {
	var more []task
	f.queue = slices.DeleteFunc(f.queue, func(t task) bool {
		if len(more) == n || slices.Contains(t.asked, src) {
			return false
		}
		more = append(more, t)
		return true
	})
	f.running += len(more)
	src.tasks += len(more)
	return more
}

// settleMore adds tasks, and notes an error of the repository.
func (f *fetch) settleMore(next []task, err error) {
	for _, n := range next {
		f.add(n)
	}
	if own := (*storeError)(nil); errors.As(err, &own) {
		f.failed = err
	}
}

// want asks a peer for the nodes of tasks. It returns the tasks for what is missing
// below those that came, and those that did not come, with the reason.
func (f *fetch) want(ctx, asking context.Context, src *source, tasks []task) (next, left []task, err error) {
	if err := src.peer.connect(asking); err != nil {
		return nil, tasks, fmt.Errorf("%w: %s: %w", ErrUnreachable, src.Name, err)
	}
	asking, cancel := context.WithCancel(asking)
	defer cancel()
	watch := time.AfterFunc(src.stall(), cancel)
	defer watch.Stop()
	some := 0 // bytes since the watch was set
	open := map[cid.Cid]task{}
	var wants []cid.Cid
	for _, t := range tasks {
		open[t.cid] = t
		wants = append(wants, t.cid)
	}
	arriving, err := src.peer.client.GetBlocks(asking, wants)
	if err != nil {
		return nil, tasks, fmt.Errorf("%w: %s: %w", ErrUnreachable, src.Name, err)
	}
	for b := range arriving {
		t, wanted := open[b.Cid()]
		block := dag.Block{CID: b.Cid(), Data: b.RawData()}
		if !wanted || block.Check() != nil {
			continue
		}
		if some += len(block.Data); some >= minRate { // as over HTTP
			some = 0
			watch.Reset(src.stall())
		}
		delete(open, t.cid)
		err := healer{f.repo.Blocks, f.arrived}.Put(ctx, block)
		var below []task
		if err == nil {
			f.received(src, 1, uint64(len(block.Data)))
			below, err = f.below(ctx, t)
		}
		if err != nil {
			return next, slices.AppendSeq([]task{t}, maps.Values(open)), err
		}
		next = append(next, below...)
	}
	left = slices.AppendSeq(left, maps.Values(open))
	if len(left) > 0 {
		err = fmt.Errorf("%w: %s did not send %s in %s", dag.ErrNotFound, src.Name, left[0].cid, src.stall())
	}
	return next, left, err
}
