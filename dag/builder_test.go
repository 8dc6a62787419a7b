package dag

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// depthFirst shuffles paths without tearing a directory apart.
func depthFirst(r *rand.Rand, paths []string) []string {
	groups := map[string][]string{}
	var names []string
	for _, path := range paths {
		name, rest, below := strings.Cut(path, "/")
		if _, ok := groups[name]; !ok {
			names = append(names, name)
		}
		groups[name] = append(groups[name], rest)
		if !below {
			groups[name] = nil
		}
	}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var out []string
	for _, name := range names {
		if groups[name] == nil {
			out = append(out, name)
			continue
		}
		for _, rest := range depthFirst(r, groups[name]) {
			out = append(out, name+"/"+rest)
		}
	}
	return out
}

// Builder and Editor agree on every set of documents, and Builder in any order
// that keeps directories together.
func TestBuilderEqualsEditor(t *testing.T) {
	ctx := context.Background()
	name := rapid.OneOf(rapid.StringMatching(`[a-c]`), rapid.StringMatching(`[a-z0-9é]{1,200}`))
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		var e Editor
		documents := map[string]Link{}
		for range rapid.IntRange(0, 150).Draw(rt, "documents") {
			path := strings.Join(rapid.SliceOfN(name, 1, 4).Draw(rt, "path"), "/")
			l := documentOf(m, 1, rapid.Uint64Range(0, 1<<22).Draw(rt, "size"))
			if e.Put(path, l) == nil {
				documents[path] = l
			}
		}
		want, err := e.Apply(ctx, nil, Discard, cid.Undef)
		must(t, err)
		if got := built(t, Discard, documents); got != want {
			rt.Fatalf("built %v, edited %v", got, want)
		}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "order"), 1))
		b := NewBuilder(Discard)
		var paths []string
		for path := range documents {
			paths = append(paths, path)
		}
		slices.Sort(paths)
		for _, path := range depthFirst(r, paths) {
			must(t, b.Add(ctx, path, documents[path]))
		}
		if got, err := b.Finish(ctx); err != nil || got != want {
			rt.Fatalf("built in another order %v (%v), edited %v", got, err, want)
		}
	})
}

