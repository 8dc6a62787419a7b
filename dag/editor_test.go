package dag

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// fataler is a test, or a case of one.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

// built is the state of the documents as a build from nothing makes it.
func built(t fataler, sink Sink, documents map[string]Link) Link {
	t.Helper()
	ctx := context.Background()
	b := NewBuilder(sink)
	for _, path := range slices.Sorted(maps.Keys(documents)) {
		must(t, b.Add(ctx, path, documents[path]))
	}
	l, err := b.Finish(ctx)
	must(t, err)
	return l
}

// documentOf puts what a link to a document of some length and with some Tsize
// needs, and returns that link.
func documentOf(m *memory, seed int, size uint64) Link {
	chunk := RawBlock([]byte(fmt.Sprint(seed, size))).CID
	if size <= ChunkSize {
		return Link{chunk, size}
	}
	n, _ := fileNode([]subtree{{Link{chunk, size}, size}})
	return m.put(n)
}

// editing draws batches of changes and compares each result with a build from
// nothing. Each such comparison is a case.
type editing struct {
	base  []string // documents that are there at first, and of which few are missing
	edge  []string // others, which come and go
	sizes []uint64 // of documents; the first is that of most
	batch int      // changes in a batch
	// most of the documents may go too
	sparse bool
}

// edited counts the cases, and what the cases had: how often the directory of base
// became a HAMT and a basic directory again, and how often it had which length.
type edited struct {
	cases, up, down int
	lengths         map[int]int // of the basic node that it would be
}

const editsPerCheck = 32 // times 100 checks, rapid's default

func (e editing) run(t *testing.T) (out edited) {
	t.Helper()
	ctx := context.Background()
	out.lengths = map[int]int{}
	prefix := ""
	if len(e.base) > 0 {
		prefix = e.base[0][:strings.LastIndexByte(e.base[0], '/')+1]
	}
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		left := map[string]Link{}
		for i, path := range e.base {
			left[path] = documentOf(m, i, e.sizes[0])
		}
		root := built(t, m, left)
		length := basicLenOf(prefix, left)
		for range editsPerCheck {
			next, err := e.edits(rt, m, left).Apply(ctx, m, m, root.CID)
			if want := built(t, Discard, left); err != nil || next != want {
				rt.Fatalf("edited %v, built from nothing %v (%v): %q", next, want, err, slices.Sorted(maps.Keys(left)))
			}
			root = next
			was := length
			length = basicLenOf(prefix, left)
			out.cases++
			out.lengths[length]++
			switch {
			case was <= DirectoryThreshold && length > DirectoryThreshold:
				out.up++
			case was > DirectoryThreshold && length <= DirectoryThreshold:
				out.down++
			}
		}
		if _, err := countDocuments(ctx, m, root.CID); err != nil {
			rt.Fatal(err)
		}
	})
	return out
}

// edits draws a batch and makes the changes to the documents that are left.
func (e editing) edits(rt *rapid.T, m *memory, left map[string]Link) *Editor {
	edit := new(Editor)
	remove := func(path string) {
		must(rt, edit.Delete(path))
		delete(left, path)
	}
	put := func(path string, size uint64) {
		// What is in the way goes in the same batch.
		for other := range left {
			if strings.HasPrefix(other, path+"/") || strings.HasPrefix(path, other+"/") {
				remove(other)
			}
		}
		l := documentOf(m, rapid.IntRange(0, 3).Draw(rt, "seed"), size)
		must(rt, edit.Put(path, l))
		left[path] = l
	}
	for range rapid.IntRange(1, e.batch).Draw(rt, "changes") {
		from := e.edge
		if len(e.base) > 0 && rapid.IntRange(0, 3).Draw(rt, "base") == 0 {
			from = e.base
		}
		path := rapid.SampledFrom(from).Draw(rt, "path")
		if rapid.Bool().Draw(rt, "delete") {
			remove(path)
		} else {
			put(path, rapid.SampledFrom(e.sizes).Draw(rt, "size"))
		}
	}
	missing := 0
	for _, path := range e.base {
		if _, ok := left[path]; ok || e.sparse {
			continue
		}
		if missing++; missing > 1 {
			put(path, e.sizes[0])
		}
	}
	return edit
}

