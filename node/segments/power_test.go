package segments

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable/durabletest"
	"github.com/ipfs/go-cid"
)

// promises is what a store owes to who used it: what must be there, and what may be
// there or not. Everything else must be absent.
type promises struct {
	dir   string
	disk  durable.Disk
	s     *Store
	owed  map[string]dag.Block
	maybe map[string]dag.Block
	put   map[string]dag.Block // since the last sync
	gone  map[string]dag.Block
}

func newPromises(t fataler, dir string, disk durable.Disk) *promises {
	t.Helper()
	p := &promises{dir: dir, disk: disk, owed: map[string]dag.Block{}, maybe: map[string]dag.Block{}, put: map[string]dag.Block{}, gone: map[string]dag.Block{}}
	return p
}

func (p *promises) open() (err error) {
	p.s, err = OpenOn(ctx, p.dir, p.disk)
	return err
}

func (p *promises) close() error {
	if p.s == nil {
		return nil
	}
	maps.Copy(p.maybe, p.put)
	clear(p.put)
	return p.s.Close()
}

func testBlock(i int) dag.Block {
	sizes := []int{0, 3, 91, 300, 5000, 70_000}
	return dag.RawBlock(append([]byte{byte(i)}, bytesOf(uint64(i), sizes[i%len(sizes)])...))
}

func (p *promises) doPut(ids ...int) error {
	for _, i := range ids {
		b := testBlock(i)
		key := b.CID.KeyString()
		if err := p.s.Put(ctx, b); err != nil {
			p.maybe[key] = b
			delete(p.gone, key)
			return err
		}
		if _, ok := p.owed[key]; !ok {
			p.put[key] = b
			delete(p.gone, key)
		}
	}
	return nil
}

// synced: what was put before is owed now.
func (p *promises) synced() {
	for key, b := range p.put {
		p.owed[key] = b
		delete(p.maybe, key)
	}
	clear(p.put)
}

func (p *promises) doSync() error {
	err := p.s.Sync(ctx)
	if err == nil {
		p.synced()
	}
	return err
}

// doDelete deletes or erases. While that is going on either may be.
func (p *promises) doDelete(del func(context.Context, ...cid.Cid) error, ids ...int) error {
	var cids []cid.Cid
	for _, i := range ids {
		b := testBlock(i)
		key := b.CID.KeyString()
		cids = append(cids, b.CID)
		if _, ok := p.gone[key]; !ok {
			p.maybe[key] = b
		}
		delete(p.owed, key)
		delete(p.put, key)
	}
	err := del(ctx, cids...)
	if err == nil {
		for _, i := range ids {
			b := testBlock(i)
			delete(p.maybe, b.CID.KeyString())
			p.gone[b.CID.KeyString()] = b
		}
	}
	return err
}

// doCollect keeps what is owed and has an even first byte.
func (p *promises) doCollect(o CollectOptions) error {
	live := map[string]dag.Block{}
	for key, b := range p.owed {
		if b.Data[0]%2 == 0 {
			live[key] = b
		} else {
			p.maybe[key] = b
		}
	}
	p.owed = live
	maps.Copy(p.maybe, p.put)
	clear(p.put)
	_, err := p.s.Collect(ctx, func(_ context.Context, m *Marks) error {
		for _, b := range live {
			if _, err := m.Add(ctx, b.CID); err != nil {
				return err
			}
		}
		return nil
	}, o)
	return err
}

// check opens what is left with no faults, and uses it.
func (p *promises) check(t fataler, dir, what string) {
	t.Helper()
	s, err := Open(ctx, dir)
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	p.checkIn(t, s, what)
	again := testBlock(200)
	must(t, s.Put(ctx, again))
	must(t, s.Sync(ctx))
	must(t, s.Close())
	s, err = Open(ctx, dir)
	if err != nil {
		t.Fatalf("%s: open again: %v", what, err)
	}
	defer s.Close()
	p.checkIn(t, s, what+", later")
	// What was deleted may be put again, where what was not synced has been.
	later := append(slices.Collect(maps.Values(p.gone)), again)
	must(t, s.Put(ctx, later...))
	must(t, s.Sync(ctx))
	if lost := unreadable(t, s, later); len(lost) > 0 {
		t.Fatalf("%s: what is put later is lost", what)
	}
}

