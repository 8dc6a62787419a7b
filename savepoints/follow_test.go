package savepoints_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
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

// Of several sources one that is reached is enough, and the others are told of once.
func TestFollowSeveral(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	n, err := b.Repo().Serve(ctx, node.ServeOptions{Gateway: "127.0.0.1:0", Logs: b.LogRoot})
	must(t, err)
	away := "http://127.0.0.1:1"
	replica, p := reader(t, b)
	follow(t, replica, savepoints.FollowOptions{Policy: p, Sources: []string{n.GatewayURL()}}).await(t, 1)
	m := serve(t, replica)
	to, _ := reader(t, b)
	o := savepoints.FollowOptions{Policy: p, Sources: []string{away, m.GatewayURL(), n.GatewayURL()}}
	f := follow(t, to, o)
	f.await(t, 1)
	take(t, b, smallState(1), "p")
	f.await(t, 2)
	must(t, n.Close())
	await(t, "the second trouble", func() bool { _, failed := f.counts(); return failed >= 2 })
	f.stop(t)
	f.mu.Lock()
	if len(f.failed) < 2 || !errors.Is(f.failed[0], node.ErrUnreachable) || !strings.Contains(f.failed[0].Error(), away) ||
		strings.Contains(f.failed[0].Error(), n.GatewayURL()) || !strings.Contains(f.failed[len(f.failed)-1].Error(), n.GatewayURL()) {
		t.Errorf("told: %v", f.failed)
	}
	f.mu.Unlock()
	s, err := to.Status(ctx)
	must(t, err)
	if l := s.Followed[0]; l.Err != nil || l.Size != 2 || l.Reached.IsZero() {
		t.Errorf("%+v", l)
	}
	checkDocuments(t, to, list(t, to)[1], smallState(1))
}

// A source that is behind is no rollback while one that may not be is silent; what
// contradicts what is known is a fork all the same, and so is what contradicts another
// source: then nothing is taken from either.
func TestFollowCompares(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	old := openBank(t, copyBank(t, b))
	fork := openBank(t, copyBank(t, b))
	take(t, b, smallState(1), "p")
	take(t, fork, smallState(2), "p")
	_, newest := countedGateway(t, b)
	_, behind := countedGateway(t, old)
	_, forked := countedGateway(t, fork)
	silent := "http://127.0.0.1:1"
	to, p := reader(t, b)
	first := func(to *savepoints.Bank, sources ...string) error {
		t.Helper()
		f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: sources})
		await(t, "the trouble to be told", func() bool { _, failed := f.counts(); return failed > 0 })
		f.stop(t)
		if fetched, _ := f.counts(); fetched != 0 {
			t.Errorf("%q: fetched %d", sources, fetched)
		}
		return f.failed[0]
	}
	if err := first(to, newest, forked); !errors.Is(err, anchor.ErrFork) || !strings.Contains(err.Error(), "evidence") {
		t.Errorf("two that contradict each other: %v", err)
	}
	if s, err := to.Status(ctx); err != nil || s.Followed[0].Size != 0 || s.Followed[0].Err == nil {
		t.Errorf("%+v %v", s, err)
	}
	f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{behind, newest}})
	f.await(t, 2)
	f.stop(t)
	if _, failed := f.counts(); failed != 0 {
		t.Errorf("one that is behind: %v", f.failed)
	}
	if err := first(to, behind, silent); !errors.Is(err, node.ErrUnreachable) || errors.Is(err, anchor.ErrRollback) {
		t.Errorf("behind, and the other silent: %v", err)
	}
	if err := first(to, behind); !errors.Is(err, anchor.ErrRollback) {
		t.Errorf("behind alone: %v", err)
	}
	_, blocks := withoutLog(t, b)
	if err := first(to, behind, blocks); !errors.Is(err, anchor.ErrRollback) {
		t.Errorf("behind, and the other without the log: %v", err)
	}
	if err := first(to, forked, silent); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("forked, and the other silent: %v", err)
	}
	if len(list(t, to)) != 2 {
		t.Error("something is gone")
	}
}

