package segments

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable/durabletest"
)

// failingReads opens a store on a disk that answers reads of segment 1 with an error,
// while there is one.
func failingReads(t *testing.T, dir string) (*Store, *atomic.Pointer[error]) {
	t.Helper()
	d, err := durabletest.New(dir)
	must(t, err)
	var fault atomic.Pointer[error]
	d.Before = func(op durabletest.Op) error {
		if err := fault.Load(); err != nil && op.Kind == "read" && strings.Contains(op.Path, carName(1)) {
			return *err
		}
		return nil
	}
	s, err := OpenOn(ctx, dir, durable.On(d))
	must(t, err)
	return s, &fault
}

// markAll marks blocks of which some may be damaged.
func markAll(blocks []dag.Block) func(context.Context, *Marks) error {
	return func(_ context.Context, m *Marks) error {
		for _, b := range blocks {
			if _, err := m.Add(ctx, b.CID); err != nil && !errors.Is(err, dag.ErrNotFound) {
				return err
			}
		}
		return nil
	}
}

// A disk that cannot read for a while costs nothing: the segment stays, whatever the
// error and however often it is collected meanwhile, and others are gone on with.
func TestCollectKeepsWhatCannotBeRead(t *testing.T) {
	for name, fault := range map[string]error{"a bad sector": syscall.EIO, "another error": syscall.ESTALE} {
		for _, sealed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dir, blocks := fillStore(t, 100_000, 200_000, 300_000, 50)
				if sealed {
					s := openTestStore(t, dir)
					must(t, s.Seal(ctx))
					must(t, s.Close())
				}
				s, failing := failingReads(t, dir)
				defer s.Close()
				garbage := dag.RawBlock(bytesOf(99, 100))
				must(t, s.roll())
				must(t, s.Put(ctx, garbage))
				failing.Store(&fault)
				for range 2 {
					got, err := s.Collect(ctx, markAll(blocks[1:]), CollectOptions{All: true})
					if fault == syscall.EIO && (err != nil || got.Damaged != 3) || fault != syscall.EIO && !errors.Is(err, fault) {
						t.Fatalf("%+v, %v", got, err)
					}
					if has, err := s.Has(ctx, garbage.CID); err != nil || has {
						t.Fatalf("the other segment was not collected: %v", err)
					}
				}
				failing.Store(nil)
				got, err := s.Collect(ctx, markAll(blocks[1:]), CollectOptions{All: true})
				if err != nil || got.Damaged > 0 || got.RemovedBlocks != 1 {
					t.Errorf("%+v, %v", got, err)
				}
				if lost := unreadable(t, s, blocks); len(lost) != 1 || lost[0].CID != blocks[0].CID {
					t.Errorf("%d are lost", len(lost))
				}
			})
		}
	}
}

// A damaged block that was healed does not keep its segment.
func TestCollectGivesUpWhatIsHealed(t *testing.T) {
	dir, blocks := fillStore(t, 100, 200, 300)
	s := openTestStore(t, dir)
	defer s.Close()
	must(t, s.roll())
	flip(t, segmentPath(dir, 1), sections(t, segmentPath(dir, 1))[1].end-1, 1)
	_, err := s.Collect(ctx, func(_ context.Context, m *Marks) error {
		if err := markAll(blocks[:2])(ctx, m); err != nil {
			return err
		}
		return s.Heal(ctx, nil, blocks[1]) // it comes while Collect runs
	}, CollectOptions{All: true})
	must(t, err)
	if lost := unreadable(t, s, blocks[:2]); len(lost) > 0 {
		t.Errorf("%d are lost", len(lost))
	}
	if _, err := os.Stat(segmentPath(dir, 1)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the segment is kept: %v", err)
	}
}

