package replication

import (
	"sync"

	"github.com/ipfs/go-cid"
)

// guests are the peers of a pinning service while they may read from this node: those
// that the service named last, while something is pushed to it, and until the next try
// where it has not finished. Safe for concurrent use.
type guests struct {
	mu    sync.Mutex
	named []string           // multiaddrs
	leave map[cid.Cid]func() // by what is pushed
}

// enter begins a push, with the peers that are known from the one before: a service
// that is connected still may ask as soon as it has the request. The returned function
// ends it; stay: the service goes on fetching.
func (g *guests) enter(host Host, root cid.Cid) (end func(stay bool)) {
	if host == nil {
		return func(bool) {}
	}
	g.mu.Lock()
	named := g.named
	g.mu.Unlock()
	g.admit(host, root, named)
	return func(stay bool) {
		if !stay {
			g.put(root, nil)
		}
	}
}

// admit lets the peers at these addresses in, in place of those before.
func (g *guests) admit(host Host, root cid.Cid, addrs []string) {
	g.put(root, host.Admit(addrs))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.named = addrs
}

// put keeps what ends an admission, and ends the one before.
func (g *guests) put(root cid.Cid, leave func()) {
	g.mu.Lock()
	before := g.leave[root]
	delete(g.leave, root)
	if leave != nil {
		if g.leave == nil {
			g.leave = map[cid.Cid]func(){}
		}
		g.leave[root] = leave
	}
	g.mu.Unlock()
	if before != nil {
		before()
	}
}
