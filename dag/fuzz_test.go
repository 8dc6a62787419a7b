package dag

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

func isOneOf(err error, sentinels ...error) bool {
	return slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) })
}

// addNodes adds the dag-pb nodes of the golden states as examples.
func addNodes(f *testing.F) {
	var states []goldenState
	readGolden(f, "states.json", &states)
	m := newMemory()
	for _, s := range states {
		if len(s.Documents) > 60 {
			continue // enough has been seen by then
		}
		documents := map[string][]byte{}
		for path, d := range s.Documents {
			documents[path] = d.bytes()
		}
		buildState(f, m, documents)
	}
	for c, data := range m.blocks {
		if c.Prefix().Codec == codecPB {
			f.Add(data)
		}
	}
}

// What the scanner accepts, boxo accepts too and finds the same links in.
func FuzzScanNode(f *testing.F) {
	addNodes(f)
	f.Add(slices.Concat([]byte{0x12, 0x2b, 0x0a, cidLen}, RawBlock(nil).CID.Bytes(), []byte{0x12, 1, 'n', 0x18, 0x80, 0x01, 0x0a, 0}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var links []rawLink[[]byte]
		inner, err := scanNode(data, func(l rawLink[[]byte]) error {
			links = append(links, l)
			return nil
		})
		if err != nil {
			if !errors.Is(err, ErrNotCanonical) {
				t.Fatal(err)
			}
			return
		}
		theirs, err := merkledag.DecodeProtobuf(data)
		if err != nil {
			t.Fatalf("boxo refuses %x: %v", data, err)
		}
		if len(theirs.Links()) != len(links) || !bytes.Equal(theirs.Data(), inner) {
			t.Fatalf("%d links and data %x, boxo says %d and %x", len(links), inner, len(theirs.Links()), theirs.Data())
		}
		for i, l := range theirs.Links() {
			if got := links[i]; !bytes.Equal(got.cid, l.Cid.Bytes()) || string(got.name) != l.Name || got.size != l.Size {
				t.Fatalf("link %d is %v, boxo says %v", i, got, l)
			}
		}
	})
}

// A directory of one node that is accepted is what its own entries make, and
// boxo lists the same.
func FuzzDirectory(f *testing.F) {
	addNodes(f)
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMemory()
		b := newBlock(codecPB, data)
		m.blocks[b.CID] = data
		d, err := openState(ctx, m, b.CID)
		var entries []entry
		if err == nil {
			entries, err = d.entries(ctx)
		}
		if err != nil {
			// A HAMT's other shards are not there.
			if !isOneOf(err, ErrNotCanonical, ErrNotFound) {
				t.Fatal(err)
			}
			return
		}
		again, err := profile.writeDirectory(ctx, Discard, slices.Clone(entries))
		if err != nil || again != d.link {
			t.Fatalf("%v, laid out again from its entries %v (%v)", d.link, again, err)
		}
		theirs, err := merkledag.DecodeProtobuf(data)
		if err != nil {
			t.Fatalf("boxo refuses %x: %v", data, err)
		}
		listed, err := uio.NewDirectoryFromNode(newBoxo(), theirs)
		if err != nil {
			t.Fatalf("boxo refuses the directory %x: %v", data, err)
		}
		links, err := listed.Links(ctx)
		if err != nil || len(links) != len(entries) {
			t.Fatalf("%d entries, boxo says %d (%v)", len(entries), len(links), err)
		}
		slices.SortFunc(links, func(a, b *ipld.Link) int { return strings.Compare(a.Name, b.Name) })
		for i, l := range links {
			if e := entries[i]; e.name != l.Name || e.link.CID != l.Cid {
				t.Fatalf("entry %d is %v, boxo says %v", i, e, l)
			}
		}
	})
}

