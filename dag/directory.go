package dag

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
)

// The two numbers of the CID profile ipfs-savepoint/v1 that differ from
// unixfs-v1-2025. docs/formats.md has the measurements they were chosen by.
const (
	// Profile names the rules by which a set of documents becomes a CID.
	Profile = "ipfs-savepoint/v1"
	// Fanout is the number of slots of a HAMT shard.
	Fanout = 16
	// DirectoryThreshold is the length in bytes of the longest basic
	// directory node; a directory that would be longer is a HAMT.
	DirectoryThreshold = 4 << 10
)

// layout is the form of directories. Only the tests that measure other numbers
// use another than profile.
type layout struct {
	fanout    int // a power of two, 8 to 256
	threshold int
}

var profile = layout{fanout: Fanout, threshold: DirectoryThreshold}

// hashBits is the length of nameHash.
const hashBits = 64

// entry is one name of a directory.
type entry struct {
	name string
	hash uint64
	link Link
}

// writeDirectory writes the nodes of the directory with the given entries to
// sink and returns the link to it. It sorts entries. Every directory form
// follows from the set of entries alone.
func (p layout) writeDirectory(ctx context.Context, sink Sink, entries []entry) (Link, error) {
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	if err := checkEntries(entries); err != nil {
		return Link{}, err
	}
	n := node{typ: typeDirectory, links: make([]pbLink, 0, len(entries))}
	size := len(node{typ: typeDirectory}.encode())
	for _, e := range entries {
		l := pbLink{Name: e.name, Link: e.link}
		if size += linkLen(l); size > p.threshold {
			return p.writeHAMT(ctx, sink, entries)
		}
		n.links = append(n.links, l)
	}
	b, l := n.block()
	return l, sink.Put(ctx, b)
}

// checkEntries refuses equal names and equal hashes in a list sorted by name.
func checkEntries(entries []entry) error {
	byHash := make(map[uint64]string, len(entries))
	for i, e := range entries {
		if i > 0 && entries[i-1].name == e.name {
			return fmt.Errorf("%w: %q twice in one directory", ErrName, e.name)
		}
		if other, ok := byHash[e.hash]; ok {
			return fmt.Errorf("%w: %q and %q", ErrNameCollision, other, e.name)
		}
		byHash[e.hash] = e.name
	}
	return nil
}

func (p layout) writeHAMT(ctx context.Context, sink Sink, entries []entry) (Link, error) {
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.hash, b.hash) })
	return p.writeShard(ctx, sink, entries, 0)
}

// writeShard writes the shard of the entries, which are sorted by hash and agree
// in the first `used` bits of it.
func (p layout) writeShard(ctx context.Context, sink Sink, entries []entry, used int) (Link, error) {
	width := bits.Len(uint(p.fanout - 1))
	if used+width > hashBits {
		return Link{}, fmt.Errorf("%w: %q and %q", ErrNameCollision, entries[0].name, entries[1].name)
	}
	n := node{
		typ: typeHAMTShard, hashType: hashMurmur3, fanout: uint64(p.fanout),
		data: make([]byte, p.fanout/8),
	}
	for len(entries) > 0 {
		slot := p.slot(entries[0].hash, used)
		end := 1
		for end < len(entries) && p.slot(entries[end].hash, used) == slot {
			end++
		}
		// The bitfield is big-endian: slot 0 is the lowest bit of the last byte.
		n.data[len(n.data)-1-slot/8] |= 1 << (slot % 8)
		l := pbLink{Name: p.prefix(slot) + entries[0].name, Link: entries[0].link}
		if end > 1 {
			child, err := p.writeShard(ctx, sink, entries[:end], used+width)
			if err != nil {
				return Link{}, err
			}
			l = pbLink{Name: p.prefix(slot), Link: child}
		}
		n.links = append(n.links, l)
		entries = entries[end:]
	}
	n.data = bytes.TrimLeft(n.data, "\x00") // UnixFS writes no leading zero bytes
	b, l := n.block()
	return l, sink.Put(ctx, b)
}

