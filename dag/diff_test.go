package dag

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// changesOf are the changes that Diff returns, in its order.
func changesOf(ctx context.Context, src Source, before, after cid.Cid) ([]Change, error) {
	var all []Change
	for c, err := range Diff(ctx, src, before, after) {
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

// comparePaths orders paths as Documents does.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// expected are the changes as two lists of documents show them.
func expected(before, after map[string]Link) []string {
	paths := maps.Clone(before)
	maps.Copy(paths, after)
	var out []string
	for _, path := range slices.SortedFunc(maps.Keys(paths), comparePaths) {
		if a, b := before[path], after[path]; a != b {
			out = append(out, fmt.Sprint(path, a, b))
		}
	}
	return out
}

func described(changes []Change) []string {
	var out []string
	for _, c := range changes {
		var a, b Link
		if c.Before != nil {
			a = c.Before.Link
		}
		if c.After != nil {
			b = c.After.Link
		}
		out = append(out, fmt.Sprint(c.Path, a, b))
	}
	return out
}

// Any two states differ in what their documents differ in, in both directions.
func TestDiffProperty(t *testing.T) {
	ctx := context.Background()
	flavours := map[string][]string{
		"threshold": numberedPaths("c/", 60, 31),
		"alike":     alikePaths(80, 12),
		"nested":    slices.Concat(numberedPaths("x/", 3, 200), numberedPaths("x/y/", 25, 200), numberedPaths("z/y/", 25, 200)),
	}
	for name, paths := range flavours {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				m := newMemory()
				var states [2]map[string]Link
				var roots [2]cid.Cid
				base := rapid.SampledFrom([]int{0, 5, len(paths)}).Draw(rt, "documents")
				for i := range states {
					states[i] = map[string]Link{}
					for _, path := range paths[:base] {
						states[i][path] = documentOf(m, 1, 100)
					}
					for _, path := range rapid.SliceOfN(rapid.SampledFrom(paths), 0, 12).Draw(rt, "paths") {
						if rapid.Bool().Draw(rt, "delete") {
							delete(states[i], path)
						} else {
							states[i][path] = documentOf(m, i, rapid.SampledFrom([]uint64{1, 100, 1 << 21}).Draw(rt, "size"))
						}
					}
					if rapid.Bool().Draw(rt, "another kind") {
						// What is a collection in the other state is a document here.
						maps.DeleteFunc(states[i], func(path string, _ Link) bool { return strings.HasPrefix(path, paths[0][:1]+"/") })
						states[i][paths[0][:1]] = documentOf(m, 3, 7)
					}
					roots[i] = built(rt, m, states[i]).CID
				}
				for i := range roots {
					a, b := i, 1-i
					got, err := changesOf(ctx, m, roots[a], roots[b])
					if want := expected(states[a], states[b]); err != nil || !slices.Equal(described(got), want) {
						rt.Fatalf("%q (%v), not %q", described(got), err, want)
					}
				}
			})
		})
	}
}

// The cost of a diff is that of the changes.
func TestDiffReadsWhatDiffers(t *testing.T) {
	ctx := context.Background()
	m, _, root := largeState(t)
	src := counting(m)
	if got, err := changesOf(ctx, src, root.CID, root.CID); err != nil || len(got) > 0 || len(src.of) > 0 {
		t.Errorf("a state and itself: %v %v, %d nodes read", got, err, len(src.of))
	}
	var e Editor
	must(t, e.Put("policy.json", documentOf(m, 77, 12)))
	must(t, e.Delete("d/e/f"))
	for i := range 10 {
		must(t, e.Put(fmt.Sprintf("c/%024d", i*1999), documentOf(m, -i-1, 2<<20)))
	}
	out := newMemory()
	next, err := e.Apply(ctx, m, out, root.CID)
	must(t, err)
	must(t, m.Put(ctx, slices.Collect(blocksOf(out))...))
	got, err := changesOf(ctx, src, root.CID, next.CID)
	if err != nil || len(got) != 12 {
		t.Fatalf("%d changes, not 12 (%v)", len(got), err)
	}
	// Each new node is read, the one in its place, the tops of the ten large
	// documents, and the two collections that went.
	if most := 2*len(out.blocks) + 12; len(src.of) > most {
		t.Errorf("%d nodes read, %d are new", len(src.of), len(out.blocks))
	}
	if c := got[len(got)-1]; c.Path != "policy.json" || c.Before.Bytes != 10 || c.After.Bytes != 12 {
		t.Errorf("the last change is %+v", c)
	}
	if c := got[0]; c.Path != fmt.Sprintf("c/%024d", 0) || c.After.Bytes != 2<<20 {
		t.Errorf("the first change is %+v", c)
	}
	n := 0
	for range Diff(ctx, m, root.CID, next.CID) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("%d changes after a break at 3", n)
	}
}

func blocksOf(m *memory) func(func(Block) bool) {
	return func(yield func(Block) bool) {
		for c, data := range m.blocks {
			if !yield(Block{c, data}) {
				return
			}
		}
	}
}

// Nodes that are missing or not canonical end a diff with their place.
func TestDiffErrors(t *testing.T) {
	ctx := context.Background()
	m, _, root := largeState(t)
	var e Editor
	must(t, e.Put(fmt.Sprintf("c/%024d", 4711), documentOf(m, -1, 1)))
	out := newMemory()
	next, err := e.Apply(ctx, m, out, root.CID)
	must(t, err)
	must(t, m.Put(ctx, slices.Collect(blocksOf(out))...))
	for c := range out.blocks {
		for _, bad := range []struct {
			data   []byte
			reason error
		}{{nil, ErrNotFound}, {basic(named("b", root), named("a", root)).encode(), ErrNotCanonical}} {
			src := unchecked(maps.Clone(m.blocks))
			if src[c] = bad.data; bad.data == nil {
				delete(src, c)
			}
			for _, pair := range [][2]cid.Cid{{root.CID, next.CID}, {next.CID, root.CID}} {
				got, err := changesOf(ctx, notFound{src}, pair[0], pair[1])
				if !errors.Is(err, bad.reason) || len(got) > 0 || c != next.CID && !strings.Contains(err.Error(), `"c`) {
					t.Errorf("%s: %v %v, not %v", c, got, err, bad.reason)
				}
			}
		}
	}
	deep := basic(named("d", documentOf(m, 1, 1)))
	for range MaxNames {
		deep = basic(named("d", m.put(deep)))
	}
	if _, err := changesOf(ctx, m, root.CID, m.put(deep).CID); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("17 names: %v", err)
	}
	if _, err := changesOf(ctx, m, root.CID, documentOf(m, 1, 1).CID); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("a document as the state: %v", err)
	}
}

// notFound is a source that says what is not there.
type notFound struct{ unchecked }

func (s notFound) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if data, ok := s.unchecked[c]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("%s: %w", c, ErrNotFound)
}
