package dag

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
)

// shard is the node of a HAMT, with the shards below it that are in memory.
type shard struct {
	link  Link     // where it is stored; no CID once it has changed
	links []pbLink // in the order of their slots; one without a name leads to a shard
	subs  []*shard // nil, or for each link the shard below, if it is in memory; its link is then the one that counts
}

func (l *pbLink) isShard() bool { return l.Name == "" }

func (l *pbLink) entry() entry { return newEntry(l.Name, l.link()) }

func (s *shard) sub(i int) *shard {
	if s.subs == nil {
		return nil
	}
	return s.subs[i]
}

func (s *shard) setSub(i int, sub *shard) {
	if s.subs == nil {
		s.subs = make([]*shard, len(s.links))
	}
	s.subs[i] = sub
}

// set puts an entry, or with a shard the link to it, in place of what a slot has.
func (s *shard) set(i int, name string, l Link, sub *shard) {
	s.links[i] = newLink(s.links[i].Slot, name, l)
	s.setSub(i, sub)
}

func (s *shard) insert(i int, l pbLink) {
	s.links = slices.Insert(s.links, i, l)
	if s.subs != nil {
		s.subs = slices.Insert(s.subs, i, nil)
	}
}

func (s *shard) delete(i int) {
	s.links = slices.Delete(s.links, i, i+1)
	if s.subs != nil {
		s.subs = slices.Delete(s.subs, i, i+1)
	}
}

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
// It takes the links of the node.
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
	for i := range n.links {
		l := &n.links[i]
		index, ok := p.slotIndex(l.Name)
		if !ok {
			return bad("link %q has no slot", l.Name)
		}
		l.Slot, l.Name = l.Name[:p.prefixLen()], l.Name[p.prefixLen():]
		if i > 0 && n.links[i-1].Slot >= l.Slot {
			return bad("slot %s after %s", l.Slot, n.links[i-1].Slot)
		}
		if l.isShard() {
			continue
		}
		if err := CheckName(l.Name); err != nil {
			return bad("%w", err)
		}
		if !p.below(at, index).leads(nameHash(l.Name)) {
			return bad("%q is in another slot than its hash says", l.Name)
		}
	}
	if used := p.bitfieldOf(n.links); !bytes.Equal(used.bytes(), n.data) {
		return bad("bitfield %x of other slots than the links'", n.data)
	}
	if at.used > 0 && len(n.links) == 1 && !n.links[0].isShard() {
		return bad("a shard of the one entry %q, which belongs in the shard above", n.links[0].Name)
	}
	return &shard{link: link, links: n.links}, nil
}

// child returns the shard below link i of the shard s at a position, read if it is
// not in memory, and its position.
func (d *directory) child(ctx context.Context, s *shard, i int, at position) (*shard, position, error) {
	index, _ := d.slotIndex(s.links[i].Slot)
	below := d.below(at, index)
	if sub := s.sub(i); sub != nil {
		return sub, below, nil
	}
	sub, err := d.readShard(ctx, d.src, s.links[i].link(), below)
	return sub, below, err
}

// keep is child for those who will need the shard again, to change it.
func (d *directory) keep(ctx context.Context, s *shard, i int, at position) (*shard, position, error) {
	sub, below, err := d.child(ctx, s, i, at)
	if err == nil {
		s.setSub(i, sub)
	}
	return sub, below, err
}

// slotOf finds the link for a hash in a shard: where it is, or where it belongs.
func (d *directory) slotOf(s *shard, hash uint64, at position) (i int, found bool) {
	slot := d.prefix(d.slot(hash, at.used))
	return slices.BinarySearchFunc(s.links, slot, func(l pbLink, slot string) int { return strings.Compare(l.Slot, slot) })
}

