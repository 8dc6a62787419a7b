package dag

import (
	"context"
	"fmt"
	"iter"
	"slices"
)

// partEntries is the number of entries that one core lays out at a time. The
// nodes of a few such parts are in memory at once.
const partEntries = 1024

// writeHAMT puts the shards of the HAMT of the entries, which it sorts by hash.
// Parts of it are laid out on all cores and put in order, so that the same entries
// are put as the same sequence of blocks.
func (p layout) writeHAMT(ctx context.Context, sink Sink, entries []entry) (Link, error) {
	slices.SortFunc(entries, byHash)
	parts := p.parts(nil, entries, 0)
	links := make([]Link, 0, len(parts))
	err := inOrder(len(parts), func(i int) laidOut {
		var out laidOut
		out.link, out.err = p.layOut(parts[i].entries, parts[i].used, &out.blocks)
		return out
	}, func(out laidOut) error {
		if out.err != nil {
			return out.err
		}
		links = append(links, out.link)
		return sink.Put(ctx, out.blocks...)
	})
	if err != nil {
		return Link{}, err
	}
	if len(parts) == 1 {
		return links[0], nil
	}
	var upper []Block
	var top func([]entry, int) (Link, error)
	top = func(entries []entry, used int) (Link, error) {
		if len(entries) > partEntries {
			return p.layOutShard(entries, used, &upper, top)
		}
		l := links[0]
		links = links[1:]
		return l, nil
	}
	l, err := top(entries, 0)
	if err != nil {
		return Link{}, err
	}
	return l, sink.Put(ctx, upper...)
}

type laidOut struct {
	blocks []Block
	link   Link
	err    error
}

// part is the entries of one shard and of all below it.
type part struct {
	entries []entry
	used    int
}

// parts appends the largest parts that have at most partEntries entries, in order.
func (p layout) parts(to []part, entries []entry, used int) []part {
	if len(entries) <= partEntries || used+p.width() > hashBits {
		return append(to, part{entries, used})
	}
	for _, group := range p.slots(entries, used) {
		if len(group) > 1 {
			to = p.parts(to, group, used+p.width())
		}
	}
	return to
}

// slots returns the slots that are used, in order, each with its entries, which
// are sorted by hash and agree in the first `used` bits of it.
func (p layout) slots(entries []entry, used int) iter.Seq2[int, []entry] {
	return func(yield func(int, []entry) bool) {
		for len(entries) > 0 {
			slot := p.slot(entries[0].hash, used)
			end := 1
			for end < len(entries) && p.slot(entries[end].hash, used) == slot {
				end++
			}
			if !yield(slot, entries[:end]) {
				return
			}
			entries = entries[end:]
		}
	}
}

// layOut appends the nodes of the shard of the entries, and of all below it, to
// blocks, children first.
func (p layout) layOut(entries []entry, used int, blocks *[]Block) (Link, error) {
	return p.layOutShard(entries, used, blocks, func(entries []entry, used int) (Link, error) {
		return p.layOut(entries, used, blocks)
	})
}

// layOutShard appends the node of the shard of the entries to blocks, after below
// has given the links to the shards under it.
func (p layout) layOutShard(entries []entry, used int, blocks *[]Block, below func([]entry, int) (Link, error)) (Link, error) {
	if used+p.width() > hashBits {
		return Link{}, fmt.Errorf("%w: %q and %q", ErrNameCollision, entries[0].name, entries[1].name)
	}
	s := newShardNode(p)
	for slot, group := range p.slots(entries, used) {
		if len(group) == 1 {
			s.add(slot, group[0].name, group[0].link)
			continue
		}
		l, err := below(group, used+p.width())
		if err != nil {
			return Link{}, err
		}
		s.add(slot, "", l)
	}
	return s.block(blocks), nil
}

// shardNode is the node of a shard in the making.
type shardNode struct {
	layout
	used  bitfield
	links []pbLink
}

func newShardNode(p layout) *shardNode {
	return &shardNode{layout: p, links: make([]pbLink, 0, p.fanout)}
}

// add links an entry, or, without a name, a shard from the next slot.
func (s *shardNode) add(slot int, name string, l Link) {
	s.used.set(slot)
	s.links = append(s.links, pbLink{Slot: s.prefix(slot), Name: name, Link: l})
}

// block appends the node to blocks and returns the link to it.
func (s *shardNode) block(blocks *[]Block) Link {
	b, l := node{
		typ: typeHAMTShard, data: s.used.bytes(), hashType: hashMurmur3, fanout: uint64(s.fanout), links: s.links,
	}.block()
	*blocks = append(*blocks, b)
	return l
}
