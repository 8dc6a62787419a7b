package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

func walked(ctx context.Context, src Source, limits Limits, roots ...cid.Cid) (all []cid.Cid, err error) {
	for c, err := range Walk(ctx, src, limits, roots...) {
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

// A walk meets what a CAR holds, in the same order, without reading a document.
func TestWalk(t *testing.T) {
	ctx := context.Background()
	m, _, state := provable(t)
	roots := []cid.Cid{savepointOf(t, m, state), RawBlock(pattern(9)).CID}
	m.putRaw(pattern(9))
	src := counting(m)
	got, err := walked(ctx, src, Limits{}, roots...)
	must(t, err)
	blocks, _ := sections(t, writeCAR(t, m, roots...))
	want := make([]cid.Cid, len(blocks))
	for i, b := range blocks {
		want[i] = b.CID
	}
	if !slices.Equal(got, want) || len(got) != len(m.blocks) {
		t.Errorf("%d nodes, the CAR has %d, the store %d", len(got), len(want), len(m.blocks))
	}
	for c, n := range src.of {
		if n != 1 || c.Type() == cid.Raw {
			t.Errorf("%s was read %d times", c, n)
		}
	}
	n := 0
	for range Walk(ctx, m, Limits{}, roots...) {
		if n++; n == 5 {
			break
		}
	}
	if n != 5 {
		t.Errorf("%d nodes after a break at 5", n)
	}
	delete(m.blocks, state)
	if _, err := walked(ctx, m, Limits{}, roots...); !errors.Is(err, ErrNotFound) {
		t.Errorf("a node is missing: %v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := walked(ctx, m, Limits{}, roots...); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWalkLimits(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	l := m.putRaw([]byte("document"))
	for range 9 {
		l = m.put(basic(named("a", l), named("b", l)))
	}
	for _, c := range []struct {
		limits Limits
		ok     bool
	}{{Limits{Depth: 9}, true}, {Limits{Depth: 8}, false}, {Limits{Nodes: 10}, true}, {Limits{Nodes: 9}, false}, {Limits{}, true}} {
		got, err := walked(ctx, m, c.limits, l.CID)
		if c.ok && (err != nil || len(got) != 10) || !c.ok && !errors.Is(err, ErrLimit) {
			t.Errorf("%+v: %d nodes, %v", c.limits, len(got), err)
		}
	}
	for range DefaultDepth {
		l = m.put(basic(named("a", l)))
	}
	if _, err := walked(ctx, m, Limits{}, l.CID); !errors.Is(err, ErrLimit) {
		t.Errorf("deeper than the default: %v", err)
	}
}

// hasAll counts what is read and not what is asked for.
type hasAll struct {
	*reads
	m *memory
}

func (h hasAll) Has(ctx context.Context, c cid.Cid) (bool, error) { return h.m.Has(ctx, c) }

// Whatever is missing is named with the path at which somebody would look for it.
func TestMissingPaths(t *testing.T) {
	ctx := context.Background()
	m, documents, state := provable(t)
	config := m.putRaw([]byte("config"))
	root := savepointOf(t, m, state)
	manifest, err := ReadManifest(ctx, m, root)
	must(t, err)
	manifest.Policy.Config = config.CID
	b, err := manifest.Block()
	must(t, err)
	must(t, m.Put(ctx, b))
	paths := map[cid.Cid][]string{b.CID: {""}, config.CID: {"policy/config"}, state: {"state"}}
	for path := range documents {
		onPath := &recording{Source: m}
		doc, err := Lookup(ctx, onPath, state, path)
		must(t, err)
		paths[doc.Link.CID] = append(paths[doc.Link.CID], "state/"+path)
		parts, err := walked(ctx, m, Limits{}, doc.Link.CID)
		must(t, err)
		for _, c := range parts[1:] {
			paths[c] = append(paths[c], "state/"+path)
		}
		if strings.HasPrefix(path, "hamt/") {
			for _, node := range onPath.blocks[1:] { // below the state: the root shard and those below it
				paths[node.CID] = append(paths[node.CID], "state/hamt")
			}
		}
	}
	for c, want := range paths {
		data := m.blocks[c]
		delete(m.blocks, c)
		src := counting(m)
		gaps, err := Missing(ctx, hasAll{src, m}, b.CID)
		for c := range src.of {
			if c.Type() == cid.Raw {
				t.Errorf("%s was read to see that it is there", c)
			}
		}
		if err != nil || len(gaps) != 1 || gaps[0].CID != c || !slices.Contains(want, gaps[0].Path()) {
			t.Errorf("without %s of %q: %v %v", c, want, gaps, err)
		}
		m.blocks[c] = data
	}
	// All documents at once, each once, in the order of the walk.
	for c := range m.blocks {
		if c.Type() == cid.Raw {
			delete(m.blocks, c)
		}
	}
	gaps, err := Missing(ctx, m, b.CID)
	seen := map[cid.Cid]bool{}
	for _, g := range gaps {
		if seen[g.CID] || !slices.Contains(paths[g.CID], g.Path()) {
			t.Errorf("%v, not one of %q", g, paths[g.CID])
		}
		seen[g.CID] = true
	}
	if err != nil || len(gaps) < 300 {
		t.Errorf("%d documents are missing (%v)", len(gaps), err)
	}
}

// What the scanner takes for a node's links are its links; what is no node in
// canonical form is refused by it or by the decoder.
func TestScanNode(t *testing.T) {
	m, _, _ := provable(t)
	l := RawBlock(nil).link()
	for c, data := range m.blocks {
		if c.Type() != cid.DagProtobuf || len(data) > 2000 {
			continue
		}
		for i := range data {
			flipped := bytes.Clone(data)
			flipped[i] ^= 1 << (i % 8)
			for _, b := range [][]byte{data, flipped} {
				n, decodeErr := decodeNode(b)
				links, err := Links(Block{c, b})
				if decodeErr == nil && (err != nil || len(links) != len(n.links)) {
					t.Fatalf("%x: %d links (%v), %d decoded", b, len(links), err, len(n.links))
				}
				if theirs, boxoErr := merkledag.DecodeProtobuf(b); err == nil && (boxoErr != nil || len(theirs.Links()) != len(links)) {
					t.Fatalf("%x: %d links, boxo says %d (%v)", b, len(links), len(theirs.Links()), boxoErr)
				}
			}
		}
	}
	link := func(parts ...[]byte) []byte {
		body := slices.Concat(parts...)
		return slices.Concat([]byte{0x12, byte(len(body))}, body, []byte{0x0a, 2, 8, 1})
	}
	hash := func(c []byte) []byte { return slices.Concat([]byte{0x0a, byte(len(c))}, c) }
	name, size := []byte{0x12, 1, 'a'}, []byte{0x18, 0}
	good := link(hash(l.CID.Bytes()), name, size)
	if _, err := decodeNode(good); err != nil {
		t.Fatal(err)
	}
	v0 := cid.NewCidV0(l.CID.Hash())
	for why, c := range map[string]struct {
		data   []byte
		reason error
	}{
		"a size in two bytes that needs one": {link(hash(l.CID.Bytes()), name, []byte{0x18, 0x80, 0}), ErrNotCanonical},
		"a size of more than 64 bits":        {link(hash(l.CID.Bytes()), name, slices.Concat([]byte{0x18}, bytes.Repeat([]byte{0xff}, 9), []byte{2})), ErrNotCanonical},
		"a size that does not end":           {link(hash(l.CID.Bytes()), name, bytes.Repeat([]byte{0xff}, 12)), ErrNotCanonical},
		"no size":                            {link(hash(l.CID.Bytes()), name), ErrNotCanonical},
		"no name":                            {link(hash(l.CID.Bytes()), size), ErrNotCanonical},
		"no CID":                             {link(name, size), ErrNotCanonical},
		"the name first":                     {link(name, hash(l.CID.Bytes()), size), ErrNotCanonical},
		"a field more in the link":           {link(hash(l.CID.Bytes()), name, size, size), ErrNotCanonical},
		"a byte more":                        {append(bytes.Clone(good), 0), ErrNotCanonical},
		"a byte less":                        {good[:len(good)-1], ErrNotCanonical},
		"no data":                            {good[:len(good)-4], ErrNotCanonical},
		"data before the links":              {slices.Concat([]byte{0x0a, 2, 8, 1}, good[:len(good)-4]), ErrNotCanonical},
		"nothing":                            {nil, ErrNotCanonical},
		"CIDv0":                              {link(hash(v0.Bytes()), name, size), ErrUnsupported},
		"another codec":                      {link(hash(cid.NewCidV1(cid.DagJSON, l.CID.Hash()).Bytes()), name, size), ErrUnsupported},
		"no CID at all":                      {link(hash([]byte("CID")), name, size), ErrUnsupported},
	} {
		_, err := Links(Block{newBlock(codecPB, c.data).CID, c.data})
		if _, decodeErr := decodeNode(c.data); !errors.Is(err, c.reason) || !errors.Is(decodeErr, ErrNotCanonical) {
			t.Errorf("%s: %v; decoded: %v", why, err, decodeErr)
		}
	}
}

// A partial CAR is what its receiver lacks, no more, in the order of a whole one.
func TestPartialCAR(t *testing.T) {
	ctx := context.Background()
	paths := slices.Concat(numberedPaths("a/", 60, 40), numberedPaths("b/", 30, 40), numberedPaths("", 5, 8))
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		var roots []cid.Cid
		for range 3 {
			documents := map[string][]byte{}
			for _, path := range rapid.SliceOfN(rapid.SampledFrom(paths), 0, 150).Draw(rt, "paths") {
				documents[path] = []byte(fmt.Sprint(rapid.IntRange(0, 40).Draw(rt, "document")))
			}
			root, _ := buildState(t, m, documents)
			roots = append(roots, root.CID)
		}
		held := map[cid.Cid]bool{}
		for _, c := range roots[:2] {
			of, err := walked(ctx, m, Limits{}, c)
			must(t, err)
			for _, c := range of {
				held[c] = true
			}
		}
		src := counting(m)
		var car bytes.Buffer
		must(t, WritePartialCAR(ctx, &car, src, roots[:2], roots[2]))
		got, _ := sections(t, car.Bytes())
		whole, _ := sections(t, writeCAR(t, m, roots[2]))
		want := slices.DeleteFunc(whole, func(b Block) bool { return held[b.CID] })
		if !slices.EqualFunc(got, want, func(a, b Block) bool { return a.CID == b.CID }) {
			rt.Fatalf("%d nodes, not %d", len(got), len(want))
		}
		receiver := newMemory()
		for c := range held {
			if src.of[c] > 0 && c.Type() == cid.Raw {
				rt.Fatalf("%s was read, and is held", c)
			}
			receiver.blocks[c] = m.blocks[c]
		}
		r, err := ReadCAR(&car)
		must(t, err)
		_, err = r.CopyDAG(ctx, receiver, roots[2:], nil)
		must(t, err)
		if gaps, err := Missing(ctx, receiver, roots[2]); err != nil || len(gaps) > 0 {
			rt.Fatalf("missing: %v %v", gaps, err)
		}
	})
	m := newMemory()
	root, _ := buildState(t, m, map[string][]byte{"a": []byte("a")})
	var car bytes.Buffer
	must(t, WritePartialCAR(ctx, &car, m, []cid.Cid{root.CID}, root.CID))
	if blocks, _ := sections(t, car.Bytes()); len(blocks) > 0 {
		t.Errorf("%d nodes that are held", len(blocks))
	}
	without := unchecked(maps.Clone(m.blocks))
	delete(without, root.CID)
	if err := WritePartialCAR(ctx, &car, notFound{without}, []cid.Cid{root.CID}, RawBlock([]byte("a")).CID); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is held cannot be read: %v", err)
	}
}
