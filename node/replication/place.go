package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

// Place is somewhere that may hold IPFS blocks.
type Place interface {
	// ID is equal for equal places, however they were found: "/p2p/<peer id>", a
	// URL, the path of a folder.
	ID() string
	// Name is for people.
	Name() string
	// Identity is who it is, as far as is known after it was asked for something.
	Identity(ctx context.Context) Identity
	// Blocks returns the IPFS blocks of an item, in any order, unchecked. The error
	// wraps dag.ErrNotFound if the place was reached and has not all of them.
	Blocks(ctx context.Context, item Item, cids []cid.Cid) ([]dag.Block, error)
	// Close ends connections.
	Close() error
}

// Serves asks a place for IPFS blocks of an item and checks each against its CID. It
// returns nil if all of them came.
func Serves(ctx context.Context, p Place, item Item, cids []cid.Cid) error {
	got, err := p.Blocks(ctx, item, cids)
	if err != nil {
		return err
	}
	came := map[cid.Cid]bool{}
	for _, b := range got {
		if err := b.Check(); err != nil {
			return err
		}
		came[b.CID] = true
	}
	for _, c := range cids {
		if !came[c] {
			return fmt.Errorf("%w: %s", dag.ErrNotFound, c)
		}
	}
	return nil
}

// remotePlace is a gateway, or a libp2p peer.
type remotePlace struct {
	id, name string
	dial     func() (*node.Remote, error)

	mu     sync.Mutex
	remote *node.Remote
}

// Places returns the places that are reached at sources: URLs of gateways, and
// multiaddrs that end in /p2p/<peer id>, several of which may be of one peer. A single
// place has the name, several have it and their ID.
func Places(repo *node.Repo, name string, sources []string) []Place {
	var places []Place
	add := func(id string, dial func() (*node.Remote, error)) {
		places = append(places, &remotePlace{id: id, name: name + " " + id, dial: dial})
	}
	peers := node.PeersOf(sources)
	for _, s := range sources {
		if !strings.HasPrefix(s, "/") {
			add(placeURL(s), func() (*node.Remote, error) { return repo.Dial(s) })
			continue
		}
		for id, addrs := range peers {
			if addrs[0] == s { // a peer's place is where its first address is
				add(peerID(id), func() (*node.Remote, error) { return repo.DialPeer(addrs) })
			}
		}
	}
	if len(places) == 1 {
		places[0].(*remotePlace).name = name
	}
	return places
}

// placeURL is a URL as the ID of a place.
func placeURL(s string) string { return strings.TrimRight(s, "/") }

func peerID(id string) string { return "/p2p/" + id }

func (p *remotePlace) ID() string   { return p.id }
func (p *remotePlace) Name() string { return p.name }

func (p *remotePlace) Identity(ctx context.Context) Identity {
	p.mu.Lock()
	remote := p.remote
	p.mu.Unlock()
	var who Identity
	if remote != nil {
		who.Peer = remote.PeerID()
	}
	if !strings.HasPrefix(p.id, "/") {
		who.At = addressesOf(ctx, p.id)
	}
	return who
}

func (p *remotePlace) Blocks(ctx context.Context, _ Item, cids []cid.Cid) ([]dag.Block, error) {
	r, err := p.reach()
	if err != nil {
		return nil, err
	}
	blocks := make([]dag.Block, 0, len(cids))
	for _, c := range cids {
		data, err := r.Held(ctx, c)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, dag.Block{CID: c, Data: data})
	}
	return blocks, nil
}

func (p *remotePlace) reach() (*node.Remote, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.remote != nil {
		return p.remote, nil
	}
	var err error
	if p.remote, err = p.dial(); err != nil {
		return nil, fmt.Errorf("%w: %w", node.ErrUnreachable, err)
	}
	return p.remote, nil
}

func (p *remotePlace) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.remote == nil {
		return nil
	}
	return p.remote.Close()
}

// IsDown reports whether an error of a place says that asking it for anything else is
// of no use: it was not reached, or did not answer in time.
func IsDown(err error) bool {
	return errors.Is(err, node.ErrUnreachable) && !errors.Is(err, dag.ErrNotFound)
}