func (d *directory) find(ctx context.Context, s *shard, name string, hash uint64, at position) (Link, bool, error) {
	i, ok := d.slotOf(s, hash, at)
	if !ok {
		return Link{}, false, nil
	}
	if l := &s.links[i]; !l.isShard() {
		return l.link(), l.Name == name, nil
	}
	sub, below, err := d.keep(ctx, s, i, at)
	if err != nil {
		return Link{}, false, err
	}
	return d.find(ctx, sub, name, hash, below)
}

// collect appends the entries of a shard and of all below it, in the order of
// their hashes.
func (d *directory) collect(ctx context.Context, s *shard, at position, to []entry) ([]entry, error) {
	var err error
	for i := range s.links {
		if to, err = d.collectSlot(ctx, s, i, at, to); err != nil {
			return nil, err
		}
	}
	return to, nil
}

func (d *directory) collectSlot(ctx context.Context, s *shard, i int, at position, to []entry) ([]entry, error) {
	if l := &s.links[i]; !l.isShard() {
		return append(to, l.entry()), nil
	}
	sub, below, err := d.child(ctx, s, i, at)
	if err != nil {
		return nil, err
	}
	return d.collect(ctx, sub, below, to)
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
	i, ok := d.slotOf(s, e.hash, at)
	if !ok {
		s.insert(i, newLink(d.prefix(d.slot(e.hash, at.used)), e.name, e.link))
		return nil
	}
	switch l := &s.links[i]; {
	case l.Name == e.name:
		s.set(i, e.name, e.link, nil)
		return nil
	case !l.isShard():
		// Two entries in one slot: both go a shard down.
		other, below := l.entry(), at.used+d.width()
		if other.hash == e.hash || below+d.width() > hashBits {
			return fmt.Errorf("%w: %q and %q", ErrNameCollision, min(other.name, e.name), max(other.name, e.name))
		}
		slot := d.prefix(d.slot(other.hash, below))
		sub := &shard{links: []pbLink{newLink(slot, other.name, other.link)}}
		s.set(i, "", Link{}, sub)
	}
	sub, below, err := d.keep(ctx, s, i, at)
	if err != nil {
		return err
	}
	return d.put(ctx, sub, e, below)
}

// remove takes a name out of a shard. A shard that is left with one entry gives
// it to the shard above.
func (d *directory) remove(ctx context.Context, s *shard, name string, hash uint64, at position) error {
	i, ok := d.slotOf(s, hash, at)
	if !ok {
		return nil
	}
	if l := &s.links[i]; !l.isShard() {
		if l.Name == name {
			s.link = Link{}
			s.delete(i)
		}
		return nil
	}
	sub, below, err := d.keep(ctx, s, i, at)
	if err != nil {
		return err
	}
	if err := d.remove(ctx, sub, name, hash, below); err != nil {
		return err
	}
	if !sub.link.CID.Defined() {
		s.link = Link{}
	}
	if len(sub.links) == 1 && !sub.links[0].isShard() {
		s.set(i, sub.links[0].Name, sub.links[0].link(), nil)
	}
	return nil
}

// leastLinkLen is the length of the shortest link of a directory.
var leastLinkLen = linkLen(1, cidLen, 0)

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
	for i := range s.links {
		switch l := &s.links[i]; {
		case size > d.threshold:
			return size, nil
		case !l.isShard():
			size += linkLen(len(l.Name), len(l.CID), l.Size)
			continue
		case s.sub(i) == nil && !read:
			size += 2 * leastLinkLen // a shard has two entries or more
			continue
		}
		sub, below, err := d.keep(ctx, s, i, at)
		if err != nil {
			return 0, err
		}
		if size, err = d.atLeast(ctx, sub, below, size, read); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// encode writes the shards that changed, from s down.
func (d *directory) encode(s *shard, w *shardWriter) Link {
	if s.link.CID.Defined() {
		return s.link
	}
	for i, sub := range s.subs {
		if sub != nil {
			s.links[i] = newLink(s.links[i].Slot, "", d.encode(sub, w))
		}
	}
	s.link = w.write(s.links)
	return s.link
}