// Erase gives up what is damaged only where it must, and says what it was.
func TestEraseFromDamagedSegments(t *testing.T) {
	dir, blocks := fillStore(t, 100, 200, 300)
	s := openTestStore(t, dir)
	defer s.Close()
	must(t, s.roll())
	other := []dag.Block{testBlock(1), testBlock(2)}
	must(t, s.Put(ctx, other...))
	must(t, s.roll())
	flip(t, segmentPath(dir, 1), sections(t, segmentPath(dir, 1))[1].end-1, 1)
	flip(t, segmentPath(dir, 2), sections(t, segmentPath(dir, 2))[1].end-1, 1)
	unreadable(t, s, slices.Concat(blocks, other))
	err := s.Erase(ctx, blocks[0].CID)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), blocks[1].CID.String()) {
		t.Errorf("erase: %v", err)
	}
	for name, data := range everything(t, dir) {
		if strings.Contains(string(data), string(blocks[0].Data)) {
			t.Errorf("erased bytes are in %s", name)
		}
	}
	if _, err := os.Stat(segmentPath(dir, 2)); err != nil {
		t.Errorf("a segment that does not hold the erased block: %v", err)
	}
	if lost := unreadable(t, s, []dag.Block{blocks[2], other[0]}); len(lost) > 0 {
		t.Errorf("%d are lost", len(lost))
	}
	must(t, s.Put(ctx, other[1])) // healed, nothing is in the way any more
	must(t, s.Erase(ctx, blocks[2].CID))
}

// What is deleted while a collection copies it stays deleted.
func TestDeleteBesideCollect(t *testing.T) {
	dir, blocks := fillStore(t, 100, 200, 300)
	d, err := durabletest.New(dir)
	must(t, err)
	var s *Store
	var read atomic.Bool // once a block is being copied
	d.Before = func(op durabletest.Op) error {
		if op.Kind == "read" && strings.HasSuffix(op.Path, carName(1)) && s != nil && !read.Swap(true) {
			return s.Delete(ctx, blocks[1].CID)
		}
		return nil
	}
	opened, err := OpenOn(ctx, dir, durable.On(d))
	must(t, err)
	defer opened.Close()
	must(t, opened.roll())
	_, err = opened.Collect(ctx, func(_ context.Context, m *Marks) error {
		s = opened
		_, err := m.Add(ctx, blocks[1].CID)
		return err
	}, CollectOptions{All: true})
	must(t, err)
	if has, err := opened.Has(ctx, blocks[1].CID); err != nil || has || !read.Load() {
		t.Errorf("deleted and there: %v, %v", has, err)
	}
}

// One segment that cannot be read does not keep others from being compressed.
func TestSealGoesOn(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ESTALE} {
		dir, _ := fillStore(t, 100_000)
		s, failing := failingReads(t, dir)
		must(t, s.roll())
		must(t, s.Put(ctx, testBlock(1)))
		failing.Store(&fault)
		if err := s.Seal(ctx); !errors.Is(err, fault) || !strings.Contains(err.Error(), "segment 1") {
			t.Errorf("seal: %v", err)
		}
		failing.Store(nil)
		if segs := s.snapshot(); len(segs) != 2 || segs[0].sealed || !segs[1].sealed {
			t.Errorf("%v: %d segments", fault, len(segs))
		}
		must(t, s.Close())
	}
}

// Who waits for a collection to end waits no longer than its context lasts.
func TestRewritingWaitsWithContext(t *testing.T) {
	dir, _ := fillStore(t, 100)
	s := openTestStore(t, dir)
	defer s.Close()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.Collect(ctx, func(context.Context, *Marks) error {
		answers := make(chan error, 3)
		go func() {
			_, err := s.Collect(ended, func(context.Context, *Marks) error { return nil }, CollectOptions{})
			answers <- err
		}()
		go func() { answers <- s.Seal(ended) }()
		go func() { answers <- s.Erase(ended, testBlock(1).CID) }()
		for range 3 {
			select {
			case err := <-answers:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("while it is collected: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("it waits for the collection")
			}
		}
		return nil
	}, CollectOptions{})
	must(t, err)
}
