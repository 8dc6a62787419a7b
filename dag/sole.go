package dag

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// Uses says what the bytes of some documents are used for.
type Uses struct {
	// Sole are the raw IPFS blocks that these documents consist of and that nothing
	// else uses, Shared is how many others they consist of.
	Sole   []cid.Cid
	Shared int
	// Roots are those of the given ones below which one of the documents is, and Kept those
	// of the kept ones that need raw blocks of them.
	Roots, Kept []cid.Cid
}

// Sole finds out what would go if documents went from the DAGs at roots, each of which
// keeps its directories: the raw IPFS blocks, of which alone documents consist, or large
// ones in the end, that no other document has a part in, nor anything that is reached
// otherwise than as a document of a directory. Of the DAGs at kept all is used. Raw
// blocks are not read and need not be there.
//
// It holds about 100 bytes for each node that may have links, and for each raw block of the
// documents. The error wraps ErrNotFound
// or ErrHash if one of these cannot be read: what is below it is not known.
func Sole(ctx context.Context, src Source, documents, roots, kept []cid.Cid) (Uses, error) {
	w := newSoleWalk(ctx, src)
	leaves, unread, err := w.add(documents)
	if err != nil {
		return Uses{}, err
	}
	var out Uses
	for _, c := range roots {
		met, err := w.visit(c, true, 0)
		if err != nil {
			return out, err
		}
		if met > 0 {
			out.Roots = append(out.Roots, c)
		}
	}
	if unread != nil && len(out.Roots) > 0 {
		return out, unread
	}
	w.keep()
	for _, c := range kept {
		met, err := w.visit(c, false, 0)
		if err != nil {
			return out, err
		}
		if met > 0 {
			out.Kept = append(out.Kept, c)
		}
	}
	for _, c := range leaves {
		if w.used[c] {
			out.Shared++
		} else {
			out.Sole = append(out.Sole, c)
		}
	}
	return out, nil
}

// Occurrences returns how many documents at or below each of some roots are among the
// given ones: directories that two roots have in common are read once. It holds about 100
// bytes for each node that may have links. Errors are those of [Sole].
func Occurrences(ctx context.Context, src Source, documents map[cid.Cid]bool, roots []cid.Cid) ([]uint64, error) {
	w := newSoleWalk(ctx, src)
	w.documents = documents
	out := make([]uint64, len(roots))
	for i, c := range roots {
		var err error
		if out[i], err = w.visit(c, true, 0); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Needed returns those of some raw IPFS blocks that something at or below roots needs which
// is none of the documents. A root of which some node cannot be read counts as far as it can.
// It holds as much as [Sole].
func Needed(ctx context.Context, src Source, blocks []cid.Cid, documents map[cid.Cid]bool, roots []cid.Cid) ([]cid.Cid, error) {
	w := newSoleWalk(ctx, src)
	w.documents = documents
	for _, c := range blocks {
		w.used[c] = false
	}
	for _, c := range roots {
		if _, err := w.visit(c, true, 0); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrHash) {
			return nil, err
		}
	}
	var out []cid.Cid
	for _, c := range blocks {
		if w.used[c] {
			out = append(out, c)
		}
	}
	return out, nil
}

// soleWalk visits every node once that may have links.
type soleWalk struct {
	ctx       context.Context
	src       Source
	documents map[cid.Cid]bool
	used      map[cid.Cid]bool // whether something else uses a raw block of theirs
	// seen is how many of the documents are below a node, as far as directories name them;
	// or how many uses of their raw blocks, if all is kept.
	seen map[cidKey]uint64
	kept bool
}

func newSoleWalk(ctx context.Context, src Source) *soleWalk {
	return &soleWalk{ctx, src, map[cid.Cid]bool{}, map[cid.Cid]bool{}, map[cidKey]uint64{}, false}
}

// add takes the documents, and returns their raw blocks, each once. unread says that a
// node of one is not there, which does not matter if nothing has that document.
func (w *soleWalk) add(documents []cid.Cid) (leaves []cid.Cid, unread, err error) {
	for _, c := range documents {
		w.documents[c] = true
		for part, err := range Walk(w.ctx, w.src, Limits{}, c) {
			if errors.Is(err, ErrNotFound) {
				unread = fmt.Errorf("document %s: %w", c, err)
				continue
			}
			if err != nil {
				return nil, nil, fmt.Errorf("document %s: %w", c, err)
			}
			if _, known := w.used[part]; !known && codecOf(part) == codecRaw {
				w.used[part] = false
				leaves = append(leaves, part)
			}
		}
	}
	return leaves, unread, nil
}

// keep makes what is visited from here on need its documents.
func (w *soleWalk) keep() {
	w.documents, w.seen, w.kept = nil, map[cidKey]uint64{}, true
}

// use notes that something uses a raw block, and returns how often that matters.
func (w *soleWalk) use(c cid.Cid) uint64 {
	if _, ok := w.used[c]; !ok {
		return 0
	}
	w.used[c] = true
	if w.kept {
		return 1
	}
	return 0
}

// visit returns how many of the documents are at or below a node, or if all is kept how
// many uses of their raw blocks. entry says that the node is reached as what a directory
// names, or as a root.
func (w *soleWalk) visit(c cid.Cid, entry bool, depth int) (met uint64, err error) {
	if err := CheckCID(c); err != nil {
		return 0, err
	}
	switch {
	case entry && w.documents[c]:
		return 1, nil
	case codecOf(c) == codecRaw:
		return w.use(c), nil
	case depth > DefaultDepth:
		return 0, fmt.Errorf("%w: more than %d nodes deep", ErrLimit, DefaultDepth)
	}
	key := cidKey(c.Bytes())
	if met, ok := w.seen[key]; ok {
		return met, nil
	}
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	data, err := w.src.Get(w.ctx, c)
	if err != nil {
		return 0, err
	}
	block := Block{c, data}
	entries := hasEntries(block)
	links, err := Links(block)
	if err != nil {
		return 0, err
	}
	for _, l := range links {
		below, err := w.visit(l, entries, depth+1)
		if err != nil {
			return 0, err
		}
		met += below
	}
	w.seen[key] = met
	return met, nil
}

// hasEntries reports whether what a node links to are, or lead to, entries of a directory.
func hasEntries(b Block) bool {
	if codecOf(b.CID) != codecPB {
		return false
	}
	n, err := decodeNode(b.Data)
	return err == nil && (n.typ == typeDirectory || n.typ == typeHAMTShard)
}