// slot is the part of a hash that chooses the slot of a shard after `used` bits,
// counted from the most significant one.
func (p layout) slot(hash uint64, used int) int {
	width := bits.Len(uint(p.fanout - 1))
	return int(hash << used >> (hashBits - width))
}

// prefix is how the name of a shard's link begins: the slot in upper-case hex,
// as wide as the largest slot.
func (p layout) prefix(slot int) string { return fmt.Sprintf("%0*X", p.prefixLen(), slot) }

func (p layout) prefixLen() int { return (bits.Len(uint(p.fanout-1)) + 3) / 4 }

// readDirectory returns the entries of the directory at link, sorted by name. It
// accepts only the nodes that writeDirectory makes from those entries.
func (p layout) readDirectory(ctx context.Context, src Source, link Link) ([]entry, error) {
	n, err := getNode(ctx, src, link.CID)
	if err != nil {
		return nil, err
	}
	var entries []entry
	switch n.typ {
	case typeDirectory:
		for _, l := range n.links {
			entries = append(entries, entry{l.Name, nameHash(l.Name), l.Link})
		}
	case typeHAMTShard:
		if entries, err = p.readShard(ctx, src, n, nil, 0, 0); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%w: %s is not a directory (UnixFS type %d)", ErrNotCanonical, link.CID, n.typ)
	}
	for _, e := range entries {
		if err := CheckName(e.name); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrNotCanonical, link.CID, err)
		}
	}
	again, err := p.writeDirectory(ctx, Discard, entries)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotCanonical, link.CID, err)
	}
	if again.CID != link.CID {
		return nil, fmt.Errorf("%w: directory %s, laid out from its own entries, is %s", ErrNotCanonical, link.CID, again.CID)
	}
	if again.Size != link.Size {
		return nil, fmt.Errorf("%w: the link to directory %s says %d bytes, its nodes have %d", ErrNotCanonical, link.CID, link.Size, again.Size)
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	return entries, nil
}

// readShard appends the entries of shard n, found under the first `used` bits of
// their hashes. An entry out of its slot is refused at once: without that, shards
// that link one another could list more entries than anybody can read.
func (p layout) readShard(ctx context.Context, src Source, n node, to []entry, path uint64, used int) ([]entry, error) {
	width := bits.Len(uint(p.fanout - 1))
	if used+width > hashBits || len(n.links) == 0 || n.fanout != uint64(p.fanout) {
		return nil, fmt.Errorf("%w: HAMT shard of fan-out %d with %d links at bit %d", ErrNotCanonical, n.fanout, len(n.links), used)
	}
	for _, l := range n.links {
		if len(l.Name) < p.prefixLen() {
			return nil, fmt.Errorf("%w: HAMT link %q has no slot", ErrNotCanonical, l.Name)
		}
		var slot uint64
		prefix, name := l.Name[:p.prefixLen()], l.Name[p.prefixLen():]
		if _, err := fmt.Sscanf(prefix, "%X", &slot); err != nil || slot >= uint64(p.fanout) {
			return nil, fmt.Errorf("%w: HAMT slot %q", ErrNotCanonical, prefix)
		}
		at := path<<width | slot
		if name != "" {
			hash := nameHash(name)
			if hash>>(hashBits-width-used) != at {
				return nil, fmt.Errorf("%w: %q is in another HAMT slot than its hash says", ErrNotCanonical, name)
			}
			to = append(to, entry{name, hash, l.Link})
			continue
		}
		child, err := getNode(ctx, src, l.CID)
		if err != nil {
			return nil, err
		}
		if child.typ != typeHAMTShard {
			return nil, fmt.Errorf("%w: HAMT slot %s holds UnixFS type %d", ErrNotCanonical, prefix, child.typ)
		}
		if to, err = p.readShard(ctx, src, child, to, at, used+width); err != nil {
			return nil, err
		}
	}
	return to, nil
}

