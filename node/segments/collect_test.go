package segments

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// collectAll collects everything but the given blocks.
func collectAll(t *testing.T, s *Store, keep ...dag.Block) Collected {
	t.Helper()
	got, err := s.Collect(ctx, func(_ context.Context, m *Marks) error {
		for _, b := range keep {
			if _, err := m.Add(ctx, b.CID); err != nil {
				return err
			}
		}
		return nil
	}, CollectOptions{All: true})
	must(t, err)
	return got
}

func TestCollectGivesSpaceBack(t *testing.T) {
	dir, blocks := fillStore(t, 100_000, 200_000, 300_000, 50)
	s := openTestStore(t, dir)
	defer s.Close()
	must(t, s.Seal(ctx))
	before, err := s.Bytes()
	must(t, err)
	got := collectAll(t, s, blocks[0], blocks[3])
	if got.LiveBlocks != 2 || got.RemovedBlocks != 2 || got.RemovedBytes < 500_000 || got.RemovedBytes > 500_100 {
		t.Errorf("%+v", got)
	}
	after, err := s.Bytes()
	must(t, err)
	if before < 600_000 || after > 110_000 {
		t.Errorf("%d bytes became %d", before, after)
	}
	if lost := unreadable(t, s, blocks); len(lost) != 2 || lost[0].CID != blocks[1].CID || lost[1].CID != blocks[2].CID {
		t.Errorf("lost %d", len(lost))
	}
}