func (p *promises) checkIn(t fataler, s *Store, what string) {
	t.Helper()
	for _, b := range p.owed {
		data, err := s.Get(ctx, b.CID)
		if err != nil || !bytes.Equal(data, b.Data) {
			t.Fatalf("%s: block %d is lost: %v", what, b.Data[0], err)
		}
	}
	for _, b := range p.maybe {
		data, err := s.Get(ctx, b.CID)
		if err == nil && !bytes.Equal(data, b.Data) || err != nil && !errors.Is(err, dag.ErrNotFound) && !errors.Is(err, dag.ErrHash) {
			t.Fatalf("%s: block %d: %d bytes, %v", what, b.Data[0], len(data), err)
		}
	}
	for _, b := range p.gone {
		if data, err := s.Get(ctx, b.CID); !errors.Is(err, dag.ErrNotFound) {
			t.Fatalf("%s: deleted block %d: %d bytes, %v", what, b.Data[0], len(data), err)
		}
	}
}

// script uses a store in every way, and ends at the first error.
func (p *promises) script() error {
	small := []int{0, 1, 2, 3, 4, 5, 6, 7, 8}
	var err error
	for _, step := range []func() error{
		p.open,
		func() error { return p.doPut(small...) }, p.doSync,
		func() error { return p.doPut(9, 10) }, p.doSync,
		func() error { return p.doPut(28, 29) },
		func() error { return p.doDelete(p.s.Delete, 1, 2) },
		func() error { return p.doPut(11, 2) }, func() error { p.putIsSynced(); return p.s.roll() }, func() error { p.synced(); return nil },
		func() error { return p.doPut(12, 13, 14, 15) }, p.doSync,
		func() error { p.putIsSynced(); return p.s.Seal(ctx) },
		func() error { return p.doPut(16, 17) }, p.doSync,
		func() error { return p.doDelete(p.s.Erase, 3, 12, 16) },
		func() error { return p.doPut(18, 19, 20, 3) }, p.doSync,
		p.close, p.open,
		func() error { return p.doPut(21, 22, 23) }, p.doSync,
		func() error { return p.doCollect(CollectOptions{}) },
		func() error { return p.doPut(24, 25) }, p.doSync,
		func() error { return p.s.Seal(ctx) },
		func() error { return p.doCollect(CollectOptions{All: true}) },
		func() error { return p.doPut(26) }, p.doSync, p.close,
	} {
		if err = step(); err != nil {
			break
		}
	}
	return err
}

// putIsSynced: what comes next syncs what was put before, or part of it.
func (p *promises) putIsSynced() { maps.Copy(p.maybe, p.put) }

// faultAt makes a disk fail with err at the k-th change, and from then on if more.
func faultAt(d *durabletest.Disk, k int, more bool, err error) (count *int) {
	count = new(int)
	var mu sync.Mutex
	d.Before = func(op durabletest.Op) error {
		if op.Kind == "read" {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		*count++
		if *count == k || more && *count > k {
			return err
		}
		return nil
	}
	return count
}

// The power goes at every change of the disk in turn. Of what was not synced, all,
// nothing or any part may be left.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	for k := 1; ; k += everyChange {
		top := t.TempDir()
		dir := filepath.Join(top, "store")
		must(t, os.Mkdir(dir, 0o700))
		d, err := durabletest.New(dir)
		must(t, err)
		changes := faultAt(d, k, true, durabletest.ErrPower)
		p := newPromises(t, dir, durable.On(d))
		err = p.script()
		if err == nil && *changes < k {
			t.Logf("%d changes", *changes)
			return
		}
		if !errors.Is(err, durabletest.ErrPower) {
			t.Fatalf("without power from change %d on: %v", k, err)
		}
		maps.Copy(p.maybe, p.put)
		if p.s != nil {
			p.s.Close()
		}
		for n := range 4 {
			var rng *rand.Rand
			if n > 0 {
				rng = rand.New(rand.NewPCG(uint64(k), uint64(n)))
			}
			left := filepath.Join(top, fmt.Sprint("left", n))
			must(t, os.Mkdir(left, 0o700))
			must(t, d.LosePower(dir, left, rng))
			p.check(t, left, fmt.Sprintf("power lost at change %d, way %d", k, n))
		}
	}
}

// Every change of the disk in turn is refused for want of room: what was acknowledged
// is there, now and after the next open, and the store goes on when there is room.
func TestFullDiskAtEveryChange(t *testing.T) {
	t.Parallel()
	for k := 1; ; k += everyChange {
		dir := t.TempDir()
		d, err := durabletest.New(dir)
		must(t, err)
		changes := faultAt(d, k, false, syscall.ENOSPC)
		p := newPromises(t, dir, durable.On(d))
		err = p.script()
		if err == nil && *changes < k {
			t.Logf("%d changes", *changes)
			return
		}
		// Some things are left for another time and are no error, such as a
		// leftover that cannot be removed.
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("no room for change %d: %v", k, err)
		}
		what := fmt.Sprintf("no room for change %d", k)
		d.Before = nil
		if p.s != nil && p.s.failed == nil { // else only opening it tells what there is
			maps.Copy(p.maybe, p.put) // put again by who was refused
			p.checkIn(t, p.s, what)
			if err := errors.Join(p.doPut(100, 101), p.doSync()); err != nil {
				t.Fatalf("%s: when there is room: %v", what, err)
			}
			must(t, p.s.Seal(ctx))
			p.checkIn(t, p.s, what+", sealed")
		}
		maps.Copy(p.maybe, p.put)
		if p.s != nil {
			must(t, p.s.Close())
		}
		p.check(t, dir, what)
	}
}

