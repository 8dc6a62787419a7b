package dag

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
)

// entry is one name of a directory.
type entry struct {
	name string
	hash uint64
	link Link
}

func newEntry(name string, l Link) entry { return entry{name, nameHash(name), l} }

// linkLen is the length of the link to the entry in a basic directory node.
func (e entry) linkLen() int { return linkLen(len(e.name), e.link.CID.ByteLen(), e.link.Size) }

func byName(a, b entry) int { return cmp.Compare(a.name, b.name) }
func byHash(a, b entry) int { return cmp.Compare(a.hash, b.hash) }

// writeDirectory lays out the directory of the entries in the lists and puts its nodes to sink,
// children first. Every form follows from the set of entries alone. Nothing is put
// if names are equal (ErrName) or collide (ErrNameCollision).
func (p layout) writeDirectory(ctx context.Context, sink Sink, lists ...[]entry) (Link, error) {
	sorted, err := p.sortEntries(lists...)
	if err != nil {
		return Link{}, err
	}
	if p.basicLen(sorted) > p.threshold {
		return p.writeHAMT(ctx, sink, sorted)
	}
	slices.SortFunc(sorted, byName)
	n := node{typ: typeDirectory, links: make([]pbLink, len(sorted))}
	for i, e := range sorted {
		n.links[i] = newLink("", e.name, e.link)
	}
	b, l := n.block()
	if err := l.checkTotal(); err != nil {
		return Link{}, err
	}
	return l, sink.Put(ctx, b)
}

// sortEntries returns the entries of the lists sorted by hash. It refuses equal
// names and equal hashes.
func (p layout) sortEntries(lists ...[]entry) ([]entry, error) {
	// The first eight bits of the hash make parts that all cores can sort.
	var ends [256]int
	total := 0
	for _, list := range lists {
		total += len(list)
		for _, e := range list {
			ends[e.hash>>56]++
		}
	}
	for i := 1; i < len(ends); i++ {
		ends[i] += ends[i-1]
	}
	all, next := make([]entry, total), ends
	for _, list := range lists {
		for _, e := range list {
			i := &next[e.hash>>56]
			*i--
			all[*i] = e
		}
	}
	if total <= p.partLen() {
		return all, sortPart(all)
	}
	return all, inOrder(len(ends), func(i int) error {
		return sortPart(all[next[i]:ends[i]])
	}, func(err error) error { return err })
}

// sortPart sorts by hash and refuses equal names and equal hashes.
func sortPart(entries []entry) error {
	slices.SortFunc(entries, byHash)
	for i, e := range entries {
		if i == 0 || entries[i-1].hash != e.hash {
			continue
		}
		if other := entries[i-1].name; other != e.name {
			return fmt.Errorf("%w: %q and %q", ErrNameCollision, min(other, e.name), max(other, e.name))
		}
		return fmt.Errorf("%w: %q twice in one directory", ErrName, e.name)
	}
	return nil
}

// emptyLen is the length of a basic directory node without links.
const emptyLen = 4

// basicLen is the length of the basic node of the entries, or some length over
// the threshold.
func (p layout) basicLen(entries []entry) int {
	size := emptyLen
	for _, e := range entries {
		if size += e.linkLen(); size > p.threshold {
			break
		}
	}
	return size
}

// directory is a directory that is read node by node as it is needed. Each node
// that was read is the only one that can stand in its place; see [Documents] for
// what is known when all were read. It is not safe for concurrent use.
type directory struct {
	layout
	src  Source
	link Link
	list []entry // of a basic directory, sorted by name
	root *shard  // of a HAMT
}

// directoryOf is the directory whose top node is n, found at link.
func (p layout) directoryOf(src Source, link Link, n node) (*directory, error) {
	d := &directory{layout: p, src: src, link: link}
	var err error
	switch n.typ {
	case typeDirectory:
		d.list, err = p.entriesOf(n)
	case typeHAMTShard:
		d.root, err = p.shardOf(n, link, position{})
	default:
		err = fmt.Errorf("%w: UnixFS type %d is not a directory", ErrNotCanonical, n.typ)
	}
	if err == nil {
		err = n.checkSize(link)
	}
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", link.CID, err)
	}
	return d, nil
}

