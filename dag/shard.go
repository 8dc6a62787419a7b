package dag

import (
	"bytes"
	"context"
	"fmt"
	"slices"
)

// shard is a shard of a HAMT that was read or made.
type shard struct {
	link  Link   // where it is stored; no CID once it has changed
	slots []slot // those that are used, in order
}

// slot holds an entry, or, where the entry has no name, the link to a shard.
type slot struct {
	index int
	entry
	sub *shard // the shard, if it was kept; its link is then the one that counts
}

func (s *slot) isShard() bool { return s.name == "" }

// readShard reads the shard that link leads to and that stands at a position
// below the root.
func (p layout) readShard(ctx context.Context, src Source, link Link, at position) (*shard, error) {
	n, err := getNode(ctx, src, link.CID)
	if err != nil {
		return nil, err
	}
	s, err := p.shardOf(n, link, at)
	if err == nil {
		err = n.checkSize(link)
	}
	if err != nil {
		return nil, fmt.Errorf("HAMT shard %s at bit %d: %w", link.CID, at.used, err)
	}
	return s, nil
}

// shardOf accepts a node only if a HAMT with its entries has it at this position.
func (p layout) shardOf(n node, link Link, at position) (*shard, error) {
	bad := func(format string, args ...any) (*shard, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrNotCanonical}, args...)...)
	}
	switch {
	case n.typ != typeHAMTShard:
		return bad("UnixFS type %d in place of a shard", n.typ)
	case n.fanout != uint64(p.fanout):
		return bad("fan-out %d, not %d", n.fanout, p.fanout)
	case n.hashType != hashMurmur3:
		return bad("hash function %#x, not %#x", n.hashType, hashMurmur3)
	case at.used+p.width() > hashBits:
		return bad("a shard below the last bit of a hash")
	case len(n.links) == 0:
		return bad("a shard without links")
	}
	s := &shard{link: link, slots: make([]slot, len(n.links))}
	var used bitfield
	for i, l := range n.links {
		index, name, ok := p.parsePrefix(l.Name)
		if !ok {
			return bad("link %q has no slot", l.Name)
		}
		if i > 0 && s.slots[i-1].index >= index {
			return bad("slot %s after %s", p.prefix(index), p.prefix(s.slots[i-1].index))
		}
		used.set(index)
		s.slots[i] = slot{index: index, entry: entry{link: l.Link}}
		if name == "" {
			continue
		}
		if err := CheckName(name); err != nil {
			return bad("%w", err)
		}
		s.slots[i].entry = newEntry(name, l.Link)
		if !p.below(at, index).leads(s.slots[i].hash) {
			return bad("%q is in another slot than its hash says", name)
		}
	}
	if !bytes.Equal(used.bytes(), n.data) {
		return bad("bitfield %x of other slots than the links'", n.data)
	}
	if at.used > 0 && len(s.slots) == 1 && !s.slots[0].isShard() {
		return bad("a shard of the one entry %q, which belongs in the shard above", s.slots[0].name)
	}
	return s, nil
}

// child returns the shard of a slot, read if it is not in memory.
func (d *directory) child(ctx context.Context, sl *slot, at position) (*shard, error) {
	if sl.sub != nil {
		return sl.sub, nil
	}
	return d.readShard(ctx, d.src, sl.link, at)
}

// keep returns the shard of a slot and keeps it in memory.
func (d *directory) keep(ctx context.Context, sl *slot, at position) (*shard, error) {
	var err error
	sl.sub, err = d.child(ctx, sl, at)
	return sl.sub, err
}

// slotOf finds the slot of a hash in a shard: where it is, or where it belongs.
func (d *directory) slotOf(s *shard, hash uint64, used int) (i int, found bool) {
	return slices.BinarySearchFunc(s.slots, d.slot(hash, used), func(sl slot, index int) int { return sl.index - index })
}

func (d *directory) find(ctx context.Context, s *shard, name string, hash uint64, at position) (Link, bool, error) {
	i, ok := d.slotOf(s, hash, at.used)
	if !ok {
		return Link{}, false, nil
	}
	sl := &s.slots[i]
	if !sl.isShard() {
		return sl.link, sl.name == name, nil
	}
	below := d.below(at, sl.index)
	sub, err := d.keep(ctx, sl, below)
	if err != nil {
		return Link{}, false, err
	}
	return d.find(ctx, sub, name, hash, below)
}

