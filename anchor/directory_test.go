package anchor_test

import (
	"context"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// wantBuiltRoot fails the test if the newest directory is not the one that is made of the
// same tree from nothing.
func wantBuiltRoot(t testing.TB, l *anchor.Log) {
	t.Helper()
	built, err := l.BuiltRoot(ctx)
	must(t, err)
	h := l.Head()
	if h.Root != built {
		t.Fatalf("size %d: directory %s, made from nothing %s", h.Size, h.Root, built)
	}
}

// Whatever the way on which a log grew, past full tiles of any level, and whatever edges
// were superseded meanwhile, its directory is that of its tree.
func TestDirectoryEditedEqualsBuilt(t *testing.T) {
	k := newKey(t, "log.example/edited")
	stores := map[int]*memStore{}
	for _, n := range []int{0, 200, 1<<16 - 300} {
		stores[n] = newMemStore()
		filled(t, stores[n], k, n)
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.SampledFrom([]int{0, 200, 1<<16 - 300}).Draw(rt, "start")
		store, now := stores[n].clone(), time.Now()
		open := func() *anchor.Log {
			l, err := anchor.Open(ctx, store, k.signer, anchor.Options{Now: func() time.Time { return now }})
			must(t, err)
			return l
		}
		l := open()
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute, time.Hour}).Draw(rt, "pause"))
			batch := rapid.OneOf(rapid.IntRange(1, 3), rapid.IntRange(100, 400)).Draw(rt, "batch")
			_, _, err := l.AppendAll(ctx, numbered(n, batch))
			must(t, err)
			n += batch
			wantBuiltRoot(t, l)
			if rapid.IntRange(0, 9).Draw(rt, "reopen") == 0 {
				store.crash()
				l = open()
			}
		}
		l = open() // reads the whole directory
		wantBuiltRoot(t, l)
	})
}

// Without the directory before it, as when it was collected after the witnesses had
// cosigned its tree again, the next one is made from nothing.
func TestDirectoryWithoutTheOneBefore(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/without")
	l := filled(t, store, k, 600)
	var nodes []cid.Cid
	for c := range store.durable {
		if c.Type() == cid.DagProtobuf {
			nodes = append(nodes, c)
		}
	}
	for _, c := range nodes {
		delete(store.durable, c)
	}
	appendOne(t, l, "a")
	wantBuiltRoot(t, l)
	appendOne(t, reopen(t, store, k), "b")
}

// countingStore counts the IPFS blocks that are put.
type countingStore struct {
	*memStore
	puts int
}

func (s *countingStore) Put(ctx context.Context, blocks ...dag.Block) error {
	s.puts += len(blocks)
	return s.memStore.Put(ctx, blocks...)
}

// An append puts what changes in the directory, not all of it.
func TestDirectoryPutsWhatChanges(t *testing.T) {
	store, k := &countingStore{memStore: newMemStore()}, newKey(t, "log.example/changes")
	l := create(t, store, k)
	for n := 0; n < 100_000; n += 10_000 {
		_, _, err := l.AppendAll(ctx, numbered(n, 10_000))
		must(t, err)
	}
	for range anchor.RecentCount {
		store.puts = 0
		appendOne(t, l, "one more")
		// Checkpoint, bundle, tiles of three levels, and the directories on the way to them.
		if store.puts > 30 {
			t.Errorf("an append to 100,000 records puts %d IPFS blocks", store.puts)
		}
	}
}
