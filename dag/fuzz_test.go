package dag

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
)

func isOneOf(err error, sentinels ...error) bool {
	return slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) })
}

// Whatever is accepted, boxo accepts too and understands alike.
func FuzzDecodeNode(f *testing.F) {
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
			if got := n.links[i]; got.CID != l.Cid || got.Name != l.Name || got.Size != l.Size {
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
	if err := errors.Join(writeHeader(&two, nil), writeSection(&two, blocks[0].CID.Bytes(), blocks[0].Data)); err != nil {
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
			if err := NewTree().Set(path, Link{}); !errors.Is(err, ErrName) {
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