// Paths that no state can have are refused, by CheckPaths as by Builder, and the
// directory they are in is not put.
func TestBuilderErrors(t *testing.T) {
	ctx := context.Background()
	a, b := collidingNames(t)
	doc := RawBlock([]byte("document")).link()
	for name, c := range map[string]struct {
		paths  []string
		reason error
	}{
		"a document twice":                     {[]string{"a", "a"}, ErrName},
		"a document and a collection":          {[]string{"a", "a/b"}, ErrName},
		"a collection and a document":          {[]string{"a/b", "a"}, ErrName},
		"a collection torn apart":              {[]string{"a/b", "b", "a/c"}, ErrName},
		"an inner collection torn apart":       {[]string{"x/a/b", "x/b", "x/a/c"}, ErrName},
		"colliding names":                      {[]string{a, b}, ErrNameCollision},
		"colliding names in a collection":      {[]string{"c/" + a, "c/" + b}, ErrNameCollision},
		"colliding names of a collection":      {[]string{a + "/x", b}, ErrNameCollision},
		"colliding names in a HAMT":            {slices.Concat(numberedPaths("c/", 2000, 30), []string{"c/" + a, "c/" + b}), ErrNameCollision},
		"a document twice in a HAMT":           {slices.Concat(numberedPaths("c/", 2000, 30), []string{"c/x", "c/x"}), ErrName},
		"an unusable name":                     {[]string{"a/../b"}, ErrName},
		"17 names":                             {[]string{strings.Repeat("d/", MaxNames) + "x"}, ErrName},
		"colliding names in two collections":   {[]string{"c/" + a, "d/" + b}, nil},
		"equal names in two collections":       {[]string{"c/x", "d/x"}, nil},
		"a name that continues another's path": {[]string{"a-b", "a/b", "ab"}, nil},
		"nothing":                              {nil, nil},
	} {
		if err := CheckPaths(slices.Values(c.paths)); !errors.Is(err, c.reason) {
			t.Errorf("%s: checked: %v", name, err)
		}
		m := newMemory()
		builder := NewBuilder(m)
		var err error
		for _, path := range c.paths {
			if err == nil {
				err = builder.Add(ctx, path, doc)
			}
		}
		if err == nil {
			_, err = builder.Finish(ctx)
		}
		if !errors.Is(err, c.reason) {
			t.Errorf("%s: built: %v", name, err)
		}
		if strings.HasPrefix(name, "colliding names in a") && len(m.blocks) > 0 {
			t.Errorf("%s: %d nodes put", name, len(m.blocks))
		}
	}
	if err := NewBuilder(Discard).Add(ctx, "a", Link{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a link without a CID: %v", err)
	}
}

// ordered remembers what is put, and fails after so many blocks.
type ordered struct {
	cids []cid.Cid
	fail int
}

var errFull = errors.New("full")

func (o *ordered) Put(_ context.Context, blocks ...Block) error {
	for _, b := range blocks {
		if o.cids = append(o.cids, b.CID); len(o.cids) == o.fail {
			return errFull
		}
	}
	return nil
}

// Nodes are put children first, in one order whatever the number of cores.
func TestBuilderOrder(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	ctx := context.Background()
	m, documents, root := largeState(t)
	var first []cid.Cid
	for _, cores := range []int{1, 2, 7} {
		runtime.GOMAXPROCS(cores)
		var out ordered
		if got := built(t, &out, documents); got != root {
			t.Fatalf("on %d cores %v, not %v", cores, got, root)
		}
		if first == nil {
			first = out.cids
		}
		if !slices.Equal(out.cids, first) {
			t.Errorf("on %d cores in another order", cores)
		}
	}
	put := map[cid.Cid]bool{}
	for _, c := range first {
		links, err := Links(Block{c, m.blocks[c]})
		must(t, err)
		for _, l := range links {
			if l.Type() == cid.DagProtobuf && !put[l] {
				t.Fatalf("%s is put before %s, which it links to", c, l)
			}
		}
		put[c] = true
	}
	// A sink that fails ends it, at whatever node, and a context that has ended.
	for _, at := range []int{1, 500, 3000, len(first)} {
		out := ordered{fail: at}
		b := NewBuilder(&out)
		err := addAll(ctx, b, documents)
		if err == nil {
			_, err = b.Finish(ctx)
		}
		if !errors.Is(err, errFull) {
			t.Errorf("full after %d nodes: %v", at, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	b := NewBuilder(Discard)
	if err := addAll(ended, b, documents); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func addAll(ctx context.Context, b *Builder, documents map[string]Link) error {
	for _, path := range slices.Sorted(func(yield func(string) bool) {
		for path := range documents {
			if !yield(path) {
				return
			}
		}
	}) {
		if err := b.Add(ctx, path, documents[path]); err != nil {
			return err
		}
	}
	return nil
}

// Directories that several cores lay out are boxo's too.
func TestLargeDirectoryEqualsBoxo(t *testing.T) {
	ctx := context.Background()
	for _, p := range []layout{profile, {8, 1 << 10, 0}, {64, 4 << 10, 0}, {256, 256 << 10, 0}} {
		for _, n := range []int{partEntries - 1, partEntries, partEntries + 1, 9000} {
			entries := someEntries(uint64(n), n)
			want := boxoDirectory(t, p, entries)
			if got, err := p.writeDirectory(ctx, Discard, entries[:n/3], entries[n/3:]); err != nil || got != want {
				t.Errorf("fan-out %d, %d entries: %v (%v), boxo says %v", p.fanout, n, got, err, want)
			}
		}
	}
}

// entriesIn returns so many entries whose hashes begin with these bits, and one for
// each of the beginnings in alone.
func entriesIn(n int, at position, alone ...position) []entry {
	var entries []entry
	found := make([]bool, len(alone))
	for i, have := 0, 0; have < n || slices.Contains(found, false); i++ {
		name := fmt.Sprintf("document %d", i)
		e := newEntry(name, RawBlock([]byte(name)).link())
		if at.leads(e.hash) && have < n {
			entries = append(entries, e)
			have++
		}
		for j, a := range alone {
			if a.leads(e.hash) && !found[j] {
				found[j] = true
				entries = append(entries, e)
			}
		}
	}
	return entries
}

// One shard has nearly all entries, or all: whatever core lays it out, it stands in
// its place.
func TestUnevenDirectoryEqualsBoxo(t *testing.T) {
	ctx := context.Background()
	full, none := position{3, 4}, []position(nil)
	others := []position{{0, 4}, {7, 4}, {15, 4}}
	all := make([]position, 0, 15)
	for i := range uint64(16) {
		if i != 3 {
			all = append(all, position{i, 4})
		}
	}
	for _, part := range []int{0, 2, 3, 40} {
		p := layout{Fanout, DirectoryThreshold, part}
		for _, n := range []int{p.partLen() - 1, p.partLen(), p.partLen() + 1, 200} {
			for name, alone := range map[string][]position{"none": none, "one": others[:1], "some": others, "all": all, "below": {{0x31, 8}, {0x35, 8}}} {
				for _, at := range []position{full, {0x3f, 8}, {0x3f2, 12}} {
					if at.used == 12 && n > 41 || at == full && name == "below" {
						continue // takes long to find; lies in it
					}
					entries := entriesIn(n, at, alone...)
					want := boxoDirectory(t, p, entries)
					m := newMemory()
					got, err := p.writeDirectory(ctx, m, entries)
					if err != nil || got != want {
						t.Fatalf("part %d, %d entries at %x, alone: %s: %v (%v), boxo says %v", part, n, at.bits, name, got, err, want)
					}
					if back, err := p.list(ctx, m, got); err != nil || len(back) != len(entries) {
						t.Fatalf("part %d, %d entries at %x, alone: %s: %d read back, %v", part, n, at.bits, name, len(back), err)
					}
				}
			}
		}
	}
}

// All goroutines end with the call they work for.
func TestInOrder(t *testing.T) {
	for _, n := range []int{0, 1, 2, 100} {
		for _, stop := range []int{-1, 0, 1, 50} {
			before := runtime.NumGoroutine()
			var got []int
			err := inOrder(n, func(i int) int { return i * i }, func(v int) error {
				if len(got) == stop {
					return errFull
				}
				got = append(got, v)
				return nil
			})
			for i, v := range got {
				if v != i*i {
					t.Errorf("result %d is %d", i, v)
				}
			}
			if stopped := stop >= 0 && stop < n; stopped != errors.Is(err, errFull) || !stopped && len(got) != n {
				t.Errorf("%d results of %d, stopped at %d: %v", len(got), n, stop, err)
			}
			// A goroutine that has done its work may still be there for a moment.
			for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatalf("%d goroutines are left", runtime.NumGoroutine()-before)
				}
			}
		}
	}
}

func ExampleCheckPaths() {
	fmt.Println(CheckPaths(slices.Values([]string{"a/b", "a/c", "d"})))
	fmt.Println(errors.Is(CheckPaths(slices.Values([]string{"a/b", "a/b/c"})), ErrName))
	// Output:
	// <nil>
	// true
}
