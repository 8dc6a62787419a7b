package dag

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car/v2"
)

// sections returns the blocks of a CAR that is known to be whole, and the
// lengths at which it may be cut between two sections.
func sections(t testing.TB, file []byte) (blocks []Block, boundaries map[int]bool) {
	t.Helper()
	boundaries = map[int]bool{}
	for at := 0; at < len(file); {
		length, n := binary.Uvarint(file[at:])
		body := file[at+n : at+n+int(length)]
		if at > 0 {
			k, c, err := cid.CidFromBytes(body)
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, Block{c, body[k:]})
		}
		at += n + int(length)
		boundaries[at] = true
	}
	return blocks, boundaries
}

// receive copies the DAG at root from a CAR to a new store.
func receive(file io.Reader, root cid.Cid) (*memory, error) {
	m := newMemory()
	r, err := ReadCAR(file)
	if err != nil {
		return m, err
	}
	_, err = r.CopyDAG(context.Background(), m, []cid.Cid{root}, nil)
	return m, err
}

func writeCAR(t testing.TB, src Source, roots ...cid.Cid) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WriteCAR(context.Background(), &out, src, roots...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCARRoundTrip(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	documents := map[string][]byte{"big": pattern(2*ChunkSize + 1), "twice": pattern(2*ChunkSize + 1)}
	for i := range 100 {
		documents[fmt.Sprintf("c%d/%030d", i%2, i)] = pattern(i % 10)
	}
	root, totals := buildState(t, m, documents)
	other, _ := buildState(t, m, map[string][]byte{"a": nil})
	file := writeCAR(t, m, root.CID, other.CID)

	back, err := receive(bytes.NewReader(file), root.CID)
	if !errors.Is(err, ErrForeignBlock) {
		t.Errorf("the second root was not asked for: %v", err)
	}
	if _, err := VerifyState(ctx, back, root.CID, totals); err != nil {
		t.Error(err)
	}
	r, err := ReadCAR(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	all := newMemory()
	var seen Received
	got, err := r.CopyDAG(ctx, all, r.Roots, func(now Received) { seen = now })
	if err != nil || got != seen || got.Blocks != uint64(len(m.blocks)) {
		t.Errorf("%v and %v of %d IPFS blocks: %v", got, seen, len(m.blocks), err)
	}
	if again := writeCAR(t, all, root.CID, other.CID); !bytes.Equal(again, file) {
		t.Error("another CAR of the same DAGs")
	}
	blocks, _ := sections(t, file)
	var cids []cid.Cid
	for _, b := range blocks {
		cids = append(cids, b.CID)
	}
	theirs, err := car.NewBlockReader(bytes.NewReader(file))
	if err != nil || !slices.Equal(theirs.Roots, []cid.Cid{root.CID, other.CID}) {
		t.Fatalf("go-car reads the roots %v: %v", theirs.Roots, err)
	}
	for _, c := range cids {
		b, err := theirs.Next()
		if err != nil || b.Cid() != c || !bytes.Equal(b.RawData(), m.blocks[c]) {
			t.Fatalf("go-car reads another %s: %v", c, err)
		}
	}
	if _, err := theirs.Next(); err != io.EOF {
		t.Errorf("go-car reads more: %v", err)
	}
	var v2 bytes.Buffer
	if err := car.WrapV1(bytes.NewReader(file), &v2); err != nil {
		t.Fatal(err)
	}
	if r, err = ReadCAR(&v2); err != nil {
		t.Fatal(err)
	}
	if got, err := r.CopyDAG(ctx, newMemory(), r.Roots, nil); err != nil || got != seen {
		t.Errorf("CARv2: %v, not %v: %v", got, seen, err)
	}
}

// A CAR may end between two sections: then Missing has the rest. Anywhere else
// it is noticed at once.
func TestCARTruncated(t *testing.T) {
	m := newMemory()
	root, _ := buildState(t, m, map[string][]byte{"a": pattern(3), "b/c": pattern(200), "b/d": pattern(20)})
	file := writeCAR(t, m, root.CID)
	_, boundaries := sections(t, file)
	for n := range len(file) {
		got, err := receive(bytes.NewReader(file[:n]), root.CID)
		if boundaries[n] {
			if err != nil {
				t.Errorf("%d of %d bytes, between two sections: %v", n, len(file), err)
			}
		} else if !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d of %d bytes: %v", n, len(file), err)
		}
		missing, err := Missing(context.Background(), got, root.CID)
		if err != nil || len(missing) == 0 {
			t.Errorf("%d of %d bytes: missing %v: %v", n, len(file), missing, err)
		}
	}
}

// Whatever bit is flipped, no other bytes than the right ones get into the sink.
func TestCARFlippedBits(t *testing.T) {
	file := goldenFile(t, "savepoint.car")
	blocks, _ := sections(t, file)
	right := map[cid.Cid][]byte{}
	for _, b := range blocks {
		right[b.CID] = b.Data
	}
	for bit := range len(file) * 8 {
		bad := bytes.Clone(file)
		bad[bit/8] ^= 1 << (bit % 8)
		got, err := receive(bytes.NewReader(bad), blocks[0].CID)
		for c, data := range got.blocks {
			if want, ok := right[c]; !ok || !bytes.Equal(data, want) {
				t.Fatalf("bit %d: %x came in as %s", bit, data, c)
			}
		}
		if err == nil && len(got.blocks) != len(blocks) {
			t.Errorf("bit %d: %d of %d IPFS blocks came in, and no error", bit, len(got.blocks), len(blocks))
		}
	}
}

func TestCARForeignBlocks(t *testing.T) {
	file := goldenFile(t, "savepoint.car")
	blocks, _ := sections(t, file)
	write := func(blocks ...Block) []byte {
		var out bytes.Buffer
		err := writeHeader(&out, []cid.Cid{blocks[0].CID})
		for _, b := range blocks {
			err = errors.Join(err, writeSection(&out, b.CID.KeyString(), b.Data))
		}
		if err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	root, last := blocks[0].CID, len(blocks)-1
	for _, test := range []struct {
		name string
		file []byte
		want error
	}{
		{"as it was", write(blocks...), nil},
		{"an IPFS block twice", write(append(slices.Clip(blocks), blocks[last])...), nil},
		{"another at the end", write(append(slices.Clip(blocks), RawBlock([]byte("other")))...), ErrForeignBlock},
		{"another in the middle", write(slices.Insert(slices.Clone(blocks), 2, RawBlock([]byte("other")))...), ErrForeignBlock},
		{"children before parents", write(append(blocks[last:last+1:last+1], blocks[:last]...)...), ErrForeignBlock},
		{"other bytes", write(append(slices.Clip(blocks[:last]), Block{blocks[last].CID, []byte("other")})...), ErrHash},
		{"CIDv0", write(Block{cid.NewCidV0(root.Hash()), blocks[0].Data}), ErrUnsupported},
		{"a codec that is none of ours", write(Block{cid.NewCidV1(cid.DagJSON, root.Hash()), blocks[0].Data}), ErrUnsupported},
		{"an IPFS block that is too large", write(RawBlock(make([]byte, MaxBlockSize+1))), ErrUnsupported},
	} {
		if got, err := receive(bytes.NewReader(test.file), root); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.name, err)
		} else if test.want == nil && len(got.blocks) != len(blocks) {
			t.Errorf("%s: %d of %d IPFS blocks", test.name, len(got.blocks), len(blocks))
		}
	}
}