// basicLenOf is the length that the directory at prefix has as a basic node.
func basicLenOf(prefix string, documents map[string]Link) int {
	size := emptyLen
	for path, l := range documents {
		if name, ok := strings.CutPrefix(path, prefix); ok && !strings.Contains(name, "/") {
			size += newEntry(name, l).linkLen()
		}
	}
	return size
}

// countDocuments counts the documents of a state whose documents are not there.
func countDocuments(ctx context.Context, src Source, root cid.Cid) (n int, err error) {
	for _, err := range Documents(ctx, src, root) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// numberedPaths are paths below a collection with names of some length.
func numberedPaths(prefix string, n, length int) []string {
	paths := make([]string, n)
	for i := range paths {
		paths[i] = fmt.Sprintf("%s%0*d", prefix, length, i)
	}
	return paths
}

// alikePaths are paths with names whose hashes agree in so many bits with that of
// one of a few names, so that shards with one link lie above one another.
func alikePaths(n, bits int) []string {
	var paths []string
	targets := []uint64{nameHash("a"), nameHash("b"), nameHash("c")}
	for i := 0; len(paths) < n; i++ {
		name := fmt.Sprintf("%040d", i)
		if h := nameHash(name); slices.ContainsFunc(targets, func(t uint64) bool { return (h^t)>>(hashBits-bits) == 0 }) {
			paths = append(paths, "c/"+name)
		}
	}
	return paths
}

// Any batches of changes end in the state of the documents that are left: more
// than 20,000 batches, most of them around the length at which the form of a
// directory changes.
func TestEditorEqualsBuilder(t *testing.T) {
	small := []uint64{100}
	nested := []string{"a", "a/a", "a/b", "a/a/a", "b/a", "b/b/b/b", strings.Repeat("d/", MaxNames-1) + "x", strings.Repeat("d/", MaxNames-2) + "y"}
	alike12, alike16 := alikePaths(80, 12), alikePaths(60, 16)
	exactly := slices.Concat(numberedPaths("c/", 1, 72), numberedPaths("c/", 1, 73), numberedPaths("c/", 1, 74))
	flavours := map[string]struct {
		editing
		crossings int   // at least, in either direction
		lengths   []int // that occur often
	}{
		// 54 links of 75 bytes are the most that a basic directory holds.
		"around the threshold": {editing{base: numberedPaths("c/", 53, 31), edge: numberedPaths("c/x", 6, 30), sizes: small, batch: 6}, 150, nil},
		"at the root":          {editing{base: numberedPaths("", 53, 31), edge: numberedPaths("x", 6, 30), sizes: small, batch: 6}, 150, nil},
		// With 53 of them there is room for one with a name of 73 bytes.
		"to the byte": {editing{base: numberedPaths("c/", 53, 31), edge: exactly, sizes: small, batch: 2}, 150, []int{4095, 4096, 4097}},
		// The lengths of Tsizes decide, byte by byte.
		"sizes": {editing{base: numberedPaths("c/", 53, 31), edge: numberedPaths("c/", 2, 72), sizes: []uint64{100, 0, 127, 128, 16383, 16384, ChunkSize, 1<<21 + 5, 1 << 28, 1 << 40}, batch: 2}, 20, []int{4095, 4096, 4097}},
		// Names whose hashes begin alike.
		"hash prefixes of 12 bits": {editing{base: alike12[:46], edge: alike12[46:50], sizes: small, batch: 30}, 20, nil},
		"hash prefixes of 16 bits": {editing{base: alike16[:46], edge: alike16[46:50], sizes: small, batch: 10}, 20, nil},
		"sparse hash prefixes":     {editing{base: alike12[:60], edge: alike12[60:], sizes: small, batch: 30, sparse: true}, 0, nil},
		// Collections that appear, vanish, and take the place of documents.
		"nested": {editing{edge: nested, sizes: []uint64{100, 1 << 21}, batch: 4}, 0, nil},
		"vanish": {editing{edge: slices.Concat(numberedPaths("a/b/", 3, 255), numberedPaths("a/c/", 20, 255), numberedPaths("d/", 2, 255)), sizes: small, batch: 20}, 0, nil},
		"large":  {editing{base: numberedPaths("c/", 350, 24), edge: numberedPaths("c/x", 50, 23), sizes: small, batch: 30, sparse: true}, 0, nil},
	}
	cases := 0
	for name, f := range flavours {
		t.Run(name, func(t *testing.T) {
			got := f.run(t)
			cases += got.cases
			t.Logf("%d cases, %d times a HAMT, %d times basic again", got.cases, got.up, got.down)
			if testing.Short() || t.Failed() {
				return
			}
			if got.up < f.crossings || got.down < f.crossings {
				t.Errorf("the form changed %d and %d times, less than %d", got.up, got.down, f.crossings)
			}
			for _, length := range f.lengths {
				if got.lengths[length] < 3 {
					t.Errorf("%d cases of length %d", got.lengths[length], length)
				}
			}
		})
	}
	t.Logf("%d cases", cases)
	if min := 20_000; !t.Failed() && !testing.Short() && cases < min {
		t.Errorf("%d cases, fewer than %d: is -rapid.checks set?", cases, min)
	}
}

// reads counts what is read of a source.
type reads struct {
	Source
	mu sync.Mutex
	of map[cid.Cid]int
}

func counting(src Source) *reads { return &reads{Source: src, of: map[cid.Cid]int{}} }

func (r *reads) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	r.mu.Lock()
	r.of[c]++
	r.mu.Unlock()
	return r.Source.Get(ctx, c)
}