// collect appends the entries of a shard and of all below it, in the order of
// their hashes.
func (d *directory) collect(ctx context.Context, s *shard, at position, to []entry) ([]entry, error) {
	for i := range s.slots {
		sl := &s.slots[i]
		if !sl.isShard() {
			to = append(to, sl.entry)
			continue
		}
		below := d.below(at, sl.index)
		sub, err := d.child(ctx, sl, below)
		if err != nil {
			return nil, err
		}
		if to, err = d.collect(ctx, sub, below, to); err != nil {
			return nil, err
		}
	}
	return to, nil
}

// changeHAMT removes before it puts: a name that goes may collide with one that
// comes.
func (d *directory) changeHAMT(ctx context.Context, removes []string, puts []entry) error {
	for _, name := range removes {
		if err := d.remove(ctx, d.root, name, nameHash(name), position{}); err != nil {
			return err
		}
	}
	for _, e := range puts {
		if err := d.put(ctx, d.root, e, position{}); err != nil {
			return err
		}
	}
	return nil
}

func (d *directory) put(ctx context.Context, s *shard, e entry, at position) error {
	s.link = Link{}
	i, ok := d.slotOf(s, e.hash, at.used)
	if !ok {
		s.slots = slices.Insert(s.slots, i, slot{index: d.slot(e.hash, at.used), entry: e})
		return nil
	}
	sl := &s.slots[i]
	below := d.below(at, sl.index)
	switch {
	case sl.name == e.name:
		sl.entry = e
		return nil
	case !sl.isShard() && (sl.hash == e.hash || below.used+d.width() > hashBits):
		return fmt.Errorf("%w: %q and %q", ErrNameCollision, min(sl.name, e.name), max(sl.name, e.name))
	case !sl.isShard():
		sub := &shard{}
		if err := d.put(ctx, sub, sl.entry, below); err != nil {
			return err
		}
		*sl = slot{index: sl.index, sub: sub}
	}
	sub, err := d.keep(ctx, sl, below)
	if err != nil {
		return err
	}
	return d.put(ctx, sub, e, below)
}

// remove takes a name out of a shard. A shard that is left with one entry gives
// it to the shard above.
func (d *directory) remove(ctx context.Context, s *shard, name string, hash uint64, at position) error {
	i, ok := d.slotOf(s, hash, at.used)
	if !ok {
		return nil
	}
	sl := &s.slots[i]
	if !sl.isShard() {
		if sl.name == name {
			s.link = Link{}
			s.slots = slices.Delete(s.slots, i, i+1)
		}
		return nil
	}
	below := d.below(at, sl.index)
	sub, err := d.keep(ctx, sl, below)
	if err != nil {
		return err
	}
	if err := d.remove(ctx, sub, name, hash, below); err != nil {
		return err
	}
	if !sub.link.CID.Defined() {
		s.link = Link{}
	}
	if len(sub.slots) == 1 && !sub.slots[0].isShard() {
		*sl = slot{index: sl.index, entry: sub.slots[0].entry}
	}
	return nil
}

// leastLinkLen is the length of the shortest link of a directory.
var leastLinkLen = linkLen(1, Link{CID: RawBlock(nil).CID})

// exceedsThreshold reports whether the entries would make too long a basic node.
// Mostly the shards in memory tell; if not, it reads no more of the others than
// the threshold has room for.
func (d *directory) exceedsThreshold(ctx context.Context) (bool, error) {
	for _, read := range []bool{false, true} {
		size, err := d.atLeast(ctx, d.root, position{}, emptyLen, read)
		if err != nil || size > d.threshold {
			return true, err
		}
	}
	return false, nil
}

// atLeast adds to size a lower bound for the links of the entries of a shard, the
// exact length if it may read; it stops above the threshold.
func (d *directory) atLeast(ctx context.Context, s *shard, at position, size int, read bool) (int, error) {
	for i := range s.slots {
		sl := &s.slots[i]
		switch {
		case size > d.threshold:
			return size, nil
		case !sl.isShard():
			size += linkLen(len(sl.name), sl.link)
			continue
		case sl.sub == nil && !read:
			size += 2 * leastLinkLen // a shard has two entries or more
			continue
		}
		below := d.below(at, sl.index)
		sub, err := d.keep(ctx, sl, below)
		if err != nil {
			return 0, err
		}
		if size, err = d.atLeast(ctx, sub, below, size, read); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// encode appends the nodes of the shards that changed, children first.
func (d *directory) encode(s *shard, blocks *[]Block) Link {
	if s.link.CID.Defined() {
		return s.link
	}
	n := newShardNode(d.layout)
	for _, sl := range s.slots {
		if sl.sub != nil {
			sl.link = d.encode(sl.sub, blocks)
		}
		n.add(sl.index, sl.name, sl.link)
	}
	s.link = n.block(blocks)
	return s.link
}
