// Package durabletest is a disk that loses power, is full, or fails, at a chosen
// moment: faults that cannot be made otherwise.
//
// It writes through to real files and remembers beside what of them is synced. A
// loss of power keeps that, and of what came later any part: of each write all,
// nothing or its beginning, of the names in a folder the first changes.
package durabletest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
)

// ErrPower is what everything answers once the power is gone.
var ErrPower = errors.New("no power")

// Op is a call that a [Disk] is about to do.
type Op struct {
	Kind string // read, write, truncate, sync, create, rename, link, remove, syncdir
	Path string
	Off  int64 // of a read
}

// Disk is a durable.System for the files below a folder, which nothing else changes.
// It is safe for concurrent use.
type Disk struct {
	// Before, if not nil, is asked before each call, not by two goroutines at a
	// time unless it is a sync or a read. Its error is returned in place of the
	// call; half of a write is done all the same.
	Before func(Op) error

	mu   sync.Mutex
	now  map[string]*inode // by path
	kept map[string]*inode // the names that are synced
	// renames are the changes of names that are not synced, by folder.
	renames map[string][]naming
}

// naming is a change of a folder: names that then stand for files, or for none.
type naming map[string]*inode

// inode is the content of a file.
type inode struct {
	synced []byte
	later  []change
}

// change is a write, or, if data is nil, a truncation.
type change struct {
	off  int64
	data []byte
}

// New returns a disk of the files in a folder as they are now, all of them synced.
func New(root string) (*Disk, error) {
	d := &Disk{now: map[string]*inode{}, renames: map[string][]naming{}}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		d.now[path] = &inode{synced: data}
		return err
	})
	d.kept = maps.Clone(d.now)
	return d, err
}

func (d *Disk) before(kind, path string) error {
	if d.Before == nil {
		return nil
	}
	return d.Before(Op{Kind: kind, Path: path})
}

func (d *Disk) name(dir string, n naming) {
	maps.Copy(d.now, n)
	d.renames[dir] = append(d.renames[dir], n)
}

// OpenFile implements durable.System.
func (d *Disk) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	made := flag&os.O_CREATE != 0 && d.now[path] == nil
	if made {
		if err := d.before("create", path); err != nil {
			return nil, err
		}
	}
	return d.opened(path, made)(os.OpenFile(path, flag, perm))
}

// CreateTemp implements durable.System.
func (d *Disk) CreateTemp(dir, pattern string) (durable.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.before("create", filepath.Join(dir, pattern)); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	return d.opened(f.Name(), true)(f, nil)
}

func (d *Disk) opened(path string, made bool) func(*os.File, error) (durable.File, error) {
	return func(f *os.File, err error) (durable.File, error) {
		if err != nil {
			return nil, err
		}
		if made {
			d.name(filepath.Dir(path), naming{path: &inode{}})
		}
		n := d.now[path]
		if n == nil {
			return nil, errors.Join(fmt.Errorf("%s is not of this disk", path), f.Close())
		}
		return &file{f, d, n}, nil
	}
}

// Rename implements durable.System, within a folder.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.before("rename", to); err != nil {
		return err
	}
	err := os.Rename(from, to)
	if err == nil {
		d.name(filepath.Dir(to), naming{to: d.now[from], from: nil})
	}
	return err
}

// Link implements durable.System, within a folder.
func (d *Disk) Link(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.before("link", to); err != nil {
		return err
	}
	err := os.Link(from, to)
	if err == nil {
		d.name(filepath.Dir(to), naming{to: d.now[from]})
	}
	return err
}

// Remove implements durable.System.
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.before("remove", path); err != nil {
		return err
	}
	err := os.Remove(path)
	if err == nil {
		d.name(filepath.Dir(path), naming{path: nil})
	}
	return err
}

// SyncDir implements durable.System.
func (d *Disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.before("syncdir", dir); err != nil {
		return err
	}
	for _, n := range d.renames[dir] {
		maps.Copy(d.kept, n)
	}
	d.renames[dir] = nil
	return nil
}

type file struct {
	*os.File
	d *Disk
	n *inode
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.d.Before != nil {
		if err := f.d.Before(Op{"read", f.Name(), off}); err != nil {
			return 0, err
		}
	}
	return f.File.ReadAt(p, off)
}

func (f *file) Write(p []byte) (int, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return f.WriteAt(p, st.Size()) // of those that are written from their beginning on
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	fault := f.d.before("write", f.Name())
	if fault != nil {
		p = p[:len(p)/2]
	}
	n, err := f.File.WriteAt(p, off)
	f.n.later = append(f.n.later, change{off, slices.Clone(p[:n])})
	return n, errors.Join(err, fault)
}

func (f *file) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.before("truncate", f.Name()); err != nil {
		return err
	}
	f.n.later = append(f.n.later, change{off: size})
	return f.File.Truncate(size)
}

func (f *file) Sync() error {
	f.d.mu.Lock()
	n := len(f.n.later)
	f.d.mu.Unlock()
	if err := f.d.before("sync", f.Name()); err != nil {
		return err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	for _, c := range f.n.later[:min(n, len(f.n.later))] {
		f.n.synced = c.apply(f.n.synced, len(c.data))
	}
	f.n.later = f.n.later[min(n, len(f.n.later)):]
	return nil
}

// apply does a change, of a write its first n bytes.
func (c change) apply(b []byte, n int) []byte {
	if c.data == nil {
		return append(b, make([]byte, max(0, int(c.off)-len(b)))...)[:c.off:c.off]
	}
	if end := int(c.off) + n; end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[c.off:], c.data[:n])
	return b
}

// LosePower writes what is left of the folder from to another one. Unless rng is nil,
// in which case all that was not synced is gone, it chooses.
func (d *Disk) LosePower(from, to string, rng *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := maps.Clone(d.kept)
	for _, dir := range slices.Sorted(maps.Keys(d.renames)) {
		for _, n := range d.renames[dir][:chance(rng, len(d.renames[dir]))] {
			maps.Copy(names, n)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if names[path] == nil {
			continue
		}
		copied := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(copied), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(copied, names[path].left(rng), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// left is what is left of a file.
func (n *inode) left(rng *rand.Rand) []byte {
	b := slices.Clone(n.synced)
	for _, c := range n.later {
		switch part := chance(rng, 3); {
		case part == 1:
			b = c.apply(b, len(c.data))
		case part == 2 && c.data != nil:
			b = c.apply(b, chance(rng, len(c.data)))
		}
	}
	return b
}

// chance is a number of 0 to n, 0 without rng.
func chance(rng *rand.Rand, n int) int {
	if rng == nil {
		return 0
	}
	return rng.IntN(n + 1)
}
