package dag

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// writeHAMT puts the shards of the HAMT of the entries, which are sorted by hash.
// Parts of it are laid out on all cores and put in order, so that the same entries
// are put as the same sequence of blocks.
func (p layout) writeHAMT(ctx context.Context, sink Sink, entries []entry) (Link, error) {
	parts := p.parts(nil, entries, 0)
	links := make([]Link, 0, len(parts))
	err := inOrder(len(parts), func(i int) laidOut {
		w := shardWriter{layout: p}
		l, err := w.layOut(parts[i].entries, parts[i].used)
		return laidOut{w.blocks, l, err}
	}, func(out laidOut) error {
		if err := errors.Join(out.err, ctx.Err()); err != nil {
			return err
		}
		links = append(links, out.link)
		return sink.Put(ctx, out.blocks...)
	})
	if err != nil {
		return Link{}, err
	}
	if len(parts) == 1 && parts[0].used == 0 {
		return links[0], links[0].checkTotal() // all of it
	}
	w := shardWriter{layout: p, parts: links}
	l, err := w.layOut(entries, 0)
	if err == nil {
		err = l.checkTotal()
	}
	if err != nil {
		return Link{}, err
	}
	return l, sink.Put(ctx, w.blocks...)
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

// parts appends the largest parts that are short enough for one core, in order. An
// entry that is alone in its slot is in none of them, unless all are in one part.
func (p layout) parts(to []part, entries []entry, used int) []part {
	if len(entries) <= p.partLen() || used+p.width() > hashBits {
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

// shardWriter encodes shards, children before parents.
type shardWriter struct {
	layout
	parts  []Link   // to the shards that are laid out already, in order
	links  []pbLink // of the shards that are begun, the outermost first
	blocks []Block  // those that are done
}

// layOut encodes the shard of the entries and what is below it.
func (w *shardWriter) layOut(entries []entry, used int) (Link, error) {
	if w.parts != nil && len(entries) <= w.partLen() {
		l := w.parts[0]
		w.parts = w.parts[1:]
		return l, nil
	}
	if used+w.width() > hashBits {
		return Link{}, fmt.Errorf("%w: %q and %q", ErrNameCollision, entries[0].name, entries[1].name)
	}
	begun := len(w.links)
	for slot, group := range w.slots(entries, used) {
		name, l := group[0].name, group[0].link
		if len(group) > 1 {
			var err error
			if l, err = w.layOut(group, used+w.width()); err != nil {
				return Link{}, err
			}
			name = ""
		}
		w.links = append(w.links, newLink(w.prefix(slot), name, l))
	}
	l := w.write(w.links[begun:])
	w.links = w.links[:begun]
	return l, nil
}

// write encodes the shard with these links.
func (w *shardWriter) write(links []pbLink) Link {
	slots := w.bitfieldOf(links)
	b, l := node{
		typ: typeHAMTShard, data: slots.bytes(), hashType: hashMurmur3, fanout: uint64(w.fanout), links: links,
	}.block()
	w.blocks = append(w.blocks, b)
	return l
}