// Whatever changes are made in whatever batches, the state is that of the
// documents that are left.
func FuzzEditor(f *testing.F) {
	f.Add([]byte("put a few, delete some, put others"))
	f.Add(bytes.Repeat([]byte{0x80, 0x41, 0x42}, 200))
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, ops []byte) {
		m := newMemory()
		left := map[string]Link{}
		root := cid.Undef
		for batch := range slices.Chunk(ops, 64) {
			var e Editor
			for i, op := range batch {
				// Names of 200 bytes make HAMTs of few documents.
				path := fmt.Sprintf("c%d/%0200d", op&1, op>>1&0x3f)
				l := Link{}
				if op&0x80 == 0 {
					l = Link{RawBlock([]byte{op, byte(i)}).CID, uint64(op) * uint64(i)}
				}
				if err := e.set(path, l); err != nil {
					t.Fatal(err)
				}
				if l.CID.Defined() {
					left[path] = l
				} else {
					delete(left, path)
				}
			}
			l, err := e.Apply(ctx, m, m, root)
			if err != nil {
				t.Fatal(err)
			}
			b := NewBuilder(Discard)
			for _, path := range slices.Sorted(maps.Keys(left)) {
				if err := b.Add(ctx, path, left[path]); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := b.Finish(ctx); err != nil || l != want {
				t.Fatalf("edited it is %v, built %v (%v)", l, want, err)
			}
			root = l.CID
		}
	})
}

// No CAR makes a reader of a proof believe anything but the truth.
func FuzzVerifyProof(f *testing.F) {
	ctx := context.Background()
	documents := map[string][]byte{}
	for i := range 100 {
		documents[fmt.Sprintf("c/%030d", i)] = pattern(i)
	}
	m := newMemory()
	root, _ := buildState(f, m, documents)
	paths := []string{"c/" + strings.Repeat("0", 30), "c/absent", "absent/x"}
	for _, path := range paths {
		var car bytes.Buffer
		if err := WriteProof(ctx, &car, m, root.CID, path); err != nil {
			f.Fatal(err)
		}
		f.Add(car.Bytes())
	}
	f.Fuzz(func(t *testing.T, car []byte) {
		for _, path := range paths {
			var got bytes.Buffer
			_, err := VerifyProof(ctx, bytes.NewReader(car), root.CID, path, &got)
			want, there := documents[path]
			if err == nil && (!there || !bytes.Equal(got.Bytes(), want)) || errors.Is(err, ErrNoDocument) && there {
				t.Fatalf("%q: %x (%v)", path, got.Bytes(), err)
			}
		}
	})
}

// Whatever is accepted, boxo accepts too and understands alike.
func FuzzDecodeNode(f *testing.F) {
	addNodes(f)
	// Types that no save point has; boxo takes the last for a directory.
	for _, typ := range []uint64{0, 3, 4, 7, 1<<32 | typeDirectory} {
		f.Add(node{typ: typ}.encode())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := decodeNode(data)
		if err != nil {
			if !errors.Is(err, ErrNotCanonical) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(n.encode(), data) {
			t.Fatalf("%x encoded again as %x", data, n.encode())
		}
		theirs, err := merkledag.DecodeProtobuf(data)
		if err != nil {
			t.Fatalf("boxo refuses %x: %v", data, err)
		}
		if len(theirs.Links()) != len(n.links) {
			t.Fatalf("%d links, boxo says %d", len(n.links), len(theirs.Links()))
		}
		for i, l := range theirs.Links() {
			if got := n.links[i]; got.CID.cid() != l.Cid || got.Name != l.Name || got.Size != l.Size {
				t.Fatalf("link %d is %v, boxo says %v", i, got, l)
			}
		}
		fs, err := unixfs.FSNodeFromBytes(theirs.Data())
		if err != nil {
			t.Fatalf("boxo refuses UnixFS %x: %v", theirs.Data(), err)
		}
		if uint64(fs.Type()) != n.typ || fs.HashType() != n.hashType || fs.Fanout() != n.fanout ||
			!slices.Equal(fs.BlockSizes(), n.blocksizes) || !bytes.Equal(fs.Data(), n.data) ||
			n.typ == typeFile && fs.FileSize() != n.filesize {
			t.Fatalf("%+v, boxo says otherwise of %x", n, theirs.Data())
		}
	})
}