// largeState has 20,000 documents in one collection and some elsewhere.
func largeState(t testing.TB) (*memory, map[string]Link, Link) {
	m := newMemory()
	documents := map[string]Link{"policy.json": documentOf(m, 1, 10), "d/e/f": documentOf(m, 2, 10)}
	for i, path := range numberedPaths("c/", 20_000, 24) {
		documents[path] = documentOf(m, i, 2000)
	}
	return m, documents, built(t, m, documents)
}

// One change reads the nodes on its path, each once, writes as many, and nothing
// else of the state need be there.
func TestEditorReadsThePathOnly(t *testing.T) {
	ctx := context.Background()
	m, documents, root := largeState(t)
	for name, change := range map[string]func(e *Editor, path string) error{
		"replace": func(e *Editor, path string) error { return e.Put(path, documentOf(m, -1, 2000)) },
		"shrink":  func(e *Editor, path string) error { return e.Put(path, documentOf(m, -1, 2)) },
		"delete":  func(e *Editor, path string) error { return e.Delete(path) },
		"add":     func(e *Editor, path string) error { return e.Put(path+"x", documentOf(m, -1, 2000)) },
	} {
		path := fmt.Sprintf("c/%024d", 4711)
		onPath := &recording{Source: m}
		_, err := Lookup(ctx, onPath, root.CID, path)
		must(t, err)
		only := newMemory()
		must(t, only.Put(ctx, onPath.blocks...))
		var e Editor
		must(t, change(&e, path))
		src, out := counting(m), newMemory()
		next, err := e.Apply(ctx, src, out, root.CID)
		must(t, err)
		// A new name may lead to another shard than the old one.
		if len(src.of) > len(onPath.blocks)+4 || len(out.blocks) > len(onPath.blocks)+4 {
			t.Errorf("%s: %d nodes read, %d written, %d are on the path", name, len(src.of), len(out.blocks), len(onPath.blocks))
		}
		for c, n := range src.of {
			if n > 1 {
				t.Errorf("%s: %s read %d times", name, c, n)
			}
		}
		if name != "add" {
			again, err := e.Apply(ctx, only, Discard, root.CID)
			if err != nil || again != next {
				t.Errorf("%s: with nothing but the path: %v %v, not %v", name, again, err, next)
			}
		}
	}
	// Nothing that changes nothing is written.
	var e Editor
	for path, l := range documents {
		if strings.HasSuffix(path, "7") {
			must(t, e.Put(path, l))
		}
	}
	must(t, errors.Join(e.Delete("c/none"), e.Delete("none/none"), e.Delete("policy.json/none")))
	out := newMemory()
	if same, err := e.Apply(ctx, m, out, root.CID); err != nil || same != root || len(out.blocks) > 0 {
		t.Errorf("no change: %v %v, %d nodes written", same, err, len(out.blocks))
	}
}

