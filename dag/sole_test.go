package dag

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

// shared is a store of two states and a lone document, and the large documents in them:
// a and b have their first chunk in common, small is that chunk.
type shared struct {
	*memory
	one, two             cid.Cid
	a, b, small, lone    cid.Cid
	common, lastA, lastB cid.Cid
}

func newShared(t *testing.T) shared {
	ctx := context.Background()
	s := shared{memory: newMemory()}
	chunk := bytes.Repeat([]byte("c"), ChunkSize)
	write := func(data ...[]byte) Link {
		l, _, err := WriteDocument(ctx, s.memory, bytes.NewReader(slices.Concat(data...)))
		must(t, err)
		return l
	}
	a, b, small, lone := write(chunk, []byte("of a")), write(chunk, []byte("of b")), write(chunk), write([]byte("lone"))
	s.a, s.b, s.small, s.lone = a.CID, b.CID, small.CID, lone.CID
	s.common, s.lastA, s.lastB = small.CID, RawBlock([]byte("of a")).CID, RawBlock([]byte("of b")).CID
	state := func(documents map[string]Link) cid.Cid {
		var e Editor
		for path, l := range documents {
			must(t, e.Put(path, l))
		}
		root, err := e.Apply(ctx, nil, s.memory, cid.Undef)
		must(t, err)
		return root.CID
	}
	s.one = state(map[string]Link{"x/a": a, "x/copy": a, "lone": lone})
	s.two = state(map[string]Link{"y/b": b, "y/lone": lone, "small": small})
	return s
}

func sortedList(cids ...cid.Cid) []cid.Cid {
	slices.SortFunc(cids, func(x, y cid.Cid) int { return strings.Compare(x.KeyString(), y.KeyString()) })
	return cids
}

// What goes with documents is what nothing else uses, by whatever way.
func TestSole(t *testing.T) {
	ctx := context.Background()
	s := newShared(t)
	list := func(cids ...cid.Cid) []cid.Cid { return cids }
	manifest := savepointOf(t, s.memory, s.one)
	for name, c := range map[string]struct {
		documents, roots, kept []cid.Cid
		sole, with             []cid.Cid
		shared                 int
	}{
		"small in two states":                  {list(s.lone), list(s.one, s.two), nil, list(s.lone), list(s.one, s.two), 0},
		"below a manifest":                     {list(s.lone), list(manifest), nil, list(s.lone), list(manifest), 0},
		"large, alone":                         {list(s.a), list(s.one), nil, list(s.common, s.lastA), list(s.one), 0},
		"large, one that stays has a part":     {list(s.a), list(s.one, s.two), nil, list(s.lastA), list(s.one), 1},
		"all that have the part":               {list(s.a, s.b, s.small), list(s.one, s.two), nil, list(s.common, s.lastA, s.lastB), list(s.one, s.two), 0},
		"small, part of a large one":           {list(s.small), list(s.one, s.two), nil, nil, list(s.two), 1},
		"nothing has it":                       {list(s.b), list(s.one), nil, list(s.lastB), nil, 1},
		"pinned by itself":                     {list(s.lone), list(s.lone), nil, list(s.lone), list(s.lone), 0},
		"in what is kept whole":                {list(s.lone, s.a), list(s.one), list(s.two), list(s.lastA), list(s.one), 2},
		"given twice, and nothing is at roots": {list(s.lone, s.lone), nil, nil, list(s.lone), nil, 0},
	} {
		got, err := Sole(ctx, s, c.documents, c.roots, c.kept)
		must(t, err)
		if !slices.Equal(got.Sole, c.sole) || got.Shared != c.shared || !slices.Equal(got.Roots, c.with) {
			t.Errorf("%s: %+v, want %v and %d shared, with %v", name, got, c.sole, c.shared, c.with)
		}
	}
	got, err := Sole(ctx, s, list(s.a), list(s.one), sortedList(s.two, s.one, s.small, s.lone))
	must(t, err)
	if want := sortedList(s.two, s.one, s.small); len(got.Sole) > 0 || !slices.Equal(got.Kept, want) {
		t.Errorf("kept for %v, want %v", got.Kept, want)
	}
	counts, err := Occurrences(ctx, s, map[cid.Cid]bool{s.a: true, s.lone: true}, list(s.one, s.two, manifest))
	must(t, err)
	if !slices.Equal(counts, []uint64{3, 1, 3}) {
		t.Errorf("occurrences: %d", counts)
	}

	// Raw blocks need not be there; all that may have links must.
	for _, c := range list(s.lone, s.common, s.lastA) {
		delete(s.blocks, c)
	}
	if got, err := Sole(ctx, s, list(s.a), list(s.one, s.two), nil); err != nil || !slices.Equal(got.Sole, list(s.lastA)) {
		t.Errorf("without bytes: %+v, %v", got, err)
	}
	for _, c := range list(s.a, s.two) {
		data := s.blocks[c]
		delete(s.blocks, c)
		if got, err := Sole(ctx, s, list(s.a), list(s.one, s.two), nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("without %s: %+v, %v", c, got, err)
		}
		s.blocks[c] = data
	}
	delete(s.blocks, s.a)
	if got, err := Sole(ctx, s, list(s.a), list(s.two), nil); err != nil || len(got.Sole) > 0 {
		t.Errorf("a document that nothing has and of which nothing is there: %+v, %v", got, err)
	}
}

// Bytes of a document may be missing if the caller says so; nothing else may.
func TestVerifyStateWithout(t *testing.T) {
	ctx := context.Background()
	s := newShared(t)
	limit := Totals{9, 9 * ChunkSize}
	whole, err := VerifyState(ctx, s, s.two, limit)
	must(t, err)
	may := map[cid.Cid]bool{s.b: true, s.lone: true}
	var lacking []string
	verify := func() (Totals, error) {
		lacking = nil
		return VerifyStateWithout(ctx, s, s.two, limit, func(doc Document) (bool, error) {
			lacking = append(lacking, doc.Path)
			return may[doc.Link.CID], nil
		})
	}
	delete(s.blocks, s.lastB)
	s.blocks[s.lone] = []byte("lonf")
	got, err := verify()
	if err != nil || got != whole || !slices.Equal(lacking, []string{"y/b", "y/lone"}) {
		t.Errorf("%+v, %v, without %q", got, err, lacking)
	}
	if _, err := VerifyState(ctx, s, s.two, limit); !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrHash) {
		t.Errorf("verified as if it were whole: %v", err)
	}
	// The chunk is that of a document, too, that has to be there.
	delete(s.blocks, s.common)
	if _, err := verify(); !errors.Is(err, ErrNoBytes) || !errors.Is(err, ErrNotFound) {
		t.Errorf("without %q: %v", lacking, err)
	}
	s = newShared(t)
	delete(s.blocks, s.b) // a node, not bytes
	if _, err := verify(); !errors.Is(err, ErrNotFound) {
		t.Errorf("without a node: %v", err)
	}
	broken := errors.New("cannot tell")
	s = newShared(t)
	delete(s.blocks, s.lone)
	if _, err := VerifyStateWithout(ctx, s, s.two, limit, func(Document) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("one who cannot tell: %v", err)
	}
}