func getNode(ctx context.Context, src Source, c cid.Cid) (node, error) {
	if c.Prefix().Codec != codecPB {
		return node{}, fmt.Errorf("%w: %s is not a UnixFS node", ErrNotCanonical, c)
	}
	data, err := src.Get(ctx, c)
	if err != nil {
		return node{}, err
	}
	n, err := decodeNode(data)
	if err != nil {
		return node{}, fmt.Errorf("node %s: %w", c, err)
	}
	return n, nil
}

// Tree is a state in the making: a directory tree in memory, whose leaves are
// links to documents already written. Its cost is one map entry per document
// and directory. It is not safe for concurrent use.
type Tree struct {
	root dir
}

type dir struct {
	dirs map[string]*dir
	docs map[string]Link
}

// NewTree returns an empty Tree.
func NewTree() *Tree { return &Tree{} }

// Set puts a document at path. It refuses a path that is not usable, that is
// taken, or that goes through another document; the error wraps ErrName.
func (t *Tree) Set(path string, l Link) error {
	names, err := SplitPath(path)
	if err != nil {
		return err
	}
	d := &t.root
	for i, name := range names[:len(names)-1] {
		if _, ok := d.docs[name]; ok {
			return fmt.Errorf("%w: %q is a document, and %q lies below it", ErrName, strings.Join(names[:i+1], "/"), path)
		}
		d = d.child(name)
	}
	last := names[len(names)-1]
	if _, ok := d.docs[last]; ok {
		return fmt.Errorf("%w: two documents at %q", ErrName, path)
	}
	if _, ok := d.dirs[last]; ok {
		return fmt.Errorf("%w: %q is a collection", ErrName, path)
	}
	if d.docs == nil {
		d.docs = map[string]Link{}
	}
	d.docs[last] = l
	return nil
}

func (d *dir) child(name string) *dir {
	c, ok := d.dirs[name]
	if !ok {
		c = &dir{}
		if d.dirs == nil {
			d.dirs = map[string]*dir{}
		}
		d.dirs[name] = c
	}
	return c
}

// Check refuses names that collide (ErrNameCollision), so that this is known
// before anything is written.
func (t *Tree) Check() error { return t.root.check("") }

func (d *dir) check(path string) error {
	entries := make([]entry, 0, len(d.docs)+len(d.dirs))
	for name := range d.docs {
		entries = append(entries, entry{name: name, hash: nameHash(name)})
	}
	for name, c := range d.dirs {
		entries = append(entries, entry{name: name, hash: nameHash(name)})
		if err := c.check(path + name + "/"); err != nil {
			return err
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	if err := checkEntries(entries); err != nil {
		return fmt.Errorf("collection %q: %w", path, err)
	}
	return nil
}

// Write writes the directory nodes of all documents set so far to sink and
// returns the link to the root.
func (t *Tree) Write(ctx context.Context, sink Sink) (Link, error) {
	return t.root.write(ctx, sink, profile, "")
}

func (d *dir) write(ctx context.Context, sink Sink, p layout, path string) (Link, error) {
	entries := make([]entry, 0, len(d.docs)+len(d.dirs))
	for name, l := range d.docs {
		entries = append(entries, entry{name, nameHash(name), l})
	}
	for name, c := range d.dirs {
		l, err := c.write(ctx, sink, p, path+name+"/")
		if err != nil {
			return Link{}, err
		}
		entries = append(entries, entry{name, nameHash(name), l})
	}
	l, err := p.writeDirectory(ctx, sink, entries)
	if err != nil && (errors.Is(err, ErrNameCollision) || errors.Is(err, ErrName)) {
		return Link{}, fmt.Errorf("collection %q: %w", path, err)
	}
	return l, err
}
