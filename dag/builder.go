package dag

import (
	"context"
	"fmt"
	"iter"
	"strings"
)

// Builder builds a state from documents that come collection by collection, as a
// walk of folders or sorted paths give them. Directory nodes are put as their
// directories end, children first, and large directories are laid out on all
// cores. It holds the entries of the directories that have not ended: with names
// of 30 bytes 130 MB for a million documents, names and CIDs included, and half as
// much again while a directory is laid out. Directories that do not keep together
// are refused in the end; an [Editor] takes documents in any order.
//
// It is not safe for concurrent use. After an error it must not be used.
type Builder struct {
	paths grouping
}

// NewBuilder returns a Builder that puts the nodes of directories to sink.
func NewBuilder(sink Sink) *Builder {
	return &Builder{newGrouping(func(ctx context.Context, lists [][]entry) (Link, error) {
		return profile.writeDirectory(ctx, sink, lists...)
	})}
}

// Add adds the document at path, which [WriteDocument] has put before. Of a directory
// with equal names (ErrName) or names that collide (ErrNameCollision) no node is put,
// but directories that ended before are: whoever wants to know before anything is
// written asks [CheckPaths]. A link that cannot be a document's is refused with
// ErrUnsupported.
func (b *Builder) Add(ctx context.Context, path string, l Link) error {
	if err := checkDocument(l); err != nil {
		return fmt.Errorf("document %q: %w", path, err)
	}
	return b.paths.add(ctx, path, l)
}

// Finish puts the nodes that are left and returns the link to the state. The Builder
// must not be used any more.
func (b *Builder) Finish(ctx context.Context) (Link, error) { return b.paths.finish(ctx) }

// CheckPaths reports whether the documents of one state can have these paths,
// which come in an order that a [Builder] takes. It holds what a Builder holds. The
// error wraps ErrName or ErrNameCollision.
func CheckPaths(paths iter.Seq[string]) error {
	ctx := context.Background() // nothing below waits
	g := newGrouping(func(_ context.Context, lists [][]entry) (Link, error) {
		_, err := profile.sortEntries(lists...)
		return Link{}, err
	})
	for path := range paths {
		if err := g.add(ctx, path, Link{}); err != nil {
			return err
		}
	}
	_, err := g.finish(ctx)
	return err
}

// grouping gathers the entries of directories and hands over each directory that
// has ended.
type grouping struct {
	open  []openGroup // from the root to the one that is being filled
	ended func(context.Context, [][]entry) (Link, error)
}

type openGroup struct {
	name    string
	entries [][]entry // in lists that are not moved when others follow
	count   int
}

// listLen is the length of the longest list of entries.
const listLen = 1024

func (d *openGroup) add(e entry) {
	last := len(d.entries) - 1
	if last < 0 || len(d.entries[last]) == cap(d.entries[last]) {
		d.entries = append(d.entries, make([]entry, 0, min(max(d.count, 4), listLen)))
		last++
	}
	d.entries[last] = append(d.entries[last], e)
	d.count++
}

func newGrouping(ended func(context.Context, [][]entry) (Link, error)) grouping {
	return grouping{make([]openGroup, 1, MaxNames), ended}
}

func (g *grouping) add(ctx context.Context, path string, l Link) error {
	names, err := SplitPath(path)
	if err != nil {
		return err
	}
	last := len(names) - 1
	shared := 0
	for shared < last && shared+1 < len(g.open) && g.open[shared+1].name == names[shared] {
		shared++
	}
	if err := g.endBelow(ctx, shared); err != nil {
		return err
	}
	for _, name := range names[shared:last] {
		g.open = append(g.open, openGroup{name: name})
	}
	g.open[len(g.open)-1].add(newEntry(names[last], l))
	return nil
}

// endBelow ends the directories that lie more than depth names deep.
func (g *grouping) endBelow(ctx context.Context, depth int) error {
	for len(g.open)-1 > depth {
		l, err := g.end(ctx)
		if err != nil {
			return err
		}
		top := len(g.open) - 1
		name := g.open[top].name
		g.open = g.open[:top]
		g.open[top-1].add(newEntry(name, l))
	}
	return nil
}

// end hands over the directory that is being filled.
func (g *grouping) end(ctx context.Context) (Link, error) {
	l, err := g.ended(ctx, g.open[len(g.open)-1].entries)
	if err != nil {
		var path strings.Builder
		for _, d := range g.open[1:] {
			path.WriteString(d.name + "/")
		}
		return Link{}, fmt.Errorf("collection %q: %w", path.String(), err)
	}
	return l, nil
}

func (g *grouping) finish(ctx context.Context) (Link, error) {
	if err := g.endBelow(ctx, 0); err != nil {
		return Link{}, err
	}
	return g.end(ctx)
}
