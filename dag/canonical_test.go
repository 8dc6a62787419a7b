package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

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

func named(name string, l Link) pbLink { return newLink("", name, l) }

// hamt writes entries as a HAMT where their hash fields say, which need not be
// their hashes, and returns the root shard.
func hamt(t *testing.T, m *memory, p layout, entries []entry) node {
	t.Helper()
	slices.SortFunc(entries, byHash)
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

// reasons are what the errors of TestNotCanonical say, by the names of its states.
var reasons = map[string]string{
	"an empty name":                           `unusable name: empty`,
	"basic where a HAMT is due":               `a basic node of more than 4096 bytes, where a HAMT is due`,
	"a basic directory in place of a shard":   `UnixFS type 1 in place of a shard`,
	"a document of one chunk that is not raw": `is not a document of more than one chunk`,
	"shards that link one shard 16 times":     `is in another slot than its hash says`,
	"colliding names":                         `names collide`,
	"a HAMT of one":                           `a HAMT, where a basic node of at most 4096 bytes is due`,
	"a HAMT where basic is due":               `a HAMT, where a basic node of at most 4096 bytes is due`,
	"fan-out 8":                               `fan-out 8, not 16`,
	"fan-out 32":                              `fan-out 32, not 16`,
	"fan-out 256":                             `fan-out 256, not 16`,
	"a document in place of a shard":          `is not a UnixFS node`,
	"a wrong size of a shard":                 `says 266 bytes, its nodes have 265`,
	"equal names":                             `name "a" after "a"`,
	"NUL":                                     `holds a slash or NUL`,
	"a slash":                                 `holds a slash or NUL`,
	"a wrong size of a collection":            `says 58 bytes, its nodes have 57`,
	"a UnixFS raw node":                       `UnixFS type 0`,
	"a UnixFS symlink":                        `UnixFS type 4`,
	"a document as the state":                 `is not a document of more than one chunk`,
	"unsorted names":                          `name "a" after "b"`,
	"a dot":                                   `unusable name: "."`,
	"two dots":                                `unusable name: ".."`,
	"another hash function":                   `hash function 0x12, not 0x22`,
	"an empty collection":                     `an empty collection`,
	"a HAMT link without a slot":              `has no slot`,
	"a slot in lower case":                    `link "f" has no slot`,
	"an entry in another slot":                `"document 000" is in another slot than its hash says`,
	"an entry in another slot of a child":     `"document 000" is in another slot than its hash says`,
	"a name in two slots":                     `"document 000" is in another slot than its hash says`,
	"sizes that add up to more than 63 bits":  `has 8 bytes where 4 belong`,
	"a long name":                             `has 256 bytes, more than 255`,
	"a HAMT without entries":                  `a shard without links`,
	"a slot that the bitfield lacks":          `of other slots than the links'`,
	"a bitfield with leading zeros":           `bitfield 00ffff`,
	"a wrong size of a document":              `has 8 bytes where 9 belong`,
	"a wrong size of a document of more than one chunk": `says 1048685 bytes, its nodes have 1048684`,
	"a manifest in the state":                           `is not a UnixFS node`,
	"not UTF-8":                                         `is not UTF-8`,
	"a child shard of one entry":                        `a shard of the one entry "document 010"`,
	"17 names":                                          `more than 16 names deep`,
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
		"fan-out 8":                  func(m *memory) node { return hamt(t, m, layout{fanout: 8, threshold: 0}, many(100)) },
		"fan-out 32":                 func(m *memory) node { return hamt(t, m, layout{fanout: 32, threshold: 0}, many(100)) },
		"fan-out 256":                func(m *memory) node { return hamt(t, m, layout{fanout: 256, threshold: 0}, many(100)) },
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
			w := shardWriter{layout: profile}
			child, err := w.layOut([]entry{newEntry(name, x)}, 4)
			if err != nil {
				t.Fatal(err)
			}
			m.blocks[child.CID] = w.blocks[0].Data
			n.links[i] = named(n.links[i].Name[:1], child)
			return n
		},
		"a basic directory in place of a shard": func(m *memory) node {
			n := hamt(t, m, profile, many(100))
			i := leafOf(t, n, false)
			n.links[i] = named(n.links[i].Name, m.put(basic(named("a", x))))
			return n
		},
		"a wrong size of a document of more than one chunk": func(m *memory) node {
			first, last := m.putRaw(pattern(ChunkSize)), m.putRaw([]byte("rest"))
			n, _ := fileNode([]subtree{{first, ChunkSize}, {last, 4}})
			return basic(named("a", grown(m.put(n), 1)))
		},
		"a document in place of a shard": func(m *memory) node {
			n := hamt(t, m, profile, many(100))
			i := leafOf(t, n, false)
			n.links[i] = named(n.links[i].Name, x)
			return n
		},
		"a wrong size of a shard": func(m *memory) node {
			n := hamt(t, m, profile, many(100))
			i := leafOf(t, n, false)
			n.links[i].Size++
			return n
		},
		"a wrong size of a collection": func(m *memory) node {
			return basic(named("c", grown(m.put(basic(named("a", x))), 1)))
		},
		"a wrong size of a document": func(m *memory) node { return basic(named("a", grown(x, 1))) },
		"sizes that add up to more than 63 bits": func(m *memory) node {
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
		// A chain that says of a document of 8 bytes what would be 16^12 entries.
		"shards that link one shard 16 times": func(m *memory) node {
			n := hamt(t, m, profile, many(1))
			for range 12 {
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
		// Below collections the error says where it is and why it is refused.
		outer := m.put(basic(named("outer", m.put(basic(named("inner", root))))))
		reason, ok := reasons[name]
		_, err := VerifyState(ctx, m, outer.CID, limit)
		if !ok || err == nil || !strings.Contains(err.Error(), `"outer/inner`) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v does not say where, and %q", name, err, reason)
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

// Names whose hashes are equal cannot be told apart below the last bit of a hash,
// however deep their shards lie.
func TestShardBelowTheLastBit(t *testing.T) {
	a, b := collidingNames(t)
	m := newMemory()
	doc := m.putRaw(nil)
	shard := func(links ...pbLink) node {
		n := node{typ: typeHAMTShard, hashType: hashMurmur3, fanout: Fanout, links: links}
		slots := profile.bitfieldOf(links)
		n.data = slots.bytes()
		return n
	}
	named := func(slot int, name string, l Link) pbLink { return newLink(profile.prefix(slot), name, l) }
	l := m.put(shard(named(0, a, doc), named(1, b, doc)))
	for used := hashBits - profile.width(); used >= 0; used -= profile.width() {
		l = m.put(shard(named(profile.slot(nameHash(a), used), "", l)))
	}
	_, err := VerifyState(context.Background(), m, l.CID, Totals{9, 9})
	if !errors.Is(err, ErrNotCanonical) || !strings.Contains(err.Error(), "below the last bit") {
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

// A state that is larger than it should be is not read to its end.
func TestVerifyStateBytes(t *testing.T) {
	m := newMemory()
	root, totals := buildState(t, m, map[string][]byte{"a": pattern(10), "b": pattern(20)})
	for bytes, ok := range map[uint64]bool{totals.Bytes: true, totals.Bytes - 1: false, 0: false} {
		_, err := VerifyState(context.Background(), m, root.CID, Totals{2, bytes})
		if ok != (err == nil) || !ok && !errors.Is(err, ErrNotCanonical) {
			t.Errorf("at most %d bytes: %v", bytes, err)
		}
	}
}

// checked is a source of which some documents were read a moment ago.
type checked struct {
	*reads
	lengths map[cid.Cid]int
}

func (c checked) Checked(k cid.Cid) (int, bool) {
	n, ok := c.lengths[k]
	return n, ok
}

// Documents that were compared with their CIDs already are not read once more, unless
// they are not what the directories say.
func TestVerifyStateOfChecked(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	a, big := pattern(10), pattern(2*ChunkSize+5)
	root, totals := buildState(t, m, map[string][]byte{"a": a, "b": pattern(20), "big": big})
	src := checked{counting(m), map[cid.Cid]int{RawBlock(a).CID: 10, RawBlock(big[:ChunkSize]).CID: ChunkSize}}
	if got, err := VerifyState(ctx, src, root.CID, totals); err != nil || got != totals {
		t.Fatalf("%v, %v", got, err)
	}
	for c := range src.lengths {
		if src.of[c] > 0 {
			t.Errorf("%s was read once more", c)
		}
	}
	for _, data := range [][]byte{pattern(20), big[ChunkSize : 2*ChunkSize], big[2*ChunkSize:]} {
		if c := RawBlock(data).CID; src.of[c] == 0 && src.lengths[c] == 0 {
			t.Errorf("%s was not read", c)
		}
	}
	// Of another length than the directory says, it is read, and what is wrong shows.
	n := basic(named("a", Link{RawBlock(a).CID, 11}))
	wrong := m.put(n)
	if _, err := VerifyState(ctx, src, wrong.CID, Totals{1, 100}); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("a wrong length: %v", err)
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