// entriesOf returns the entries of a basic directory node, sorted by name.
func (p layout) entriesOf(n node) ([]entry, error) {
	list := make([]entry, len(n.links))
	for i, l := range n.links {
		if err := CheckName(l.Name); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotCanonical, err)
		}
		if i > 0 && n.links[i-1].Name >= l.Name {
			return nil, fmt.Errorf("%w: name %q after %q", ErrNotCanonical, l.Name, n.links[i-1].Name)
		}
		list[i] = newEntry(l.Name, l.link())
	}
	if p.basicLen(list) > p.threshold {
		return nil, fmt.Errorf("%w: a basic node of more than %d bytes, where a HAMT is due", ErrNotCanonical, p.threshold)
	}
	if _, err := p.sortEntries(list); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotCanonical, err)
	}
	return list, nil
}

// lookup returns the link to a name. Of a HAMT it reads and keeps the shards on
// the way.
func (d *directory) lookup(ctx context.Context, name string) (Link, bool, error) {
	if d.root != nil {
		return d.find(ctx, d.root, name, nameHash(name), position{})
	}
	i, ok := slices.BinarySearchFunc(d.list, name, func(e entry, name string) int { return cmp.Compare(e.name, name) })
	if !ok {
		return Link{}, false, nil
	}
	return d.list[i].link, true, nil
}

// entries reads all of the directory and returns its entries, sorted by name. It
// refuses a HAMT where a basic directory is due.
func (d *directory) entries(ctx context.Context) ([]entry, error) {
	if d.root == nil {
		return d.list, nil
	}
	all, err := d.collect(ctx, d.root, position{}, nil)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", d.link.CID, err)
	}
	if d.basicLen(all) <= d.threshold {
		return nil, fmt.Errorf("directory %s: %w: a HAMT, where a basic node of at most %d bytes is due", d.link.CID, ErrNotCanonical, d.threshold)
	}
	slices.SortFunc(all, byName)
	return all, nil
}

// change removes the names that are there, and then puts the entries.
func (d *directory) change(ctx context.Context, removes []string, puts []entry) error {
	d.link = Link{}
	if d.root != nil {
		return d.changeHAMT(ctx, removes, puts)
	}
	all := make(map[string]entry, len(d.list)+len(puts))
	for _, e := range d.list {
		all[e.name] = e
	}
	for _, name := range removes {
		delete(all, name)
	}
	for _, e := range puts {
		all[e.name] = e
	}
	d.list = d.list[:0:0]
	for _, e := range all {
		d.list = append(d.list, e)
	}
	return nil
}

func (d *directory) isEmpty() bool {
	return len(d.list) == 0 && (d.root == nil || len(d.root.links) == 0)
}

// write puts the nodes that changed, children first.
func (d *directory) write(ctx context.Context, sink Sink) (Link, error) {
	if d.root == nil {
		return d.writeDirectory(ctx, sink, d.list)
	}
	long, err := d.exceedsThreshold(ctx)
	if err != nil {
		return Link{}, err
	}
	if !long {
		all, err := d.collect(ctx, d.root, position{}, nil)
		if err != nil {
			return Link{}, err
		}
		return d.writeDirectory(ctx, sink, all)
	}
	w := shardWriter{layout: d.layout}
	l := d.encode(d.root, &w)
	if err := l.checkTotal(); err != nil {
		return Link{}, err
	}
	return l, sink.Put(ctx, w.blocks...)
}

// checkSize compares the node with what the link to it says.
func (n node) checkSize(link Link) error {
	if n.total != link.Size {
		return fmt.Errorf("%w: the link to %s says %d bytes, its nodes have %d", ErrNotCanonical, link.CID, link.Size, n.total)
	}
	return nil
}

func getNode(ctx context.Context, src Source, c cid.Cid) (node, error) {
	if err := ctx.Err(); err != nil {
		return node{}, err // sources in memory do not look
	}
	if codecOf(c) != codecPB {
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
