package dag

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/ipfs/go-cid"
)

// ErrLimit: a walk ended at one of its [Limits].
var ErrLimit = errors.New("DAG is beyond the limit")

// Limits bound a walk through a DAG that nobody has verified. The zero value means
// the defaults, which no save point reaches: a state has at most 16 collections of
// 16 shards above one another and four levels of a document.
type Limits struct {
	Depth int    // nodes above a node; DefaultDepth if 0
	Nodes uint64 // different nodes; DefaultNodes if 0
}

const (
	DefaultDepth = 512
	DefaultNodes = 1 << 32
)

// Walk returns the CIDs of the DAGs at roots, each once, parents first, depth
// first, in the order of the links. Nodes are read for their links alone and not
// decoded; raw blocks, that is documents and chunks, are not read. It holds 36
// bytes, times two for the table they are in, for every node it has met, and the
// nodes above the current one. An error ends the walk.
func Walk(ctx context.Context, src Source, limits Limits, roots ...cid.Cid) iter.Seq2[cid.Cid, error] {
	return func(yield func(cid.Cid, error) bool) {
		w := newWalker(ctx, limits, func(c cid.Cid) ([]byte, error) {
			if !yield(c, nil) {
				return nil, errStop
			}
			if codecOf(c) == codecRaw {
				return nil, nil
			}
			return src.Get(ctx, c)
		})
		if err := w.walk(roots); err != nil && err != errStop {
			yield(cid.Undef, err)
		}
	}
}

// errStop ends a walk that the caller wants no more of.
var errStop = errors.New("stop")

// Has tells which IPFS blocks are there without reading them.
type Has interface {
	Has(ctx context.Context, c cid.Cid) (bool, error)
}

// Gap is an IPFS block that is missing from a DAG.
type Gap struct {
	CID cid.Cid
	// Path is the first path on which it was missed, as gateways write it below
	// the root: "state/vc_document/0001.json". A shard of a collection has the
	// collection's path, a part of a document the document's.
	Path string
}

func (g Gap) String() string { return fmt.Sprintf("%s (%q)", g.CID, g.Path) }

// Missing returns the IPFS blocks of the DAG at root that src has not, each
// once, in depth-first order: what is below a missing node is not known yet.
// Raw blocks are asked for, not read.
func Missing(ctx context.Context, src interface {
	Source
	Has
}, root cid.Cid) ([]Gap, error) {
	var gaps []Gap
	w := newWalker(ctx, Limits{}, nil)
	w.open = func(c cid.Cid) ([]byte, error) {
		var data []byte
		var err error
		there := true
		if codecOf(c) == codecRaw {
			there, err = src.Has(ctx, c)
		} else if data, err = src.Get(ctx, c); errors.Is(err, ErrNotFound) {
			there, err = false, nil
		}
		if err == nil && !there {
			gaps = append(gaps, Gap{c, w.path()})
		}
		return data, err
	}
	err := w.walk([]cid.Cid{root})
	return gaps, err
}

// ReadAll reads every IPFS block of the DAG at root once, so that src checks it.
func ReadAll(ctx context.Context, src Source, root cid.Cid) error {
	return newWalker(ctx, Limits{}, func(c cid.Cid) ([]byte, error) { return src.Get(ctx, c) }).walk([]cid.Cid{root})
}

// walker visits every node of a DAG once, parents first, depth first, in the
// order of the links.
type walker struct {
	ctx    context.Context
	limits Limits
	// open is called for every node. It returns the bytes whose links are to be
	// followed.
	open  func(c cid.Cid) ([]byte, error)
	seen  map[cidKey]struct{}
	above []step // from the root to the node that is open
}

// cidKey is a CID without a pointer, of which millions cost a collector nothing.
type cidKey [cidLen]byte

// step is a link that was followed: from which node, by which name.
type step struct {
	from Block
	name []byte
}

func newWalker(ctx context.Context, limits Limits, open func(cid.Cid) ([]byte, error)) *walker {
	if limits.Depth == 0 {
		limits.Depth = DefaultDepth
	}
	if limits.Nodes == 0 {
		limits.Nodes = DefaultNodes
	}
	return &walker{ctx: ctx, limits: limits, open: open, seen: map[cidKey]struct{}{}}
}

func (w *walker) walk(roots []cid.Cid) error {
	for _, c := range roots {
		if err := CheckCID(c); err != nil {
			return err
		}
		if err := w.visit(c.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) visit(b []byte) error {
	met := len(w.seen)
	if w.seen[cidKey(b)] = struct{}{}; len(w.seen) == met {
		return nil
	}
	switch {
	case len(w.above) > w.limits.Depth:
		return fmt.Errorf("%w: more than %d nodes deep", ErrLimit, w.limits.Depth)
	case uint64(met) >= w.limits.Nodes:
		return fmt.Errorf("%w: more than %d nodes", ErrLimit, w.limits.Nodes)
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	c := mustCast(b)
	data, err := w.open(c)
	if err != nil || data == nil {
		return err
	}
	block := Block{c, data}
	var below error // of its own, and not of the block's links
	err = scanLinks(block, func(l rawLink[[]byte]) error {
		w.above = append(w.above, step{block, l.name})
		below = w.visit(l.cid)
		w.above = w.above[:len(w.above)-1]
		return below
	})
	if below != nil {
		return below
	}
	return err
}

// path is that of the node that is open.
func (w *walker) path() string {
	path := ""
	for _, s := range w.above {
		path = joinPath(path, s.pathName())
	}
	return path
}

// pathName is what the link adds to a path.
func (s step) pathName() string {
	if codecOf(s.from.CID) != codecPB {
		return string(s.name)
	}
	n, err := decodeNode(s.from.Data)
	switch {
	case err != nil || n.typ == typeFile:
		return ""
	case n.typ == typeHAMTShard:
		if _, ok := profile.slotIndex(string(s.name)); !ok {
			return ""
		}
		return string(s.name[profile.prefixLen():])
	}
	return string(s.name)
}
