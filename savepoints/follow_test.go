package savepoints_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// follower follows in the background and remembers what it was told.
type follower struct {
	cancel  context.CancelFunc
	done    chan error
	mu      sync.Mutex
	fetched []savepoints.Savepoint
	failed  []error
}

func follow(t *testing.T, b *savepoints.Bank, o savepoints.FollowOptions) *follower {
	t.Helper()
	f := &follower{done: make(chan error, 1)}
	var c context.Context
	c, f.cancel = context.WithCancel(ctx)
	o.Interval = 20 * time.Millisecond
	o.Fetched = func(s savepoints.Savepoint) { f.mu.Lock(); f.fetched = append(f.fetched, s); f.mu.Unlock() }
	o.Failed = func(err error) { f.mu.Lock(); f.failed = append(f.failed, err); f.mu.Unlock() }
	go func() { f.done <- b.Follow(c, o) }()
	t.Cleanup(func() { f.stop(t) })
	return f
}

func (f *follower) counts() (fetched, failed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.fetched), len(f.failed)
}

// stop ends following and waits for it.
func (f *follower) stop(t *testing.T) {
	t.Helper()
	f.cancel()
	select {
	case err := <-f.done:
		if err != nil {
			t.Errorf("follow ended with %v", err)
		}
		f.done <- nil
	case <-time.After(30 * time.Second):
		t.Fatal("follow does not end")
	}
}

func (f *follower) await(t *testing.T, n int) {
	t.Helper()
	await(t, "save points to be followed", func() bool { got, _ := f.counts(); return got >= n })
}

// A follower gets every save point, those that were there and those that come,
// goes on when its source was away, and ends when it is told to.
func TestFollow(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	take(t, b, someState(), "q")
	o := node.ServeOptions{Gateway: "127.0.0.1:0", Swarm: []string{"/ip4/127.0.0.1/tcp/0"}, Logs: b.LogRoot}
	n, err := b.Repo().Serve(ctx, o)
	must(t, err)
	o.Gateway = strings.TrimPrefix(n.GatewayURL(), "http://")
	o.Swarm = []string{strings.TrimSuffix(n.Addresses()[0], "/p2p/"+n.PeerID().String())}

	overHTTP, p := reader(t, b)
	overPeer, _ := reader(t, b)
	followers := []*follower{
		follow(t, overHTTP, savepoints.FollowOptions{Policy: p, Sources: []string{n.GatewayURL()}}),
		follow(t, overPeer, savepoints.FollowOptions{Policy: p, Sources: []string{n.Addresses()[0]}}),
	}
	for _, f := range followers {
		f.await(t, 2)
	}
	last := take(t, b, smallState(1), "p")
	for _, f := range followers {
		f.await(t, 3)
	}

	must(t, n.Close())
	for _, f := range followers {
		await(t, "the trouble to be told", func() bool { _, failed := f.counts(); return failed > 0 })
	}
	last = take(t, b, smallState(2), "p")
	n, err = b.Repo().Serve(ctx, o)
	must(t, err)
	defer n.Close()
	for i, f := range followers {
		f.await(t, 4)
		f.stop(t)
		f.mu.Lock()
		if got := f.fetched[3].CID; got != last.CID || len(f.fetched) != 4 {
			t.Errorf("follower %d: %d fetched, the last is %s, not %s", i, len(f.fetched), got, last.CID)
		}
		if !errors.Is(f.failed[0], node.ErrUnreachable) {
			t.Errorf("follower %d: %v", i, f.failed[0])
		}
		f.mu.Unlock()
	}
	for _, to := range []*savepoints.Bank{overHTTP, overPeer} {
		l := list(t, to)
		if len(l) != 4 {
			t.Fatalf("%d save points", len(l))
		}
		checkDocuments(t, to, l[1], someState())
		checkDocuments(t, to, l[3], smallState(2))
		if err := to.VerifyLog(ctx, b.Origin()); err != nil {
			t.Error(err)
		}
	}
	// What is there is not fetched again.
	again := follow(t, overHTTP, savepoints.FollowOptions{Policy: p, Sources: []string{n.GatewayURL()}})
	take(t, b, smallState(3), "p")
	again.await(t, 1)
	again.stop(t)
	if fetched, failed := again.counts(); fetched != 1 || failed != 0 {
		t.Errorf("fetched %d, failed %d", fetched, failed)
	}
	// And a follower serves what it has, its head of the log too.
	second, p2 := reader(t, b)
	m := serve(t, overHTTP)
	got, err := fetch(second, savepoints.Ref{Policy: "p"}, p2, m.GatewayURL())
	must(t, err)
	checkDocuments(t, second, got, smallState(3))
}

// A source that goes back or forks is told of, and nothing is changed.
func TestFollowRollback(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	stale := openBank(t, copyBank(t, b))
	take(t, b, smallState(1), "p")
	to, p := reader(t, b)
	f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{serve(t, b).GatewayURL()}})
	f.await(t, 2)
	f.stop(t)
	f = follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{serve(t, stale).GatewayURL()}})
	await(t, "the trouble to be told", func() bool { _, failed := f.counts(); return failed > 0 })
	f.stop(t)
	if fetched, failed := f.counts(); fetched != 0 || failed != 1 {
		t.Errorf("fetched %d, told %d times", fetched, failed)
	}
	if len(list(t, to)) != 2 {
		t.Error("something is gone")
	}
}

func TestFollowUsage(t *testing.T) {
	b, p := reader(t, initBank(t))
	err := b.Follow(ctx, savepoints.FollowOptions{Policy: p, Sources: []string{"nonsense"}})
	if !errors.Is(err, savepoints.ErrUsage) {
		t.Error(err)
	}
}
