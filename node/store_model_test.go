package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"pgregory.net/rapid"
)

// storeModel is what a store must be like: what was synced is there, what was
// only put is there until a crash and then there or not.
type storeModel struct {
	top    string
	dir    string
	n      int // of copies of the folder
	s      *Store
	synced map[int]dag.Block
	put    map[int]dag.Block // not synced yet
	maybe  map[int]dag.Block // put before a crash: there or absent
	// length of each segment that is surely on disk
	durable map[string]int64
}

func (m *storeModel) block(rt *rapid.T) (int, dag.Block) {
	// Sizes about those of one section make lengths point at other sections when
	// they are damaged.
	id := rapid.IntRange(0, 60).Draw(rt, "block")
	sizes := []int{0, 1, 3, 3, 3, 91, 92, 200, 5000, 70000}
	return id, dag.RawBlock(append([]byte{byte(id)}, bytesOf(uint64(id), sizes[id%len(sizes)])...))
}

func (m *storeModel) segments(t fataler) []string {
	paths, err := filepath.Glob(filepath.Join(m.dir, "*.car"))
	must(t, err)
	slices.Sort(paths)
	return paths
}

func (m *storeModel) noteDurable(t fataler) {
	m.durable = map[string]int64{}
	for _, p := range m.segments(t) {
		st, err := os.Stat(p)
		must(t, err)
		m.durable[filepath.Base(p)] = st.Size()
	}
}

// copyTo makes the folder as a crash leaves it.
func (m *storeModel) crashCopy(rt *rapid.T) string {
	m.n++
	to := filepath.Join(m.top, string(rune('a'+m.n%26)), string(rune('a'+m.n/26%26)), string(rune('a'+m.n/676)))
	must(rt, os.MkdirAll(to, 0o700))
	paths := m.segments(rt)
	for i, p := range paths {
		data, err := os.ReadFile(p)
		must(rt, err)
		keep := len(data)
		if i == len(paths)-1 {
			keep = rapid.IntRange(int(m.durable[filepath.Base(p)]), len(data)).Draw(rt, "bytes kept")
		}
		must(rt, os.WriteFile(filepath.Join(to, filepath.Base(p)), data[:keep], 0o600))
	}
	mark, err := os.ReadFile(filepath.Join(m.dir, syncMarkFile))
	must(rt, err)
	must(rt, os.WriteFile(filepath.Join(to, syncMarkFile), mark, 0o600))
	return to
}

func (m *storeModel) check(rt *rapid.T) {
	for id, b := range m.synced {
		m.mustHave(rt, id, b)
	}
	for id, b := range m.put {
		m.mustHave(rt, id, b)
	}
	for id, b := range m.maybe {
		data, err := m.s.Get(ctx, b.CID)
		has, hasErr := m.s.Has(ctx, b.CID)
		must(rt, hasErr)
		if err == nil && (!has || !bytes.Equal(data, b.Data)) || err != nil && (has || !errors.Is(err, dag.ErrNotFound)) {
			rt.Fatalf("block %d after a crash: has %v, %d bytes, %v", id, has, len(data), err)
		}
	}
}

func (m *storeModel) mustHave(rt *rapid.T, id int, b dag.Block) {
	data, err := m.s.Get(ctx, b.CID)
	if err != nil || !bytes.Equal(data, b.Data) {
		rt.Fatalf("block %d: %d bytes, %v", id, len(data), err)
	}
	n, err := m.s.Size(ctx, b.CID)
	if err != nil || n != len(b.Data) {
		rt.Fatalf("block %d: size %d, %v", id, n, err)
	}
	if has, err := m.s.Has(ctx, b.CID); err != nil || !has {
		rt.Fatalf("block %d: has %v, %v", id, has, err)
	}
}

func (m *storeModel) sync(t fataler) {
	must(t, m.s.Sync(ctx))
	for id, b := range m.put {
		m.synced[id] = b
		delete(m.maybe, id)
	}
	m.put = map[int]dag.Block{}
	m.noteDurable(t)
}

