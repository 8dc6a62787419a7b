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
// cores. It holds the entries of the directories that have not ended: about
// 150 bytes and the name for each. Directories that do not keep together are
// refused in the end; an [Editor] takes documents in any order.
//
// It is not safe for concurrent use. After an error it must not be used.
type Builder struct {
	paths grouping
}

// NewBuilder returns a Builder that puts the nodes of directories to sink.
func NewBuilder(sink Sink) *Builder {
	return &Builder{newGrouping(func(ctx context.Context, entries []entry) (Link, error) {
		return profile.writeDirectory(ctx, sink, entries)
	})}
}

// Add adds the document at path, which has been put before. Of a directory with
// equal names (ErrName) or names that collide (ErrNameCollision) no node is put;
// see [CheckPaths] to know before anything is.
func (b *Builder) Add(ctx context.Context, path string, l Link) error {
	return b.paths.add(ctx, path, l)
}

// Finish puts the nodes that are left and returns the link to the state.
func (b *Builder) Finish(ctx context.Context) (Link, error) { return b.paths.finish(ctx) }

// CheckPaths reports whether the documents of one state can have these paths,
// which come in an order that a [Builder] takes. The error wraps ErrName or
// ErrNameCollision.
func CheckPaths(paths iter.Seq[string]) error {
	ctx := context.Background() // nothing below waits
	g := newGrouping(func(_ context.Context, entries []entry) (Link, error) {
		return Link{}, sortEntries(entries)
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
	ended func(context.Context, []entry) (Link, error)
}

type openGroup struct {
	name    string
	entries []entry
}

func newGrouping(ended func(context.Context, []entry) (Link, error)) grouping {
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
	d := &g.open[len(g.open)-1]
	d.entries = append(d.entries, newEntry(names[last], l))
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
		g.open[top-1].entries = append(g.open[top-1].entries, newEntry(name, l))
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
