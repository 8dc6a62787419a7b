package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
)

// provable is a state with every kind of directory and document, and what is in it.
func provable(t testing.TB) (m *memory, documents map[string][]byte, state cid.Cid) {
	chunked := slices.Concat(pattern(ChunkSize), pattern(ChunkSize), []byte("rest")) // a chunk twice
	documents = map[string][]byte{
		"top": []byte("top"), "empty": nil, "large": chunked, "ünï/côde": []byte("ü"), "a/b/c/d": []byte("deep"),
	}
	for i := range 300 {
		documents[fmt.Sprintf("hamt/%030d", i)] = pattern(i)
	}
	m = newMemory()
	root, _ := buildState(t, m, documents)
	return m, documents, root.CID
}

// savepointOf puts a manifest of the state.
func savepointOf(t testing.TB, m *memory, state cid.Cid) cid.Cid {
	t.Helper()
	var golden goldenManifests
	readGolden(t, "manifests.json", &golden)
	manifest, err := DecodeManifest(unhex(t, golden.Accepted[0].Hex))
	must(t, err)
	manifest.State, manifest.Policy.Config, manifest.Resources = state, cid.Undef, cid.Undef
	b, err := manifest.Block()
	must(t, err)
	must(t, m.Put(context.Background(), b))
	return b.CID
}

func proofOf(t testing.TB, src Source, root cid.Cid, path string) []byte {
	t.Helper()
	var car bytes.Buffer
	must(t, WriteProof(context.Background(), &car, src, root, path))
	return car.Bytes()
}

func TestProof(t *testing.T) {
	ctx := context.Background()
	m, documents, state := provable(t)
	for _, root := range []cid.Cid{state, savepointOf(t, m, state)} {
		for path, want := range documents {
			var got bytes.Buffer
			doc, err := VerifyProof(ctx, bytes.NewReader(proofOf(t, m, root, path)), root, path, &got)
			if err != nil || !bytes.Equal(got.Bytes(), want) || doc.Bytes != uint64(len(want)) || doc.Path != path {
				t.Errorf("%q: %+v %v", path, doc, err)
			}
		}
		for _, path := range []string{
			"none", "none/none", "hamt/none", fmt.Sprintf("hamt/%031d", 1), "a/b", "a/b/c", "a/b/c/e", "a/b/c/d/e",
			"top/x", "empty/x", "large/x", "large/x/y", "hamt",
		} {
			if _, err := VerifyProof(ctx, bytes.NewReader(proofOf(t, m, root, path)), root, path, nil); !errors.Is(err, ErrNoDocument) {
				t.Errorf("absent %q: %v", path, err)
			}
		}
	}
}

// A proof proves one thing: not without any of its nodes, not with a changed byte,
// not of another path, not of another root.
func TestProofIsExact(t *testing.T) {
	ctx := context.Background()
	m, _, state := provable(t)
	root := savepointOf(t, m, state)
	proves := func(car []byte, root cid.Cid, path string) bool {
		_, err := VerifyProof(ctx, bytes.NewReader(car), root, path, nil)
		return err == nil || errors.Is(err, ErrNoDocument)
	}
	for _, path := range []string{"top", "a/b/c/d", fmt.Sprintf("hamt/%030d", 7), "hamt/none", "large/x"} {
		car := proofOf(t, m, root, path)
		blocks, ends := sections(t, car)
		for i := range blocks {
			var less bytes.Buffer
			must(t, writeHeader(&less, []cid.Cid{root}))
			for j, b := range blocks {
				if j != i {
					must(t, writeSection(&less, b.CID.KeyString(), b.Data))
				}
			}
			if proves(less.Bytes(), root, path) {
				t.Errorf("%q: proven without node %d", path, i)
			}
		}
		for n := range len(car) {
			if proves(car[:n], root, path) {
				t.Errorf("%q: proven by %d of %d bytes", path, n, len(car))
			}
			flipped := bytes.Clone(car)
			flipped[n] ^= 1 << (n % 8)
			if proves(flipped, root, path) && !inHeader(ends, n) {
				t.Errorf("%q: proven with byte %d flipped", path, n)
			}
		}
		for _, other := range []string{"top", "a/b/c/d", fmt.Sprintf("hamt/%030d", 8), "hamt/another"} {
			if _, err := VerifyProof(ctx, bytes.NewReader(car), root, other, nil); other != path && err == nil {
				t.Errorf("the proof of %q proves %q", path, other)
			}
		}
		if _, err := VerifyProof(ctx, bytes.NewReader(car), documentOf(m, 1, 1<<21).CID, path, nil); !errors.Is(err, ErrForeignBlock) {
			t.Errorf("%q: under another root: %v", path, err)
		}
		more := slices.Concat(car, sectionOf(t, RawBlock([]byte("foreign"))))
		if _, err := VerifyProof(ctx, bytes.NewReader(more), root, path, nil); !errors.Is(err, ErrForeignBlock) {
			t.Errorf("%q: with a foreign block: %v", path, err)
		}
	}
}

// inHeader reports whether byte n of a CAR belongs to its header, of which a
// verifier believes nothing.
func inHeader(ends map[int]bool, n int) bool { return n < slices.Min(slices.Collect(maps.Keys(ends))) }

func sectionOf(t testing.TB, b Block) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, writeSection(&out, b.CID.KeyString(), b.Data))
	return out.Bytes()
}

// A node that could show one reader another document proves nothing.
func TestProofFromNoncanonical(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		build func(m *memory, x Link) node
		paths []string
	}{
		"equal names": {func(m *memory, x Link) node { return basic(named("a", x), named("a", m.putRaw(nil))) }, []string{"a", "c", "a/b"}},
		"unsorted":    {func(m *memory, x Link) node { return basic(named("b", x), named("a", x)) }, []string{"a", "b", "c", "a/b"}},
		"another slot": {func(m *memory, x Link) node {
			return hamt(t, m, profile, []entry{{"a", nameHash("a") ^ 1<<63, x}})
		}, []string{"a", "c", "a/b"}},
		"a wrong size":        {func(m *memory, x Link) node { x.Size++; return basic(named("a", x)) }, []string{"a"}},
		"an empty collection": {func(m *memory, x Link) node { return basic(named("a", m.put(basic()))) }, []string{"a", "a/b"}},
	} {
		m := newMemory()
		root := m.put(c.build(m, m.putRaw([]byte("document"))))
		for _, path := range c.paths {
			if _, err := VerifyProof(ctx, bytes.NewReader(writeCAR(t, m, root.CID)), root.CID, path, nil); !errors.Is(err, ErrNotCanonical) {
				t.Errorf("%s: %q: %v", name, path, err)
			}
		}
	}
}

// The proof of a document among 100,000 has less than 40 kB.
func TestProofSize(t *testing.T) {
	m := newMemory()
	b := NewBuilder(m)
	ctx := context.Background()
	l := m.putRaw(pattern(2000))
	for _, path := range numberedPaths("vc_document/", 100_000, 29) {
		must(t, b.Add(ctx, path, l))
	}
	root, err := b.Finish(ctx)
	must(t, err)
	for i := 0; i < 100_000; i += 9973 {
		path := fmt.Sprintf("vc_document/%029d", i)
		car := proofOf(t, m, root.CID, path)
		if _, err := VerifyProof(ctx, bytes.NewReader(car), root.CID, path, nil); err != nil || len(car) > 40_000 {
			t.Errorf("%q: %d bytes, %v", path, len(car), err)
		}
	}
}