// A log is followed by its name, by a log root, or at a tlog-tiles prefix, while its save
// points come from elsewhere.
func TestFollowForms(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	name := "/ipns/" + published(t, b)
	_, url := withoutLog(t, b)
	_, other := withoutLog(t, initBank(t))
	dir := t.TempDir()
	copyLog(t, b, dir)
	text, err := b.TrustPolicy()
	must(t, err)
	mirrored, err := anchor.ParsePolicy(fmt.Appendf(nil, "%s# ipfs-savepoint: mirror %s\n", text, url))
	must(t, err)
	plain := policyOf(t, b)
	for _, of := range []struct {
		policy  *anchor.Policy
		sources []string
	}{
		{plain, []string{name, url, other}},
		{mirrored, []string{name}},
		{plain, []string{rootOf(t, b), url}},
		{plain, []string{dir, url}},
	} {
		to, _ := reader(t, b)
		f := follow(t, to, savepoints.FollowOptions{Policy: of.policy, Sources: of.sources})
		f.await(t, 1)
		f.stop(t)
		checkDocuments(t, to, list(t, to)[0], smallState(0))
		must(t, to.VerifyLog(ctx, b.Origin()))
	}

	// A log root that nobody has keeps everything away; with one that is met the log goes on.
	floor := rootOf(t, b)
	to, _ := reader(t, b)
	_, elsewhere := countedGateway(t, openBank(t, copyBank(t, b)))
	f := follow(t, to, savepoints.FollowOptions{Policy: plain, Sources: []string{rootOf(t, initBank(t)), elsewhere}})
	await(t, "the trouble to be told", func() bool { _, failed := f.counts(); return failed > 0 })
	f.stop(t)
	if fetched, _ := f.counts(); fetched != 0 || !errors.Is(f.failed[0], dag.ErrNotFound) {
		t.Errorf("fetched %d, %v", fetched, f.failed)
	}
	_, whole := countedGateway(t, b)
	f = follow(t, to, savepoints.FollowOptions{Policy: plain, Sources: []string{floor, whole}})
	f.await(t, 1)
	take(t, b, smallState(1), "p")
	f.await(t, 2)
	f.stop(t)
	if _, failed := f.counts(); failed != 0 {
		t.Errorf("%v", f.failed)
	}
}

func TestFollowUsage(t *testing.T) {
	of := initBank(t)
	b, p := reader(t, of)
	archive := filepath.Join(t.TempDir(), "a.car")
	must(t, os.WriteFile(archive, nil, 0o600))
	for _, source := range []string{"nonsense", "ftp://host", "/ipns/k51", "/ipfs/nonsense", archive, of.Repo().Dir(), t.TempDir()} {
		err := b.Follow(ctx, savepoints.FollowOptions{Policy: p, Sources: []string{source}})
		if !errors.Is(err, savepoints.ErrUsage) {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// What a name stands for is fetched only if it is the directory of its log, and nothing
// beside it.
func TestFollowedNameWithMore(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	h, err := b.Head(ctx, "")
	must(t, err)
	junk := dag.RawBlock([]byte("what no log has"))
	must(t, b.Repo().Blocks.Put(ctx, junk))
	var d dag.Editor
	must(t, d.Put("junk/1", dag.Link{CID: junk.CID, Size: uint64(len(junk.Data))}))
	root, err := d.Apply(ctx, b.Repo().Blocks, b.Repo().Blocks, h.Root)
	must(t, err)
	key, err := b.Repo().ReadFile("ipns.key")
	must(t, err)
	n, err := node.SignName(key, node.Name{Value: "/ipfs/" + root.CID.String(), Sequence: uint64(h.Size)<<16 | 1, TTL: time.Minute, Expires: time.Now().Add(time.Hour)})
	must(t, err)
	must(t, b.Repo().PutName(n.Name, n.Record))
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{url}})
	f.await(t, 1)
	await(t, "the refusal", func() bool { _, failed := f.counts(); return failed > 0 })
	f.stop(t)
	if err := f.failed[0]; !errors.Is(err, anchor.ErrCorrupt) {
		t.Error(err)
	}
	if _, err := to.Repo().Name(n.Name); !errors.Is(err, node.ErrNoName) {
		t.Errorf("the name is kept: %v", err)
	}
	if _, err := to.Repo().Blocks.Get(ctx, junk.CID); !errors.Is(err, dag.ErrNotFound) {
		t.Errorf("what is in it is kept: %v", err)
	}
}