// A HAMT that loses all but a few of many entries becomes basic.
func TestEditorShrinks(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	documents := map[string]Link{}
	var e Editor
	for i, path := range numberedPaths("c/", 3000, 31) {
		documents[path] = documentOf(m, i, 100)
	}
	root := built(t, m, documents)
	for i, path := range numberedPaths("c/", 3000, 31) {
		if i%60 != 0 {
			must(t, e.Delete(path))
			delete(documents, path)
		}
	}
	got, err := e.Apply(ctx, m, m, root.CID)
	if want := built(t, Discard, documents); err != nil || got != want {
		t.Errorf("%v %v, not %v", got, err, want)
	}
}

// collectionAt is the link to a collection of a state.
func collectionAt(t *testing.T, m *memory, state Link, name string) Link {
	t.Helper()
	d, err := openState(context.Background(), m, state.CID)
	must(t, err)
	l, ok, err := d.lookup(context.Background(), name)
	if err != nil || !ok {
		t.Fatal(name, err)
	}
	return l
}

// failing changes put nothing.
func TestEditorErrors(t *testing.T) {
	ctx := context.Background()
	m, _, root := largeState(t)
	doc := documentOf(m, 1, 10)
	a, b := collidingNames(t)
	with := func(changes ...string) *Editor {
		e := new(Editor)
		for _, path := range changes {
			if name, ok := strings.CutPrefix(path, "-"); ok {
				must(t, e.Delete(name))
			} else {
				must(t, e.Put(path, doc))
			}
		}
		return e
	}
	small := built(t, m, map[string]Link{"a": doc, "c/" + a: doc, "d/x": doc, "d/y": doc})
	many := map[string]Link{"c/" + a: doc}
	for _, path := range numberedPaths("c/", 200, 40) {
		many[path] = doc
	}
	hamt := built(t, m, many)
	// A document claims to be nearly as large as sizes can be.
	huge := built(t, m, map[string]Link{"big": {documentOf(m, 2, 1<<21).CID, maxTotal - 100}})
	withLink := func(path string, l Link) *Editor {
		e := new(Editor)
		must(t, e.Put(path, l))
		return e
	}
	for name, c := range map[string]struct {
		base   Link
		edit   *Editor
		reason error
	}{
		"a document where a collection is":          {root, with("d"), ErrName},
		"a document where a collection stays":       {small, with("d", "-d/x"), ErrName},
		"a collection where a document is":          {small, with("a/b"), ErrName},
		"deleting a document where a collection is": {small, with("-d"), nil},
		"below a document that is put again":        {small, with("-a/b", "a", "-a/b/c", "a"), nil},
		"a collision with the base":                 {small, with("c/" + b), ErrNameCollision},
		"a collision with the base, in a HAMT":      {hamt, with("c/" + b), ErrNameCollision},
		"a collision in the batch":                  {root, with("x/"+a, "x/"+b), ErrNameCollision},
		"a collision in the batch, in a HAMT":       {root, with("c/"+a, "c/"+b), ErrNameCollision},
		"one for the other that collides":           {small, with("c/"+b, "-c/"+a), nil},
		"one for the other in a HAMT":               {hamt, with("-c/"+a, "c/"+b), nil},
		"a document becomes a collection":           {small, with("-a", "a/b"), nil},
		"a document becomes a collection, reverse":  {small, with("a/b", "-a"), nil},
		"a collection becomes a document":           {small, with("d", "-d/x", "-d/y"), nil},
		"everything goes":                           {small, with("-a", "-c/"+a, "-d/x", "-d/y"), nil},
		"the collection itself as a document":       {small, withLink("d", collectionAt(t, m, small, "d")), ErrName},
		"sizes of more than 63 bits":                {huge, with("x"), ErrUnsupported},
		"the base is not there":                     {Link{CID: newBlock(codecPB, nil).CID}, with("a"), ErrNotFound},
		"the base is a document":                    {doc, with("a"), ErrNotCanonical},
	} {
		out := newMemory()
		_, err := c.edit.Apply(ctx, m, out, c.base.CID)
		if c.reason == nil && err != nil || !errors.Is(err, c.reason) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(out.blocks) > 0 {
			t.Errorf("%s: %d nodes put", name, len(out.blocks))
		}
	}
	// Within a batch, before any base is known.
	for _, paths := range [][2]string{{"a", "a/b"}, {"a/b", "a"}, {"x/y/z", "x/y"}, {"x", "x/y/z"}} {
		e := with(paths[0])
		if err := e.Put(paths[1], doc); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", paths, err)
		}
	}
	for name, l := range map[string]Link{
		"too long for one block": {doc.CID, ChunkSize + 1}, "longer than anything": {documentOf(m, 2, 1<<21).CID, maxTotal + 1},
		"no CID": {}, "a manifest": {CID: newBlock(codecDC, nil).CID}, "CIDv0": {CID: cid.NewCidV0(doc.CID.Hash())},
	} {
		if err := new(Editor).Put("a", l); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each node on the path that is missing, damaged or not canonical is noticed, and
// the error says where.
func TestEditorDistrustsItsBase(t *testing.T) {
	ctx := context.Background()
	m, _, root := largeState(t)
	path := fmt.Sprintf("c/%024d", 4711)
	onPath := &recording{Source: m}
	_, err := Lookup(ctx, onPath, root.CID, path)
	must(t, err)
	var e Editor
	must(t, e.Delete(path))
	for _, b := range onPath.blocks {
		delete(m.blocks, b.CID)
		if _, err := e.Apply(ctx, m, Discard, root.CID); !errors.Is(err, ErrNotFound) {
			t.Errorf("without %s: %v", b.CID, err)
		}
		m.blocks[b.CID] = append([]byte{0}, b.Data...)
		if _, err := e.Apply(ctx, m, Discard, root.CID); !errors.Is(err, ErrHash) {
			t.Errorf("%s damaged: %v", b.CID, err)
		}
		m.blocks[b.CID] = b.Data
	}
	// A source that does not compare hashes shows a directory of other entries.
	for _, bad := range []node{
		basic(named("b", root), named("a", root)),
		{typ: typeHAMTShard, hashType: hashMurmur3, fanout: Fanout, data: []byte{1}, links: []pbLink{newLink("1", "4711", root)}},
	} {
		for _, b := range onPath.blocks[1:] {
			lying := unchecked(maps.Clone(m.blocks))
			lying[b.CID] = bad.encode()
			if _, err := e.Apply(ctx, lying, Discard, root.CID); !errors.Is(err, ErrNotCanonical) || !strings.Contains(err.Error(), `"c`) {
				t.Errorf("another directory at %s: %v", b.CID, err)
			}
		}
	}
}
