package dag

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/ipfs/go-cid"
)

// Change is a path at which two states differ.
type Change struct {
	Path string
	// Before and After are the document in the one state and in the other; nil
	// where there is none. Both are there if the document was replaced.
	Before, After *Document
}

// Diff returns the changes that make the state after out of the state before, in
// the order of [Documents]. Parts with equal CIDs are not read, so the cost
// depends on the number of changes. It holds the changes of one directory. The
// nodes that are read are checked to be canonical. An error ends it.
func Diff(ctx context.Context, src Source, before, after cid.Cid) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if before == after {
			return
		}
		x := differ{ctx, src, yield}
		a, err := openState(ctx, src, before)
		if err != nil {
			yield(Change{}, err)
			return
		}
		b, err := openState(ctx, src, after)
		if err != nil {
			yield(Change{}, err)
			return
		}
		x.directories(a, b, "", 0)
	}
}

type differ struct {
	ctx   context.Context
	src   Source
	yield func(Change, error) bool
}

// pair is a name with what it links to before and after; no CID where it is not.
type pair struct {
	name          string
	before, after Link
}

// directories reports whether the diff goes on. Either directory can be nil.
func (x *differ) directories(a, b *directory, path string, depth int) bool {
	fail := func(err error) bool {
		x.yield(Change{}, fmt.Errorf("collection %q: %w", path, err))
		return false
	}
	if err := checkDepth(depth); err != nil {
		return fail(err)
	}
	pairs, err := x.pairs(a, b)
	if err != nil {
		return fail(err)
	}
	for _, p := range pairs {
		before, subA, errA := x.open(p.before, path+p.name)
		after, subB, errB := x.open(p.after, path+p.name)
		if err := errors.Join(errA, errB); err != nil {
			x.yield(Change{}, err)
			return false
		}
		if before != nil || after != nil {
			if !x.yield(Change{path + p.name, before, after}, nil) {
				return false
			}
		}
		if subA != nil || subB != nil {
			if !x.directories(subA, subB, path+p.name+"/", depth+1) {
				return false
			}
		}
	}
	return true
}

// open returns what a link leads to: a document, a directory, or nothing.
func (x *differ) open(l Link, path string) (*Document, *directory, error) {
	if !l.CID.Defined() {
		return nil, nil, nil
	}
	sub, length, err := openEntry(x.ctx, x.src, l)
	if err != nil {
		return nil, nil, fmt.Errorf("%q: %w", path, err)
	}
	if sub != nil {
		return nil, sub, nil
	}
	return &Document{path, l, length}, nil, nil
}

// pairs returns the names at which two directories differ, sorted.
func (x *differ) pairs(a, b *directory) ([]pair, error) {
	if a != nil && b != nil && a.root != nil && b.root != nil {
		s := shardDiff{ctx: x.ctx, a: a, b: b}
		if err := s.shards(a.root, b.root, position{}); err != nil {
			return nil, err
		}
		slices.SortFunc(s.pairs, func(p, q pair) int { return cmp.Compare(p.name, q.name) })
		return s.pairs, nil
	}
	var lists [2][]entry
	for i, d := range []*directory{a, b} {
		if d == nil {
			continue
		}
		var err error
		if lists[i], err = d.entries(x.ctx); err != nil {
			return nil, err
		}
	}
	return appendPairs(nil, lists[0], lists[1]), nil
}

// appendPairs appends the names at which two lists, sorted by name, differ.
func appendPairs(to []pair, a, b []entry) []pair {
	for len(a) > 0 || len(b) > 0 {
		var p pair
		if len(b) == 0 || len(a) > 0 && a[0].name <= b[0].name {
			p.name, p.before = a[0].name, a[0].link
		} else {
			p.name = b[0].name
		}
		if len(a) > 0 && a[0].name == p.name {
			a = a[1:]
		}
		if len(b) > 0 && b[0].name == p.name {
			p.after, b = b[0].link, b[1:]
		}
		if p.before != p.after {
			to = append(to, p)
		}
	}
	return to
}

// shardDiff gathers the names at which two HAMTs differ.
type shardDiff struct {
	ctx   context.Context
	a, b  *directory
	pairs []pair
}

// shards compares two shards that stand at the same position, slot by slot.
func (s *shardDiff) shards(a, b *shard, at position) error {
	i, j := 0, 0
	for i < len(a.links) || j < len(b.links) {
		var err error
		switch {
		case j == len(b.links) || i < len(a.links) && a.links[i].Slot < b.links[j].Slot:
			err = s.slots(a, i, nil, 0, at)
			i++
		case i == len(a.links) || b.links[j].Slot < a.links[i].Slot:
			err = s.slots(nil, 0, b, j, at)
			j++
		case a.links[i] == b.links[j]: // the same document, collection or shard
			i, j = i+1, j+1
		case a.links[i].isShard() && b.links[j].isShard():
			err = s.below(a, i, b, j, at)
			i, j = i+1, j+1
		default:
			err = s.slots(a, i, b, j, at)
			i, j = i+1, j+1
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// below compares the shards below two links of the same slot.
func (s *shardDiff) below(a *shard, i int, b *shard, j int, at position) error {
	subA, below, err := s.a.child(s.ctx, a, i, at)
	if err != nil {
		return err
	}
	subB, _, err := s.b.child(s.ctx, b, j, at)
	if err != nil {
		return err
	}
	return s.shards(subA, subB, below)
}

// slots compares all that is in and below two links of the same slot. Either shard
// can be nil: there the slot is empty.
func (s *shardDiff) slots(a *shard, i int, b *shard, j int, at position) error {
	var before, after []entry
	var err error
	if a != nil {
		if before, err = s.a.collectSlot(s.ctx, a, i, at, nil); err != nil {
			return err
		}
	}
	if b != nil {
		if after, err = s.b.collectSlot(s.ctx, b, j, at, nil); err != nil {
			return err
		}
	}
	slices.SortFunc(before, byName)
	slices.SortFunc(after, byName)
	s.pairs = appendPairs(s.pairs, before, after)
	return nil
}