// Bytes that the disk cannot read any more count as damaged: the store opens, loses
// what was hit and heals it.
func TestUnreadableSectors(t *testing.T) {
	dir, blocks := fillStore(t, 100, 9000, 200, 9000, 300, 50)
	for _, kind := range []string{"active", "closed", "sealed"} {
		t.Run(kind, func(t *testing.T) {
			work := t.TempDir()
			must(t, os.CopyFS(work, os.DirFS(dir)))
			if kind != "active" {
				s := openTestStore(t, work)
				must(t, s.roll())
				if kind == "sealed" {
					must(t, s.Seal(ctx))
				}
				must(t, s.Close())
			}
			d, err := durabletest.New(work)
			must(t, err)
			st, err := os.Stat(segmentPath(dir, 1))
			must(t, err)
			size := st.Size()
			d.Before = func(op durabletest.Op) error {
				if op.Kind == "read" && strings.Contains(op.Path, "00000001.car") && op.Off < size {
					return syscall.EIO
				}
				return nil
			}
			s, err := OpenOn(ctx, work, durable.On(d))
			must(t, err)
			lost := unreadable(t, s, blocks)
			if len(lost) != len(blocks) {
				t.Fatalf("%d of %d are lost", len(lost), len(blocks))
			}
			must(t, s.Put(ctx, blocks...))
			must(t, s.Sync(ctx))
			if lost := unreadable(t, s, blocks); len(lost) > 0 {
				t.Fatalf("%d are not healed", len(lost))
			}
			must(t, s.Close())
		})
	}
}

// Many wait for the disk at the same time: they share an fsync.
func TestGroupCommit(t *testing.T) {
	dir := t.TempDir()
	d, err := durabletest.New(dir)
	must(t, err)
	s, err := OpenOn(ctx, dir, durable.On(d))
	must(t, err)
	defer s.Close()
	began, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	syncs := 0
	d.Before = func(op durabletest.Op) error {
		if op.Kind != "sync" {
			return nil
		}
		mu.Lock()
		syncs++
		first := syncs == 1
		mu.Unlock()
		if first {
			close(began)
			<-release
		}
		return nil
	}
	var wg sync.WaitGroup
	commit := func(i int) {
		wg.Go(func() {
			if err := errors.Join(s.Put(ctx, testBlock(i)), s.Sync(ctx)); err != nil {
				t.Error(err)
			}
		})
	}
	commit(0)
	<-began
	const writers = 50
	for i := range writers {
		commit(i + 1)
	}
	for written := 0; written <= writers; runtime.Gosched() {
		s.mu.RLock()
		written = len(s.active.index)
		s.mu.RUnlock()
	}
	close(release)
	wg.Wait()
	if syncs != 2 {
		t.Errorf("%d fsyncs for %d writers, of whom %d waited together", syncs, writers+1, writers)
	}
	for i := range writers + 1 {
		if _, err := s.Get(ctx, testBlock(i).CID); err != nil {
			t.Error(err)
		}
	}
}

// Closing waits for who syncs.
func TestCloseWhileSyncing(t *testing.T) {
	dir := t.TempDir()
	d, err := durabletest.New(dir)
	must(t, err)
	s, err := OpenOn(ctx, dir, durable.On(d))
	must(t, err)
	began, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.Before = func(op durabletest.Op) error {
		if op.Kind == "sync" {
			once.Do(func() { close(began); <-release })
		}
		return nil
	}
	must(t, s.Put(ctx, testBlock(1)))
	synced, closed := make(chan error, 1), make(chan error, 1)
	go func() { synced <- s.Sync(ctx) }()
	<-began
	go func() { closed <- s.Close() }()
	close(release)
	must(t, <-closed)
	if err := <-synced; err != nil && !errors.Is(err, errClosed) {
		t.Error(err)
	}
	s = openTestStore(t, dir)
	defer s.Close()
	if _, err := s.Get(ctx, testBlock(1).CID); err != nil {
		t.Error(err)
	}
	if err := s.Sync(ctx); err != nil {
		t.Error(err)
	}
}
