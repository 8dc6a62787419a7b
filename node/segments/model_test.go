package segments

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
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
	gone   map[int]dag.Block // deleted
	hold   *Hold
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

// crashCopy makes a folder as a crash leaves it.
func (m *storeModel) crashCopy(rt *rapid.T) string {
	m.n++
	to := filepath.Join(m.top, string(rune('a'+m.n%26)), string(rune('a'+m.n/26%26)), string(rune('a'+m.n/676)))
	must(rt, os.MkdirAll(to, 0o700))
	files, err := os.ReadDir(m.dir)
	must(rt, err)
	for _, f := range files {
		if f.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(m.dir, f.Name()))
		must(rt, err)
		if f.Name() == carName(m.s.active.number) {
			data = data[:rapid.IntRange(int(m.durable[f.Name()]), len(data)).Draw(rt, "bytes kept")]
		}
		must(rt, os.WriteFile(filepath.Join(to, f.Name()), data, 0o600))
	}
	return to
}

func (m *storeModel) check(rt *rapid.T) {
	for id, b := range m.synced {
		m.mustHave(rt, id, b)
	}
	for id, b := range m.put {
		m.mustHave(rt, id, b)
	}
	for id, b := range m.gone {
		if data, err := m.s.Get(ctx, b.CID); !errors.Is(err, dag.ErrNotFound) {
			rt.Fatalf("deleted block %d: %d bytes, %v", id, len(data), err)
		}
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
	must(rt, m.s.Close())
	paths := m.segments(rt)
	if len(paths) == 0 {
		m.s = openTestStore(rt, m.dir)
		rt.Skip("all segments are sealed")
	}
	path := paths[rapid.IntRange(0, len(paths)-1).Draw(rt, "segment")]
	hit := sections(rt, path)
	if rapid.Bool().Draw(rt, "in the index") {
		if indexes, _ := filepath.Glob(filepath.Join(m.dir, "*.idx")); len(indexes) > 0 {
			path, hit = indexes[rapid.IntRange(0, len(indexes)-1).Draw(rt, "index")], nil
		}
	}
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
	must(rt, m.s.Close())
	m.dir = filepath.Join(m.dir, "n")
	must(rt, os.Mkdir(m.dir, 0o700))
	m.s = openTestStore(rt, m.dir)
	must(rt, m.s.Put(ctx, all...))
	m.maybe = map[int]dag.Block{}
	m.gone = map[int]dag.Block{}
	m.sync(rt)
}

func (m *storeModel) delete(rt *rapid.T, erase bool) {
	var cids []cid.Cid
	for range rapid.IntRange(1, 3).Draw(rt, "how many") {
		id, b := m.block(rt)
		cids = append(cids, b.CID)
		delete(m.synced, id)
		delete(m.put, id)
		delete(m.maybe, id)
		m.gone[id] = b
	}
	if erase {
		must(rt, m.s.Erase(ctx, cids...))
		m.checkErased(rt)
	} else {
		must(rt, m.s.Delete(ctx, cids...))
	}
	for id, b := range m.put { // both write and sync what was put before
		m.synced[id] = b
		delete(m.maybe, id)
	}
	m.put = map[int]dag.Block{}
	m.noteDurable(rt)
}

// checkErased looks for the bytes of erased blocks in all files, sealed ones too.
func (m *storeModel) checkErased(rt *rapid.T) {
	if len(m.s.deleted) > 0 {
		return // deleted and not erased: another time
	}
	var all []byte
	for _, seg := range m.s.closed {
		data := make([]byte, seg.car.Size())
		_, err := seg.car.ReadAt(data, 0)
		must(rt, err)
		all = append(all, data...)
	}
	active, err := os.ReadFile(segmentPath(m.dir, m.s.active.number))
	must(rt, err)
	all = append(all, active...)
	for id, b := range m.gone {
		if bytes.Contains(all, b.CID.Bytes()) {
			rt.Fatalf("erased block %d is in a file", id)
		}
	}
}

// collect keeps some blocks, and those that a hold keeps.
func (m *storeModel) collect(rt *rapid.T) {
	o := CollectOptions{All: rapid.Bool().Draw(rt, "all"), DryRun: rapid.IntRange(0, 4).Draw(rt, "dry run") == 0}
	keep := rapid.SliceOfNDistinct(rapid.IntRange(0, 60), 0, 40, rapid.ID).Draw(rt, "marked")
	got, err := m.s.Collect(ctx, func(_ context.Context, marks *Marks) error {
		for _, id := range keep {
			if b, ok := m.present()[id]; ok {
				first, err := marks.Add(ctx, b.CID)
				must(rt, err)
				again, err := marks.Add(ctx, b.CID)
				must(rt, err)
				if !first || again {
					rt.Fatalf("block %d: first %v, then %v", id, first, again)
				}
			}
		}
		return nil
	}, o)
	must(rt, err)
	if o.DryRun && got.RemovedBlocks > 0 || o.All && !o.DryRun && got.RemovedBlocks != got.GarbageBlocks || got.Damaged > 0 {
		rt.Fatalf("%+v after %+v", got, o)
	}
	for id, b := range m.put { // Collect closes the segment, which syncs it
		m.synced[id] = b
		delete(m.maybe, id)
	}
	m.put = map[int]dag.Block{}
	m.noteDurable(rt)
	if o.DryRun || m.hold != nil {
		return
	}
	for id, b := range m.synced {
		if !slices.Contains(keep, id) {
			delete(m.synced, id)
			m.maybe[id] = b
			if has, err := m.s.Has(ctx, b.CID); err != nil || has && o.All {
				rt.Fatalf("garbage %d was not removed: %v", id, err)
			}
		}
	}
}

func (m *storeModel) present() map[int]dag.Block {
	all := maps.Clone(m.synced)
	maps.Copy(all, m.put)
	return all
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
		m := &storeModel{top: top, dir: filepath.Join(top, "first"), synced: map[int]dag.Block{}, put: map[int]dag.Block{}, maybe: map[int]dag.Block{}, gone: map[int]dag.Block{}}
		must(rt, os.Mkdir(m.dir, 0o700))
		m.s = openTestStore(rt, m.dir)
		m.noteDurable(rt)
		defer func() { m.s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"put": func(rt *rapid.T) {
				id, b := m.block(rt)
				must(rt, m.s.Put(ctx, b))
				if _, ok := m.synced[id]; !ok {
					m.put[id] = b
					delete(m.maybe, id)
					delete(m.gone, id)
				}
			},
			"write": func(rt *rapid.T) { // as if the batch were full
				m.s.mu.Lock()
				defer m.s.mu.Unlock()
				must(rt, m.s.write())
			},
			"sync": func(rt *rapid.T) { m.sync(rt) },
			"new segment": func(rt *rapid.T) { // as if this one were full
				must(rt, m.s.roll())
				m.noteDurable(rt)
				for id, b := range m.put {
					m.synced[id] = b
					delete(m.maybe, id)
				}
				m.put = map[int]dag.Block{}
			},
			"seal":    func(rt *rapid.T) { m.sync(rt); must(rt, m.s.Seal(ctx)); m.noteDurable(rt) },
			"delete":  func(rt *rapid.T) { m.delete(rt, false) },
			"erase":   func(rt *rapid.T) { m.delete(rt, true) },
			"collect": m.collect,
			"hold": func(rt *rapid.T) {
				if m.hold != nil {
					m.hold.Release()
					m.hold = nil
					return
				}
				m.hold = m.s.Hold()
				m.check(rt) // reads everything, so holds it
			},
			"all": func(rt *rapid.T) {
				held := map[string]bool{}
				for c, err := range m.s.All(ctx) {
					must(rt, err)
					held[c.KeyString()] = true
				}
				for id, b := range m.present() {
					if !held[b.CID.KeyString()] {
						rt.Fatalf("block %d is not among all", id)
					}
				}
				for id, b := range m.gone {
					if held[b.CID.KeyString()] {
						rt.Fatalf("deleted block %d is among all", id)
					}
				}
			},
			"reopen": func(rt *rapid.T) {
				must(rt, m.s.Close())
				m.s = openTestStore(rt, m.dir)
				m.lose()
				m.hold = nil
			},
			"crash": func(rt *rapid.T) {
				to := m.crashCopy(rt)
				must(rt, m.s.Close())
				m.dir = to
				m.s = openTestStore(rt, m.dir)
				for _, d := range m.s.Damage() {
					if !d.Torn {
						rt.Fatalf("a crash is reported as damage: %v", d)
					}
				}
				m.lose()
				m.hold = nil
				m.noteDurable(rt) // a torn tail is cut by an open that syncs
				for _, p := range m.segments(rt) {
					sections(rt, p) // nothing unfinished is left
				}
			},
			"damage": func(rt *rapid.T) { m.damage(rt); m.hold = nil },
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
