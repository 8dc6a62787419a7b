package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable/durabletest"
)

// faultAt makes a disk fail at the k-th change, and from then on if more.
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

// told is what a repository has acknowledged.
type told struct {
	pins   map[int]bool // of pinned(i); false while it is being pinned or unpinned
	head   string
	next   string // while it is being swapped in
	record string
}

func pinned(i int) (dag.Block, []dag.Block) {
	leaves := []dag.Block{dag.RawBlock(bytesOf(uint64(i), 10)), dag.RawBlock(bytesOf(uint64(i)+100, 5000))}
	return dag.RawBlock(fmt.Append(nil, "root ", i)), leaves
}

// use puts, pins, swaps heads and writes records, until the first error.
func (m *told) use(r *Repo) error {
	for i := range 4 {
		root, leaves := pinned(i)
		if err := r.Blocks.Put(ctx, append(leaves, root)...); err != nil {
			return err
		}
		m.pins[i] = false
		if err := r.Pin(ctx, root.CID, "policy"); err != nil {
			return err
		}
		m.pins[i] = true
		var old []byte
		if m.head != "" {
			old = []byte(m.head)
		}
		m.next = fmt.Sprint("head ", i)
		if err := r.SwapHead(ctx, "log", old, []byte(m.next)); err != nil {
			return err
		}
		m.head = m.next
		if i == 2 {
			m.pins[0] = false
			if root, _ := pinned(0); r.Unpin(root.CID) == nil {
				delete(m.pins, 0)
			}
		}
		if err := r.PutRecord("kind", "key", []byte(m.head)); err != nil {
			return err
		}
		m.record = m.head
	}
	return nil
}

// check: a pin that is there has all its blocks; one that was told of is there; head
// and record are what was told last, or what was to come.
func (m *told) check(t *testing.T, dir, what string) {
	t.Helper()
	r, err := Open(ctx, dir)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer r.Close()
	for i := range 4 {
		root, leaves := pinned(i)
		is, err := r.Pinned(root.CID)
		must(t, err)
		known, begun := m.pins[i]
		if known && !is || is && !begun {
			t.Fatalf("%s: pin %d: %v, told %v", what, i, is, known)
		}
		for _, b := range append(leaves, root) {
			if _, err := r.Blocks.Get(ctx, b.CID); is && err != nil {
				t.Fatalf("%s: pin %d is there before its blocks: %v", what, i, err)
			}
		}
	}
	head, err := r.Head(ctx, "log")
	must(t, err)
	if string(head) != m.head && string(head) != m.next {
		t.Fatalf("%s: head %q, told %q, to come %q", what, head, m.head, m.next)
	}
	record, err := r.Record("kind", "key")
	must(t, err)
	if string(record) != m.record && string(record) != m.head {
		t.Fatalf("%s: record %q, told %q", what, record, m.record)
	}
}

// Whenever the power goes, or the disk is full: no pin without its blocks, nothing that
// was acknowledged is lost, and the repository goes on.
func TestPowerLossAndFullDisk(t *testing.T) {
	empty := newRepo(t).Dir()
	for _, fault := range []error{durabletest.ErrPower, syscall.ENOSPC} {
		for k := 1; ; k += everyChange {
			dir := filepath.Join(t.TempDir(), "repo")
			must(t, os.CopyFS(dir, os.DirFS(empty)))
			must(t, os.MkdirAll(filepath.Join(dir, metaDir), 0o700))
			d, err := durabletest.New(dir)
			must(t, err)
			changes := faultAt(d, k, fault == durabletest.ErrPower, fault)
			m := &told{pins: map[int]bool{}}
			r, err := openOn(ctx, dir, durable.On(d))
			if err == nil {
				err = m.use(r)
			}
			what := fmt.Sprintf("%v at change %d", fault, k)
			if err == nil && *changes < k {
				t.Logf("%d changes", *changes)
				d.Before = nil
				must(t, r.Close())
				break
			}
			if err != nil && !errors.Is(err, fault) {
				t.Fatalf("%s: %v", what, err)
			}
			if r != nil {
				r.Close() // it may have no power to
			}
			if fault == syscall.ENOSPC {
				m.check(t, dir, what)
				continue
			}
			for n := range 3 {
				var rng *rand.Rand
				if n > 0 {
					rng = rand.New(rand.NewPCG(uint64(k), uint64(n)))
				}
				left := filepath.Join(t.TempDir(), "left")
				must(t, os.MkdirAll(filepath.Join(left, metaDir), 0o700))
				must(t, os.MkdirAll(filepath.Join(left, packsDir), 0o700))
				must(t, d.LosePower(dir, left, rng))
				m.check(t, left, fmt.Sprintf("%s, way %d", what, n))
			}
		}
	}
}

// A pin that waits for the disk is not there yet.
func TestPinWaitsForItsBlocks(t *testing.T) {
	dir := newRepo(t).Dir()
	copied := filepath.Join(t.TempDir(), "repo")
	must(t, os.CopyFS(copied, os.DirFS(dir)))
	must(t, os.MkdirAll(filepath.Join(copied, metaDir), 0o700))
	d, err := durabletest.New(copied)
	must(t, err)
	r, err := openOn(ctx, copied, durable.On(d))
	must(t, err)
	defer r.Close()
	var order []string
	d.Before = func(op durabletest.Op) error {
		switch {
		case op.Kind == "sync" && filepath.Ext(op.Path) == ".car":
			order = append(order, "blocks")
		case op.Kind == "rename" && filepath.Base(filepath.Dir(op.Path)) == pinKind:
			order = append(order, "pin")
		}
		return nil
	}
	root, leaves := pinned(1)
	must(t, r.Blocks.Put(ctx, append(leaves, root)...))
	must(t, r.Pin(ctx, root.CID, "policy"))
	if len(order) != 2 || order[0] != "blocks" || order[1] != "pin" {
		t.Errorf("order %v", order)
	}
	d.Before = func(op durabletest.Op) error {
		if op.Kind == "sync" && filepath.Ext(op.Path) == ".car" {
			return syscall.EIO
		}
		return nil
	}
	other, leaves := pinned(2)
	must(t, r.Blocks.Put(ctx, append(leaves, other)...))
	if err := r.Pin(ctx, other.CID, "policy"); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if is, err := r.Pinned(other.CID); err != nil || is {
		t.Errorf("pinned without its blocks: %v", err)
	}
}

// Pins are listed without looking at what they pin.
func TestPinsAreNotWalked(t *testing.T) {
	r := newRepo(t)
	const n = 300
	for i := range n {
		root, _ := pinned(i) // none of it is here
		must(t, r.records.put(pinKind, root.CID.String(), []byte("policy")))
	}
	must(t, r.Blocks.Close()) // not a block can be read
	pins, err := r.Pins()
	if err != nil || len(pins) != n {
		t.Fatalf("%d pins, %v", len(pins), err)
	}
}