// endless repeats one byte.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

// Lengths are claims too: nothing large is allocated for them.
func TestCARClaims(t *testing.T) {
	golden := goldenFile(t, "savepoint.car")
	length, n := binary.Uvarint(golden)
	header := golden[:n+int(length)]
	uvarint := func(v uint64) []byte { return binary.AppendUvarint(nil, v) }
	section := func(body string) []byte { return append(uvarint(uint64(len(body))), body...) }
	for name, start := range map[string][]byte{
		"a length that does not end":           nil,
		"a header of 4 KiB and more":           uvarint(maxCARHeader + 1),
		"a header of 1 TiB":                    uvarint(1 << 40),
		"a header of 2^63 bytes":               uvarint(1 << 63),
		"a header that is not CBOR":            section("\xff\xff"),
		"a header with a text of 1 TiB":        section("\xa1\x7b\x00\x00\x01\x00\x00\x00\x00\x00"),
		"a header with bytes of 1 TiB":         section("\xa1\x65roots\x5b\x00\x00\x01\x00\x00\x00\x00\x00"),
		"a header with a list of 1 Ti":         section("\xa1\x65roots\x9b\x00\x00\x01\x00\x00\x00\x00\x00"),
		"a header that is a map of 1 Ti":       section("\xbb\x00\x00\x01\x00\x00\x00\x00\x00"),
		"a header of another version":          section("\xa2\x65roots\x80\x67version\x03"),
		"a section of more than an IPFS block": slices.Concat(header, uvarint(MaxBlockSize+129)),
		"a section of 1 TiB":                   slices.Concat(header, uvarint(1<<40)),
		"a section of 2^63 bytes":              slices.Concat(header, uvarint(1<<63)),
		"a section whose length does not end":  header,
		"a section of no byte":                 slices.Concat(header, uvarint(0)),
		"a section without a CID":              slices.Concat(header, uvarint(10)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := receive(io.MultiReader(bytes.NewReader(start), endless(0xff)), RawBlock(nil).CID)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTruncated) {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
}

// An error of the reader is not a fault of the CAR.
func TestCARReaderError(t *testing.T) {
	file := goldenFile(t, "savepoint.car")
	broken := errors.New("connection reset")
	for n := range len(file) {
		_, err := receive(io.MultiReader(bytes.NewReader(file[:n]), failing{broken}), sectionRoot(t, file))
		if !errors.Is(err, broken) || errors.Is(err, ErrTruncated) || errors.Is(err, ErrMalformed) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func sectionRoot(t *testing.T, file []byte) cid.Cid {
	blocks, _ := sections(t, file)
	return blocks[0].CID
}

// put writes a node as it is, canonical or not.
func (m *memory) put(n node) Link {
	b, l := n.block()
	m.blocks[b.CID] = b.Data
	return l
}

func (m *memory) putRaw(data []byte) Link {
	b := RawBlock(data)
	m.blocks[b.CID] = b.Data
	return b.link()
}

// basic is a directory node with the links as they are.
func basic(links ...pbLink) node { return node{typ: typeDirectory, links: links} }

func named(name string, l Link) pbLink { return pbLink{Name: name, Link: l} }

// hamt writes entries as a HAMT where their hash fields say, which need not be
// their hashes, and returns the root shard.
func hamt(t *testing.T, m *memory, p layout, entries []entry) node {
	t.Helper()
	l, err := p.writeHAMT(context.Background(), m, entries)
	if err != nil {
		t.Fatal(err)
	}
	n, err := decodeNode(m.blocks[l.CID])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// leafOf returns the index of a link of a shard that is an entry, or of one that
// is a shard.
func leafOf(t *testing.T, n node, leaf bool) int {
	t.Helper()
	i := slices.IndexFunc(n.links, func(l pbLink) bool { return (len(l.Name) > profile.prefixLen()) == leaf })
	if i < 0 {
		t.Fatalf("no such link: %+v", n.links)
	}
	return i
}

// Each of these states says what a canonical one says too, or contradicts
// itself; a reader that does not compare would take it.
func TestNotCanonical(t *testing.T) {
	ctx := context.Background()
	doc := RawBlock([]byte("document"))
	x := doc.link()
	many := func(n int) []entry {
		var entries []entry
		for i := range n {
			name := fmt.Sprintf("document %03d", i)
			entries = append(entries, entry{name, nameHash(name), x})
		}
		return entries
	}
	links := func(entries []entry) []pbLink {
		var out []pbLink
		for _, e := range entries {
			out = append(out, named(e.name, e.link))
		}
		return out
	}
	grown := func(l Link, by uint64) Link { return Link{l.CID, l.Size + by} }
	for name, build := range map[string]func(m *memory) node{
		"equal names":    func(m *memory) node { return basic(named("a", x), named("a", m.putRaw(nil))) },
		"unsorted names": func(m *memory) node { return basic(named("b", x), named("a", x)) },
		"an empty name":  func(m *memory) node { return basic(named("", x)) },
		"a dot":          func(m *memory) node { return basic(named(".", x)) },
		"two dots":       func(m *memory) node { return basic(named("..", x)) },
		"a slash":        func(m *memory) node { return basic(named("a/b", x)) },
		"NUL":            func(m *memory) node { return basic(named("a\x00", x)) },
		"not UTF-8":      func(m *memory) node { return basic(named("\xff", x)) },
		"a long name":    func(m *memory) node { return basic(named(strings.Repeat("n", 256), x)) },
		"colliding names": func(m *memory) node {
			a, b := collidingNames(t)
			return basic(named(min(a, b), x), named(max(a, b), x))
		},
		"basic where a HAMT is due":  func(m *memory) node { return basic(links(many(100))...) },
		"a HAMT where basic is due":  func(m *memory) node { return hamt(t, m, profile, many(50)) },
		"a HAMT of one":              func(m *memory) node { return hamt(t, m, profile, many(1)) },
		"fan-out 8":                  func(m *memory) node { return hamt(t, m, layout{8, 0}, many(100)) },
		"fan-out 32":                 func(m *memory) node { return hamt(t, m, layout{32, 0}, many(100)) },
		"fan-out 256":                func(m *memory) node { return hamt(t, m, layout{256, 0}, many(100)) },
		"a HAMT without entries":     func(m *memory) node { return node{typ: typeHAMTShard, hashType: hashMurmur3, fanout: Fanout} },
		"another hash function":      func(m *memory) node { n := hamt(t, m, profile, many(100)); n.hashType = 0x12; return n },
		"a HAMT link without a slot": func(m *memory) node { n := hamt(t, m, profile, many(100)); n.links[0].Name = ""; return n },
		"a slot in lower case": func(m *memory) node {
			n := hamt(t, m, profile, many(100))
			last := &n.links[len(n.links)-1].Name
			*last = strings.ToLower((*last)[:1]) + (*last)[1:]
			return n
		},
		"an entry in another slot": func(m *memory) node {
			entries := many(100)
			entries[0].hash ^= 1 << 63
			return hamt(t, m, profile, entries)
		},
		"an entry in another slot of a child": func(m *memory) node {
			entries := many(100)
			entries[0].hash ^= 1 << 57
			return hamt(t, m, profile, entries)
		},
		"a name in two slots": func(m *memory) node {
			entries := many(100)
			twin := entries[0]
			twin.hash ^= 1 << 63
			return hamt(t, m, profile, append(entries, twin))
		},
		"a slot that the bitfield lacks": func(m *memory) node {
			n := hamt(t, m, profile, many(100))
			n.data = bytes.Clone(n.data)
			n.data[0] ^= 1
			return n
		},
		"a bitfield with leading zeros": func(m *memory) node {
			n := hamt(t, m, profile, many(100))
			n.data = append([]byte{0}, n.data...)
			return n
		},
		"a child shard of one entry": func(m *memory) node {
			n := hamt(t, m, profile, many(55)[:40])
			i := leafOf(t, n, true)
			name := n.links[i].Name[1:]
			var blocks []Block
			child, err := profile.layOut([]entry{newEntry(name, x)}, 4, &blocks)
			if err != nil {
				t.Fatal(err)
			}
			m.blocks[child.CID] = blocks[0].Data
			n.links[i] = named(n.links[i].Name[:1], child)
			return n
		},
		"a basic directory in place of a shard": func(m *memory) node {
			n := hamt(t, m, profile, many(100))
			n.links[leafOf(t, n, false)].Link = m.put(basic(named("a", x)))
			return n
		},
		"a wrong size of a document of more than one chunk": func(m *memory) node {
			first, last := m.putRaw(pattern(ChunkSize)), m.putRaw([]byte("rest"))
			n, _ := fileNode([]subtree{{first, ChunkSize}, {last, 4}})
			return basic(named("a", grown(m.put(n), 1)))
		},
		"a document in place of a shard": func(m *memory) node {
			n := hamt(t, m, profile, many(100))
			n.links[leafOf(t, n, false)].Link = x
			return n
		},
		"a wrong size of a shard": func(m *memory) node {
			n := hamt(t, m, profile, many(100))
			i := leafOf(t, n, false)
			n.links[i].Link = grown(n.links[i].Link, 1)
			return n
		},
		"a wrong size of a collection": func(m *memory) node {
			return basic(named("c", grown(m.put(basic(named("a", x))), 1)))
		},
		"a wrong size of a document": func(m *memory) node { return basic(named("a", grown(x, 1))) },
		"sizes that add up to more than 64 bits": func(m *memory) node {
			return basic(named("a", x), named("b", grown(x, math.MaxUint64-3)))
		},
		"an empty collection": func(m *memory) node { return basic(named("a", x), named("c", m.put(basic()))) },
		"a manifest in the state": func(m *memory) node {
			b := newBlock(codecDC, []byte{0xa0})
			m.blocks[b.CID] = b.Data
			return basic(named("a", b.link()))
		},
		"a UnixFS symlink":        func(m *memory) node { return basic(named("a", m.put(node{typ: 4}))) },
		"a UnixFS raw node":       func(m *memory) node { return basic(named("a", m.put(node{typ: 0}))) },
		"a document as the state": func(m *memory) node { n, _ := fileNode([]subtree{{x, 8}}); return n },
		"a document of one chunk that is not raw": func(m *memory) node {
			n, _ := fileNode([]subtree{{x, 8}})
			return basic(named("a", m.put(n)))
		},
		"17 names": func(m *memory) node {
			n := basic(named("d", x))
			for range MaxNames {
				n = basic(named("d", m.put(n)))
			}
			return n
		},
		// A chain that says of a document of 8 bytes what would be 16^15 entries.
		"shards that link one shard 16 times": func(m *memory) node {
			n := hamt(t, m, profile, many(1))
			for range 15 {
				child := m.put(n)
				n = node{typ: typeHAMTShard, hashType: hashMurmur3, fanout: Fanout, data: []byte{0xff, 0xff}}
				for slot := range Fanout {
					n.links = append(n.links, named(profile.prefix(slot), child))
				}
			}
			return n
		},
	} {
		m := newMemory()
		m.blocks[doc.CID] = doc.Data
		n := build(m)
		root := m.put(n)
		limit := Totals{1000, math.MaxUint64}
		if _, err := VerifyState(ctx, m, root.CID, limit); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: verified: %v", name, err)
		}
		// The lengths of documents are for those who read their bytes.
		if strings.HasPrefix(name, "a wrong size of a document") || strings.HasPrefix(name, "sizes that") {
			continue
		}
		var last error
		for _, err := range Documents(ctx, m, root.CID) {
			last = err
		}
		if !errors.Is(last, ErrNotCanonical) {
			t.Errorf("%s: listed: %v", name, last)
		}
	}
}

func TestDocumentNotCanonical(t *testing.T) {
	ctx := context.Background()
	chunk, rest := pattern(ChunkSize), []byte("rest")
	for name, build := range map[string]func(a, b subtree) node{
		"chunks in small parts": func(a, b subtree) node { n, _ := fileNode([]subtree{b, a}); return n },
		"a part too many":       func(a, b subtree) node { n, _ := fileNode([]subtree{a, b, b}); return n },
		"a name":                func(a, b subtree) node { n, _ := fileNode([]subtree{a, b}); n.links[1].Name = "x"; return n },
		"a wrong size":          func(a, b subtree) node { n, _ := fileNode([]subtree{a, b}); n.links[1].Size++; return n },
		"a wrong length":        func(a, b subtree) node { n, _ := fileNode([]subtree{a, b}); n.filesize++; return n },
		"wrong lengths":         func(a, b subtree) node { a.bytes--; b.bytes++; n, _ := fileNode([]subtree{a, b}); return n },
		"a length too few":      func(a, b subtree) node { n, _ := fileNode([]subtree{a, b}); n.blocksizes = n.blocksizes[:1]; return n },
		"a length of 2^60":      func(a, b subtree) node { a.bytes, b.bytes = 1<<60, 0; n, _ := fileNode([]subtree{a, b}); return n },
		"a length over 2^60":    func(a, b subtree) node { a.bytes, b.bytes = 1<<60, 1; n, _ := fileNode([]subtree{a, b}); return n },
		"a length of 2^64 - 1": func(a, b subtree) node {
			a.bytes, b.bytes = math.MaxUint64, 0
			n, _ := fileNode([]subtree{a, b})
			return n
		},
		"no part": func(a, b subtree) node { return node{typ: typeFile, filesize: ChunkSize + 1} },
	} {
		m := newMemory()
		a, b := m.putRaw(chunk), m.putRaw(rest)
		file := m.put(build(subtree{a, ChunkSize}, subtree{b, uint64(len(rest))}))
		if _, err := CopyDocument(ctx, m, file, io.Discard); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: copied: %v", name, err)
		}
		// A length so large that one more byte makes the sum small again.
		root := m.put(basic(named("a", b), named("b", file)))
		if _, err := VerifyState(ctx, m, root.CID, Totals{9, 1 << 40}); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: verified: %v", name, err)
		}
	}
}

// unchecked is a source that does not keep its promise to compare hashes.
type unchecked map[cid.Cid][]byte

func (u unchecked) Get(_ context.Context, c cid.Cid) ([]byte, error) { return u[c], nil }

// A shard that links itself from every slot ends after as many levels as a hash
// has, not after 16 to the power of that.
func TestShardLinksItself(t *testing.T) {
	n := node{typ: typeHAMTShard, hashType: hashMurmur3, fanout: Fanout, data: []byte{0xff, 0xff}}
	self := newBlock(codecPB, nil).link()
	for slot := range Fanout {
		n.links = append(n.links, named(profile.prefix(slot), self))
	}
	src := unchecked{self.CID: n.encode()}
	if _, err := VerifyState(context.Background(), src, self.CID, Totals{1, 1}); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("verified: %v", err)
	}
}

// Collections that link one collection many times are canonical. Their cost is
// that of the state they claim to be, which the limit bounds.
func TestVerifyStateLimit(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	l := m.putRaw([]byte("document"))
	for range MaxNames {
		var links []pbLink
		for i := range 10 {
			links = append(links, named(fmt.Sprint(i), l))
		}
		l = m.put(basic(links...))
	}
	got, err := VerifyState(ctx, m, l.CID, Totals{100, 1 << 40})
	if !errors.Is(err, ErrNotCanonical) || got.Documents > 101 {
		t.Errorf("%v: %v", got, err)
	}
}

// A path that leads through a document, or to a collection, names no document.
func TestReadDocumentNotFound(t *testing.T) {
	m := newMemory()
	root, _ := buildState(t, m, map[string][]byte{"a": nil, "big": pattern(ChunkSize + 1), "c/d": nil})
	for _, path := range []string{"b", "a/b", "a/b/c", "big/b", "c", "c/e", "c/d/e"} {
		if _, err := ReadDocument(context.Background(), m, root.CID, path); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", path, err)
		}
	}
}
