package savepoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs/go-cid"
)

// Replication is the queue that brings the bank's save points to the targets of
// config.toml: those of its own log, and where a target is to have them those of the
// logs that it follows. It does nothing until it is run. A save point is in it from the
// moment on at which it has its receipt.
func (b *Bank) Replication() *replication.Queue { return b.replicas.queue }

// replicas tells the queue what there is to replicate. It remembers which receipt is of
// which save point, so that each is read once.
type replicas struct {
	b     *Bank
	queue *replication.Queue

	mu    sync.Mutex
	known map[string]cid.Cid // by the key of the receipt
}

func newReplicas(b *Bank) *replicas {
	r := &replicas{b: b, known: map[string]cid.Cid{}}
	r.queue = replication.NewQueue(b.repo, replication.Options{Roots: r.roots, Item: r.item})
	return r
}

// roots returns the save points that should be at a target, in the order of their logs.
func (r *replicas) roots(ctx context.Context, t node.Replica) ([]cid.Cid, error) {
	own := ""
	if r.b.own != nil {
		own = LogID(r.b.own.Origin)[:16]
	}
	keys, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var roots []cid.Cid
	for _, key := range keys {
		if t.Followed || own != "" && key[:min(16, len(key))] == own {
			roots = append(roots, r.known[key])
		}
	}
	return roots, nil
}

// read reads the receipts that are new, and returns the keys of all that are sound and
// of a log that is believed. What is wrong with another is for verify to say.
func (r *replicas) read(ctx context.Context) ([]string, error) {
	keys, err := r.b.repo.Records(receiptKind)
	if err != nil {
		return nil, err
	}
	b := r.b.withKept()
	var sound []string
	for _, key := range keys {
		r.mu.Lock()
		_, known := r.known[key]
		r.mu.Unlock()
		if !known {
			s, err := b.receipt(key)
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err != nil {
				continue
			}
			r.mu.Lock()
			r.known[key] = s.CID
			r.mu.Unlock()
		}
		sound = append(sound, key)
	}
	return sound, nil
}

// withKept returns the bank with the trust policies that the repository has now: it may
// have followed a log since it was opened.
func (b *Bank) withKept() *Bank {
	names, err := b.repo.Glob(trustDir + "/*.policy")
	if err != nil {
		return b
	}
	b = b.clone()
	for _, name := range names {
		b.loadPolicy(name) // an unreadable one believes nothing
	}
	if b.own != nil {
		b.policies[b.own.Origin] = b.own
	}
	return b
}

// receipt reads one receipt, which must be of a log that is believed.
func (b *Bank) receipt(key string) (Savepoint, error) {
	proof, err := b.repo.Record(receiptKind, key)
	if err != nil {
		return Savepoint{}, err
	}
	for origin := range b.policies {
		if LogID(origin)[:16] == key[:min(16, len(key))] {
			p, err := b.receiptPolicy(origin)
			if err != nil {
				return Savepoint{}, err
			}
			return b.openHeld(p, proof)
		}
	}
	return Savepoint{}, fmt.Errorf("receipt %s: %w", key, ErrNoTrust)
}

// item describes a save point to the queue.
func (r *replicas) item(ctx context.Context, root cid.Cid) (replication.Item, error) {
	keys, err := r.read(ctx)
	if err != nil {
		return replication.Item{}, err
	}
	r.mu.Lock()
	i := slices.IndexFunc(keys, func(key string) bool { return r.known[key] == root })
	r.mu.Unlock()
	if i < 0 {
		return replication.Item{}, fmt.Errorf("%w: %s", ErrNotFound, root)
	}
	s, err := r.b.withKept().receipt(keys[i])
	if err != nil {
		return replication.Item{}, err
	}
	return r.b.Item(ctx, s)
}

// Item is a save point as package replication sees it: its manifest's DAG, and its
// archive as the file.
func (b *Bank) Item(ctx context.Context, s Savepoint) (replication.Item, error) {
	s, err := b.withManifest(ctx, s)
	if err != nil {
		return replication.Item{}, fmt.Errorf("%w: %s: %w", ErrDamaged, s.CID, err)
	}
	item := sought(s)
	a, err := b.archive(ctx, s)
	if errors.Is(err, anchor.ErrNoQuorum) {
		item.NotYet, item.Without = err, a.without // Publish wakes the queue
		return item, nil
	}
	item.Roots, item.Without, item.Write = a.roots, a.without, a.write
	return item, err
}

// sought is the item of a save point, whose manifest has been read, for who only looks for
// it: its archive may not be makeable yet.
func sought(s Savepoint) replication.Item {
	m := s.Manifest
	item := replication.Item{Root: s.CID, Name: fmt.Sprintf("%s-%d", m.Policy.ID, m.Sequence)}
	if m.Parent != nil {
		item.Previous = m.Parent.Savepoint
	}
	return item
}

// ErrNotReplicated: a save point is not yet at a target where it should be.
var ErrNotReplicated = errors.New("not replicated everywhere yet")
