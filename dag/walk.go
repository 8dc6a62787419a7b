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
	DefaultNodes = 1 << 30
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
			return getUnlessRaw(ctx, src, c)
		})
		if err := w.walk(roots); err != nil && err != errStop {
			yield(cid.Undef, err)
		}
	}
}

// getUnlessRaw reads what may have links.
func getUnlessRaw(ctx context.Context, src Source, c cid.Cid) ([]byte, error) {
	if codecOf(c) == codecRaw {
		return nil, nil
	}
	return src.Get(ctx, c)
}

var (
	// errStop ends a walk that the caller wants no more of.
	errStop = errors.New("stop")
	// errSkip keeps a walk from what is below a node.
	errSkip = errors.New("skip")
)

// Has tells which IPFS blocks are there without reading them.
type Has interface {
	Has(ctx context.Context, c cid.Cid) (bool, error)
}

// Gap is an IPFS block that is missing from a DAG.
type Gap struct {
	CID cid.Cid
	// dir is the path of the node that links to it, shared by many gaps, name what
	// the link adds.
	dir, name string
}

// Path is the first path on which the block was missed, as gateways write it below
// the root: "state/vc_document/0001.json". A shard of a collection has the
// collection's path, a part of a document the document's.
func (g Gap) Path() string { return joinPath(g.dir, g.name) }

func (g Gap) String() string { return fmt.Sprintf("%s (%q)", g.CID, g.Path()) }

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
			dir, name := w.place()
			gaps = append(gaps, Gap{c, dir, name})
			err = errSkip
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
	above []opened // from the root to the parent of the node that is visited
}

// cidKey is a CID without a pointer, of which millions cost a collector nothing.
type cidKey [cidLen]byte

// opened is a node of which the links are being followed.
type opened struct {
	Block
	name   []byte // of the link that is followed
	placed bool   // path and typ are known
	path   string // of the node
	typ    uint64 // of a UnixFS node; 0 of others
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
	if err == errSkip || err == nil && codecOf(c) == codecRaw {
		return nil
	}
	if err != nil {
		return err
	}
	block := Block{c, data}
	w.above = append(w.above, opened{Block: block})
	top := len(w.above) - 1
	var below error // of its own, and not of the block's links
	err = scanLinks(block, func(l rawLink[[]byte]) error {
		w.above[top].name = l.name
		below = w.visit(l.cid)
		return below
	})
	w.above = w.above[:top]
	if below != nil {
		return below
	}
	return err
}

// place is where the node that is visited lies: the path of its parent, and what the
// link adds to it.
func (w *walker) place() (dir, name string) {
	if len(w.above) == 0 {
		return "", ""
	}
	last := len(w.above) - 1
	return w.pathOf(last), w.above[last].pathName()
}

// maxPath is where paths are cut: no document's below a manifest is longer.
const maxPath = (MaxNames + 1) * (MaxNameLen + 1)

// pathOf is the path of a node above. It is found once for each.
func (w *walker) pathOf(i int) string {
	o := &w.above[i]
	if o.placed {
		return o.path
	}
	o.placed = true
	if i > 0 {
		path := joinPath(w.pathOf(i-1), w.above[i-1].pathName())
		o.path = path[:min(len(path), maxPath)]
	}
	if codecOf(o.CID) == codecPB {
		if n, err := decodeNode(o.Data); err == nil {
			o.typ = n.typ
		}
	}
	return o.path
}

// pathName is what the link that is followed adds to the path of its node, which is
// known.
func (o *opened) pathName() string {
	switch {
	case codecOf(o.CID) != codecPB || o.typ == typeDirectory:
		return string(o.name)
	case o.typ == typeHAMTShard && len(o.name) > profile.prefixLen():
		return string(o.name[profile.prefixLen():])
	}
	return ""
}
