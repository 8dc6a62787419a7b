package dag

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
)

// Editor is a batch of changes to a state: documents to put and to delete, in any
// order. What comes out depends on the resulting set of documents alone; its cost
// depends on the number of changes and, with the logarithm, on the size of the
// directories they lie in. A collection is there as long as it holds a document.
//
// The zero value is an Editor without changes. It is not safe for concurrent use.
type Editor struct {
	root changes
}

// changes are those of one directory and of all below it.
type changes struct {
	collections map[string]*changes
	documents   map[string]Link // without CID: to be deleted
	puts        int             // here and below
}

// Put puts the document l, which [WriteDocument] has put before, at path, in place of the
// one that is there. It takes the place of earlier calls for the same path. A path
// that is not usable, or that passes through another document of the batch, is
// refused with ErrName, a link that cannot be a document's with ErrUnsupported.
func (e *Editor) Put(path string, l Link) error {
	if err := checkDocument(l); err != nil {
		return fmt.Errorf("document %q: %w", path, err)
	}
	return e.set(path, l)
}

// Delete deletes the document at path. Where there is none, nothing changes. It
// takes the place of earlier calls for the same path. The error wraps ErrName.
func (e *Editor) Delete(path string) error { return e.set(path, Link{}) }

func (e *Editor) set(path string, l Link) error {
	names, err := SplitPath(path)
	if err != nil {
		return err
	}
	isPut := l.CID.Defined()
	chain := []*changes{&e.root}
	for i, name := range names[:len(names)-1] {
		c := chain[i]
		if isPut && c.documents[name].CID.Defined() {
			return fmt.Errorf("%w: %q is a document, and %q lies below it", ErrName, strings.Join(names[:i+1], "/"), path)
		}
		chain = append(chain, c.collection(name))
	}
	c, last := chain[len(chain)-1], names[len(names)-1]
	if sub := c.collections[last]; isPut && sub != nil && sub.puts > 0 {
		return fmt.Errorf("%w: %q is a collection", ErrName, path)
	}
	delta := 0
	if isPut {
		delta++
	}
	if c.documents[last].CID.Defined() {
		delta--
	}
	if c.documents == nil {
		c.documents = map[string]Link{}
	}
	c.documents[last] = l
	for _, c := range chain {
		c.puts += delta
	}
	return nil
}

func (c *changes) collection(name string) *changes {
	sub, ok := c.collections[name]
	if !ok {
		sub = &changes{}
		if c.collections == nil {
			c.collections = map[string]*changes{}
		}
		c.collections[name] = sub
	}
	return sub
}

// Apply makes the changes to the state base, or, if base is cid.Undef, to the
// state without documents, and returns the link to the new state, whose new nodes
// it puts to sink, children first, in one call. It reads from src the nodes on the
// way to the changes, and, where a directory may have become small enough for its
// other form, as many more as that form can hold. Those nodes are checked to be
// canonical; the others of base stand unread: see [VerifyState].
//
// Nothing is put if there is an error: ErrName, for a document where base has a
// collection or the other way round; ErrNameCollision; ErrNotCanonical; or an
// error of src.
func (e *Editor) Apply(ctx context.Context, src Source, sink Sink, base cid.Cid) (Link, error) {
	var root *directory
	var err error
	if base.Defined() {
		if root, err = openState(ctx, src, base); err != nil {
			return Link{}, err
		}
	}
	a := applying{src: src}
	l, err := a.collection(ctx, &e.root, root, "")
	if err != nil {
		return Link{}, err
	}
	if l == nil { // the only directory that can be empty
		empty, err := profile.writeDirectory(ctx, &a.out, nil)
		if err != nil {
			return Link{}, err
		}
		l = &empty
	}
	if len(a.out.blocks) == 0 {
		return *l, nil
	}
	return *l, sink.Put(ctx, a.out.blocks...)
}

// applying is one Apply. It keeps the new nodes until all of them are known.
type applying struct {
	src Source
	out gathering
}

type gathering struct{ blocks []Block }

func (g *gathering) Put(_ context.Context, blocks ...Block) error {
	g.blocks = append(g.blocks, blocks...)
	return nil
}

// collection makes the changes to the directory d, nil if there is none, and
// returns the link to what it becomes, nil if nothing is left.
func (a *applying) collection(ctx context.Context, c *changes, d *directory, path string) (*Link, error) {
	fail := func(err error) (*Link, error) { return nil, fmt.Errorf("collection %q: %w", path, err) }
	if d == nil {
		d = &directory{layout: profile, src: a.src}
	}
	var removes []string
	var puts []entry
	for _, name := range slices.Sorted(maps.Keys(c.collections)) {
		old, err := a.old(ctx, d, path, name)
		if err != nil {
			return nil, err
		}
		sub := c.collections[name]
		if old.document && sub.puts > 0 {
			if l, ok := c.documents[name]; !ok || l.CID.Defined() {
				return fail(fmt.Errorf("%w: %q is a document, and others are put below it", ErrName, name))
			}
		}
		if old.collection == nil && sub.puts == 0 {
			continue // nothing to delete from
		}
		l, err := a.collection(ctx, sub, old.collection, path+name+"/")
		switch {
		case err != nil:
			return nil, err
		case l == nil:
			removes = append(removes, name)
		case *l != old.link:
			puts = append(puts, newEntry(name, *l))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.documents)) {
		old, err := a.old(ctx, d, path, name)
		if err != nil {
			return nil, err
		}
		l := c.documents[name]
		switch {
		case !l.CID.Defined() && old.document:
			removes = append(removes, name)
		case !l.CID.Defined():
		case old.collection != nil && !slices.Contains(removes, name):
			return fail(fmt.Errorf("%w: %q is a collection", ErrName, name))
		case l == old.link:
		default:
			puts = append(puts, newEntry(name, l))
		}
	}
	if len(removes)+len(puts) > 0 {
		if err := d.change(ctx, removes, puts); err != nil {
			return fail(err)
		}
	}
	if d.isEmpty() {
		return nil, nil
	}
	if d.link.CID.Defined() {
		return &d.link, nil
	}
	l, err := d.write(ctx, &a.out)
	if err != nil {
		return fail(err)
	}
	return &l, nil
}

// former is what a name of a directory was before: nothing, a document or a
// collection.
type former struct {
	link       Link
	document   bool
	collection *directory
}

func (a *applying) old(ctx context.Context, d *directory, path, name string) (former, error) {
	l, ok, err := d.lookup(ctx, name)
	if err != nil {
		return former{}, fmt.Errorf("collection %q: %w", path, err)
	}
	if !ok {
		return former{}, nil
	}
	sub, _, err := openEntry(ctx, a.src, l)
	if err != nil {
		return former{}, fmt.Errorf("%q: %w", path+name, err)
	}
	return former{l, sub == nil, sub}, nil
}