// A segment with little garbage is left alone.
func TestCollectLeavesLittleGarbage(t *testing.T) {
	dir, blocks := fillStore(t, 1000, 1000, 1000, 1000, 1000)
	s := openTestStore(t, dir)
	defer s.Close()
	mark := func(_ context.Context, m *Marks) error {
		for _, b := range blocks[1:] {
			if _, err := m.Add(ctx, b.CID); err != nil {
				return err
			}
		}
		return nil
	}
	got, err := s.Collect(ctx, mark, CollectOptions{})
	must(t, err)
	if got.GarbageBlocks != 1 || got.RemovedBlocks != 0 {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(segmentPath(dir, 1)); err != nil {
		t.Error(err)
	}
}

// Of two copies the damaged one does not make the sound one garbage.
func TestCollectKeepsTheSoundCopy(t *testing.T) {
	dir, blocks := fillStore(t, 100, 200)
	// Healing makes a second copy; then that one rots.
	flip(t, segmentPath(dir, 1), sections(t, segmentPath(dir, 1))[0].end-1, 1)
	s := openTestStore(t, dir)
	unreadable(t, s, blocks)
	must(t, s.roll())
	must(t, s.Put(ctx, blocks[0]))
	must(t, s.roll())
	must(t, s.Close())
	flip(t, segmentPath(dir, 1), sections(t, segmentPath(dir, 1))[0].end-1, 1) // sound again
	flip(t, segmentPath(dir, 2), sections(t, segmentPath(dir, 2))[0].end-1, 1)
	s = openTestStore(t, dir)
	defer s.Close()
	collectAll(t, s, blocks...)
	if lost := unreadable(t, s, blocks); len(lost) > 0 {
		t.Fatalf("%d lost", len(lost))
	}
}

// What is live and damaged keeps its segment, and is counted each time.
func TestCollectReportsDamage(t *testing.T) {
	dir, blocks := fillStore(t, 100, 200, 300)
	s := openTestStore(t, dir)
	defer s.Close()
	must(t, s.roll())
	flip(t, segmentPath(dir, 1), sections(t, segmentPath(dir, 1))[1].end-1, 1)
	for range 2 {
		got, err := s.Collect(ctx, markAll(blocks[:2]), CollectOptions{All: true})
		if err != nil || got.Damaged != 1 || got.RemovedBlocks > 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := os.Stat(segmentPath(dir, 1)); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, blocks[0].CID); err != nil {
		t.Error(err)
	}
	if has, err := s.Has(ctx, blocks[1].CID); err != nil || has {
		t.Errorf("the damaged block counts as there, %v", err)
	}
}

// An error of who marks, or the end of the context, removes nothing.
func TestCollectStops(t *testing.T) {
	dir, blocks := fillStore(t, 100, 200)
	s := openTestStore(t, dir)
	defer s.Close()
	want := errors.New("mark")
	if _, err := s.Collect(ctx, func(context.Context, *Marks) error { return want }, CollectOptions{All: true}); !errors.Is(err, want) {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(ctx)
	if _, err := s.Collect(ended, func(context.Context, *Marks) error { cancel(); return nil }, CollectOptions{All: true}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Seal(ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if lost := unreadable(t, s, blocks); len(lost) > 0 {
		t.Errorf("%d lost", len(lost))
	}
	if s.tracking != 0 {
		t.Error("it still tracks")
	}
}

// What is touched between a hold's beginning and its end stays, in whatever order
// hold, touch, mark and pin come. What is not, goes.
func TestHold(t *testing.T) {
	touches := map[string]func(*Store, dag.Block) error{
		"put":  func(s *Store, b dag.Block) error { return s.Put(ctx, b) },
		"has":  func(s *Store, b dag.Block) error { _, err := s.Has(ctx, b.CID); return err },
		"size": func(s *Store, b dag.Block) error { _, err := s.Size(ctx, b.CID); return err },
		"get":  func(s *Store, b dag.Block) error { _, err := s.Get(ctx, b.CID); return err },
	}
	for name, touch := range touches {
		for _, when := range []string{"before", "in an active segment", "during", "released during", "not at all"} {
			t.Run(name+" "+when, func(t *testing.T) {
				dir, blocks := fillStore(t, 100, 200)
				s := openTestStore(t, dir)
				defer s.Close()
				if when != "in an active segment" {
					must(t, s.roll())
				}
				var hold *Hold
				if when == "before" || when == "in an active segment" {
					hold = s.Hold()
					must(t, touch(s, blocks[0]))
				}
				_, err := s.Collect(ctx, func(context.Context, *Marks) error {
					if when == "during" || when == "released during" {
						hold = s.Hold()
						must(t, touch(s, blocks[0]))
					}
					if when == "released during" {
						hold.Release()
					}
					return nil
				}, CollectOptions{All: true})
				must(t, err)
				if has, err := s.Has(ctx, blocks[0].CID); err != nil || has != (when != "not at all") {
					t.Errorf("held block: %v, %v", has, err)
				}
				if has, err := s.Has(ctx, blocks[1].CID); err != nil || has != (when == "in an active segment") {
					t.Errorf("other block: %v, %v", has, err)
				}
				if hold != nil {
					hold.Release()
					hold.Release()
				}
				collectAll(t, s)
				if s.Len() != 0 || s.tracking != 0 || s.holds != 0 {
					t.Errorf("%d blocks stay, %d trackers, %d holds", s.Len(), s.tracking, s.holds)
				}
			})
		}
	}
}

// stress is how long TestCollectBesideWriters runs, at least.
func stress(t *testing.T) time.Duration {
	d, err := time.ParseDuration(cmp.Or(os.Getenv("IPFS_SAVEPOINT_STRESS"), "3s"))
	must(t, err)
	return d
}

// Writers pin sets of blocks that overlap, and unpin them, while others read, seal,
// and collect whatever is not pinned: what is pinned is always there.
func TestCollectBesideWriters(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	defer s.Close()
	pool := make([]dag.Block, 300)
	for i := range pool {
		pool[i] = dag.RawBlock(bytesOf(uint64(i), 1+i*i%9000))
	}
	var mu sync.Mutex
	pins := map[int][]dag.Block{} // by writer
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	rounds, collected := 0, 0
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rounds >= 10 && collected >= 10
	}
	time.AfterFunc(stress(t), func() {
		// On a busy machine it takes longer until that much has happened.
		for end := time.Now().Add(time.Minute); !enough() && ctx.Err() == nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	})
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for ctx.Err() == nil {
				if err := pinSome(s, rng, pool, func(set []dag.Block) {
					mu.Lock()
					defer mu.Unlock()
					pins[w] = set
					rounds++
				}); err != nil {
					t.Error(err)
					cancel()
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			got, err := s.Collect(ctx, func(_ context.Context, m *Marks) error {
				mu.Lock()
				all := maps.Clone(pins)
				mu.Unlock()
				for _, set := range all {
					for _, b := range set {
						if _, err := m.Add(ctx, b.CID); err != nil {
							return err
						}
					}
				}
				return nil
			}, CollectOptions{All: collected%2 == 0})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				cancel()
			}
			mu.Lock()
			collected += int(got.RemovedBlocks)
			mu.Unlock()
			if err := s.Seal(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				cancel()
			}
		}
	})
	wg.Wait()
	if !enough() {
		t.Errorf("%d rounds, %d blocks collected", rounds, collected)
	}
	t.Logf("%d rounds, %d blocks collected", rounds, collected)
}

// pinSome puts a random part of the pool, of which the store may hold some, pins it
// and reads it.
func pinSome(s *Store, rng *rand.Rand, pool []dag.Block, pin func([]dag.Block)) error {
	from := rng.IntN(len(pool) - 60)
	set := slices.Clone(pool[from : from+1+rng.IntN(59)])
	hold := s.Hold()
	for _, b := range set {
		has, err := s.Has(ctx, b.CID)
		if err == nil && (!has || rng.IntN(4) == 0) {
			err = s.Put(ctx, b)
		}
		if err != nil {
			return err
		}
	}
	if err := s.Sync(ctx); err != nil {
		return err
	}
	pin(set)
	hold.Release()
	for range 2 {
		for _, b := range set {
			data, err := s.Get(ctx, b.CID)
			if err != nil || !bytes.Equal(data, b.Data) {
				return fmt.Errorf("pinned block: %w", err)
			}
		}
	}
	return nil
}

// What is erased is in no file any more, sealed ones too; the rest stays.
func TestErase(t *testing.T) {
	dir, blocks, _ := sealedStore(t)
	s := openTestStore(t, dir)
	defer s.Close()
	more := dag.RawBlock([]byte("in the active segment: a person's name"))
	must(t, s.Put(ctx, more))
	gone := []cid.Cid{blocks[7].CID, blocks[300].CID, more.CID}
	must(t, s.Erase(ctx, gone...))
	if len(s.deleted) > 0 {
		t.Errorf("%d deletions are still noted", len(s.deleted))
	}
	for _, c := range gone {
		if _, err := s.Get(ctx, c); !errors.Is(err, dag.ErrNotFound) {
			t.Errorf("%s: %v", c, err)
		}
	}
	if lost := unreadable(t, s, blocks); len(lost) != 2 {
		t.Errorf("%d are lost", len(lost))
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		data, err := os.ReadFile(dir + "/" + f.Name())
		must(t, err)
		if bytes.Contains(data, []byte("a person's name")) || bytes.Contains(data, blocks[300].Data[:100]) {
			t.Errorf("erased bytes are in %s", f.Name())
		}
	}
	must(t, s.Put(ctx, more)) // erased is not forbidden
	if _, err := s.Get(ctx, more.CID); err != nil {
		t.Error(err)
	}
}