func FuzzDecodeManifest(f *testing.F) {
	var golden goldenManifests
	readGolden(f, "manifests.json", &golden)
	for _, g := range golden.Accepted {
		f.Add(unhex(f, g.Hex))
	}
	for _, g := range golden.Refused {
		f.Add(unhex(f, g.Hex))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeManifest(data)
		if err != nil {
			if !isOneOf(err, ErrNotCanonical, ErrUnsupported, ErrManifest, ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		b, err := m.Block()
		if err != nil || !bytes.Equal(b.Data, data) {
			t.Fatalf("%x encoded again as %x: %v", data, b.Data, err)
		}
		if _, err := Links(b); err != nil {
			// Unknown fields may link what no save point has.
			if !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
		}
	})
}

func FuzzReadCAR(f *testing.F) {
	file := goldenFile(f, "savepoint.car")
	f.Add(file)
	f.Add(file[:len(file)/2])
	blocks, _ := sections(f, file)
	var two bytes.Buffer
	if err := errors.Join(writeHeader(&two, nil), writeSection(&two, blocks[0].CID.KeyString(), blocks[0].Data)); err != nil {
		f.Fatal(err)
	}
	f.Add(two.Bytes())
	// The pragma and the header of a CARv2, then the CARv1.
	f.Add(slices.Concat([]byte("\x0a\xa1\x67version\x02"), make([]byte, 16),
		[]byte{51, 0, 0, 0, 0, 0, 0, 0}, []byte{byte(two.Len()), byte(two.Len() >> 8), 0, 0, 0, 0, 0, 0},
		make([]byte, 8), two.Bytes()))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadCAR(bytes.NewReader(data))
		if err != nil {
			if !isOneOf(err, ErrTruncated, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		m := newMemory()
		if _, err := r.CopyDAG(context.Background(), m, r.Roots, nil); err != nil {
			if !isOneOf(err, ErrTruncated, ErrMalformed, ErrHash, ErrUnsupported, ErrForeignBlock, ErrNotCanonical) {
				t.Fatal(err)
			}
		}
		for c, data := range m.blocks {
			if err := (Block{c, data}).Check(); err != nil {
				t.Fatal(err)
			}
		}
		if all, err := ReadCAR(bytes.NewReader(data)); err == nil {
			for err == nil {
				_, err = all.Next()
			}
			if err != io.EOF && !isOneOf(err, ErrTruncated, ErrMalformed, ErrHash, ErrUnsupported) {
				t.Fatal(err)
			}
		}
	})
}

func FuzzSplitPath(f *testing.F) {
	var states []struct{ Documents map[string]json.RawMessage }
	readGolden(f, "states.json", &states)
	for _, s := range states {
		for path := range s.Documents {
			f.Add(path)
		}
	}
	for _, path := range []string{"", "/", "a//b", "a/", ".", "a/..", "\x00", "\xff", strings.Repeat("a/", MaxNames) + "a"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		names, err := SplitPath(path)
		if err != nil {
			if !errors.Is(err, ErrName) {
				t.Fatal(err)
			}
			if err := new(Editor).Put(path, RawBlock(nil).link()); !errors.Is(err, ErrName) {
				t.Fatalf("%q is refused, and yet a document can have it: %v", path, err)
			}
			return
		}
		if strings.Join(names, "/") != path {
			t.Fatalf("%q is split into %q", path, names)
		}
		m := newMemory()
		root, _ := buildState(t, m, map[string][]byte{path: []byte(path)})
		if got, err := ReadDocument(context.Background(), m, root.CID, path); err != nil || string(got) != path {
			t.Fatalf("%q comes back as %q: %v", path, got, err)
		}
	})
}