func (m *storeModel) damage(rt *rapid.T) {
	m.sync(rt)
	must(rt, m.s.close())
	paths := m.segments(rt)
	path := paths[rapid.IntRange(0, len(paths)-1).Draw(rt, "segment")]
	hit := sections(rt, path)
	st, err := os.Stat(path)
	must(rt, err)
	off := rapid.Int64Range(0, st.Size()-1).Draw(rt, "offset")
	flip(rt, path, off, byte(rapid.IntRange(1, 255).Draw(rt, "xor")))
	m.s = openTestStore(rt, m.dir)
	all := blocksOf(m.synced)
	unreadable(rt, m.s, all)
	// What is found damaged may hide others until it is found.
	for _, lost := range unreadable(rt, m.s, all) {
		if !slices.ContainsFunc(hit, func(s section) bool { return s.cid == lost.CID && s.start <= off && off < s.end }) {
			rt.Fatalf("damage at %d of %s costs block %s, which is not there", off, path, lost.CID)
		}
		must(rt, m.s.Put(ctx, lost))
	}
	// A block of a state that was put before may be what was hit.
	for id, b := range m.maybe {
		if _, err := m.s.Get(ctx, b.CID); err != nil && !errors.Is(err, dag.ErrNotFound) {
			delete(m.maybe, id)
		}
	}
	must(rt, m.s.Sync(ctx))
	m.check(rt)
	// Start over from sound files: sections reads those only.
	must(rt, m.s.close())
	m.dir = filepath.Join(m.dir, "n")
	must(rt, os.Mkdir(m.dir, 0o700))
	m.s = openTestStore(rt, m.dir)
	must(rt, m.s.Put(ctx, all...))
	m.maybe = map[int]dag.Block{}
	m.sync(rt)
}

func blocksOf(m map[int]dag.Block) []dag.Block {
	var out []dag.Block
	for id := range 256 {
		if b, ok := m[id]; ok {
			out = append(out, b)
		}
	}
	return out
}

// Whatever happens, what was synced is there and equal, and nothing is ever wrong.
func TestStoreModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		top, err := os.MkdirTemp(t.TempDir(), "")
		must(rt, err)
		m := &storeModel{top: top, dir: filepath.Join(top, "first"), synced: map[int]dag.Block{}, put: map[int]dag.Block{}, maybe: map[int]dag.Block{}}
		must(rt, os.Mkdir(m.dir, 0o700))
		m.s = openTestStore(rt, m.dir)
		m.noteDurable(rt)
		defer func() { m.s.close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"put": func(rt *rapid.T) {
				id, b := m.block(rt)
				must(rt, m.s.Put(ctx, b))
				if _, ok := m.synced[id]; !ok {
					m.put[id] = b
					delete(m.maybe, id)
				}
			},
			"write": func(rt *rapid.T) { // as if the batch were full
				m.s.mu.Lock()
				defer m.s.mu.Unlock()
				must(rt, m.s.write())
			},
			"sync": func(rt *rapid.T) { m.sync(rt) },
			"new segment": func(rt *rapid.T) { // as if this one were full
				m.s.mu.Lock()
				defer m.s.mu.Unlock()
				if len(m.s.pending) == 0 || len(m.s.segments) > 3 {
					rt.Skip("nothing to write")
				}
				end := m.s.size
				m.s.size = segmentSize
				must(rt, m.s.write())
				if st, err := m.s.segments[m.s.active-1].Stat(); err != nil || st.Size() != end {
					rt.Fatalf("closed segment has %d bytes, not %d: %v", st.Size(), end, err)
				}
			},
			"reopen": func(rt *rapid.T) {
				must(rt, m.s.close())
				m.s = openTestStore(rt, m.dir)
				m.lose()
			},
			"crash": func(rt *rapid.T) {
				to := m.crashCopy(rt)
				must(rt, m.s.close())
				m.dir = to
				m.s = openTestStore(rt, m.dir)
				for _, d := range m.s.Damage() {
					if !d.Torn {
						rt.Fatalf("a crash is reported as damage: %v", d)
					}
				}
				m.lose()
				m.noteDurable(rt) // a torn tail is cut by an open that syncs
				for _, p := range m.segments(rt) {
					sections(rt, p) // nothing unfinished is left
				}
			},
			"damage": m.damage,
		})
	})
}

// lose: what was put and not synced is there or not.
func (m *storeModel) lose() {
	for id, b := range m.put {
		m.maybe[id] = b
	}
	m.put = map[int]dag.Block{}
}
