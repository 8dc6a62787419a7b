package anchor

import (
	"context"
	"errors"
	"fmt"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/tlog"
)

// checkpointPath is where a tlog-tiles prefix has its signed head.
const checkpointPath = "checkpoint"

// writeDirectory puts the checkpoint and the directory of all tiles and returns
// the log root CID. The tiles themselves have been put before. The directory is made
// from the one that the tree was read from or written to last, at the cost of what
// changed since, or anew where that one is not to be had: which way is not to be seen
// from the outcome.
//
// A tree that was written is not changed by being written again, with another checkpoint.
func (t *tree) writeDirectory(ctx context.Context, store Store, checkpoint []byte) (cid.Cid, error) {
	b := dag.RawBlock(checkpoint)
	if err := store.Put(ctx, b); err != nil {
		return cid.Undef, fmt.Errorf("put of checkpoint: %w", err)
	}
	link := dag.Link{CID: b.CID, Size: uint64(len(checkpoint))}
	root, nodes, err := t.directory(ctx, store, link)
	if err == nil {
		err = store.Put(ctx, nodes...)
	}
	if err != nil {
		return cid.Undef, fmt.Errorf("put of log directory: %w", err)
	}
	if !t.base.Defined() || len(t.changed) > 0 {
		t.base, t.changed = root, nil
	}
	return root, nil
}

// directory returns the directory of the tree and its nodes, as far as they may be new.
func (t *tree) directory(ctx context.Context, src dag.Source, checkpoint dag.Link) (cid.Cid, gathering, error) {
	if t.base.Defined() {
		var nodes gathering
		if root, err := t.editDirectory(ctx, src, &nodes, checkpoint); err == nil {
			return root, nodes, nil
		}
		// It may be damaged, or collected as garbage: the same tree with other cosignatures
		// has taken its place.
	}
	var nodes gathering
	root, err := t.buildDirectory(ctx, &nodes, checkpoint)
	return root, nodes, err
}

// gathering keeps what is put.
type gathering []dag.Block

func (g *gathering) Put(_ context.Context, blocks ...dag.Block) error {
	*g = append(*g, blocks...)
	return nil
}

// editDirectory makes the directory from t.base.
func (t *tree) editDirectory(ctx context.Context, src dag.Source, sink dag.Sink, checkpoint dag.Link) (cid.Cid, error) {
	var d dag.Editor
	if err := d.Put(checkpointPath, checkpoint); err != nil {
		return cid.Undef, err
	}
	for path, l := range t.changed {
		err := d.Delete(path)
		if l.CID.Defined() {
			err = d.Put(path, l)
		}
		if err != nil {
			return cid.Undef, err
		}
	}
	root, err := d.Apply(ctx, src, sink, t.base)
	return root.CID, err
}

// buildDirectory makes the directory from nothing.
func (t *tree) buildDirectory(ctx context.Context, sink dag.Sink, checkpoint dag.Link) (cid.Cid, error) {
	var d dag.Editor
	if err := d.Put(checkpointPath, checkpoint); err != nil {
		return cid.Undef, err
	}
	for level, links := range t.full {
		for n, l := range links {
			if err := d.Put(torchwood.TilePath(fullTile(level, int64(n))), l); err != nil {
				return cid.Undef, err
			}
		}
	}
	for path, l := range t.partial {
		if err := d.Put(path, l); err != nil {
			return cid.Undef, err
		}
	}
	root, err := d.Apply(ctx, nil, sink, cid.Undef)
	return root.CID, err
}

// loadTree reads back what writeDirectory wrote: exactly the tiles that the head
// and its recent sizes call for. It authenticates the right edge and the last
// bundle against the signed root, so that whatever is appended extends it. The
// error wraps ErrCorrupt or ErrUnavailable.
func loadTree(ctx context.Context, src dag.Source, s stored) (*tree, error) {
	t := newTree()
	t.Tree, t.recent, t.base = s.tree(), s.recent, s.Root
	links := map[string]dag.Link{}
	for doc, err := range dag.Documents(ctx, src, s.Root) {
		if err != nil {
			return nil, fmt.Errorf("log directory: %w", sourceError(err))
		}
		links[doc.Path] = doc.Link
	}
	fail := func(path string) (*tree, error) {
		return nil, fmt.Errorf("%w: log directory %s: %s is missing or wrong", ErrCorrupt, s.Root, path)
	}
	if l := links[checkpointPath]; l.CID != dag.RawBlock(s.Checkpoint).CID {
		return fail(checkpointPath)
	}
	count := 1
	take := func(tile tlog.Tile) (dag.Link, bool) {
		l, ok := links[torchwood.TilePath(tile)]
		count++
		return l, ok && l.CID.Type() == cid.Raw && (tile.L == entryLevel || l.Size == uint64(tile.W*tlog.HashSize))
	}
	for level := entryLevel; level <= 0 || fullTiles(t.N, level) > 0; level++ {
		for n := range fullTiles(t.N, level) {
			tile := fullTile(level, n)
			l, ok := take(tile)
			if !ok {
				return fail(torchwood.TilePath(tile))
			}
			t.full[level] = append(t.full[level], l)
		}
	}
	for _, r := range t.recent {
		for _, tile := range partialTiles(r.Size) {
			path := torchwood.TilePath(tile)
			if _, ok := t.partial[path]; ok {
				continue
			}
			l, ok := take(tile)
			if !ok {
				return fail(path)
			}
			t.partial[path] = l
		}
	}
	if count != len(links) {
		return nil, fmt.Errorf("%w: log directory %s has %d files, not %d", ErrCorrupt, s.Root, len(links), count)
	}
	return t, t.authenticate(ctx, linkFetcher{src, links})
}

// authenticate fills in the right edge and the unfinished bundle from f, checked
// against the root hash.
func (t *tree) authenticate(ctx context.Context, f Fetcher) error {
	if t.N == 0 {
		return nil
	}
	tiles := &tileReader{f: f}
	tiles.saved = func(tile tlog.Tile, data []byte) {
		if tile.L >= 0 && tile.W < torchwood.TileWidth {
			t.edge[tile.L] = edgeTile{tile, data}
		}
	}
	if _, err := torchwood.TileHashReaderWithContext(ctx, t.Tree, tiles).ReadHashes(torchwood.RightEdge(t.N)); err != nil {
		return fmt.Errorf("right edge of the log: %w", verification(err))
	}
	start := (t.N - 1) / torchwood.TileWidth * torchwood.TileWidth
	var bundle []byte
	for e, err := range newView(f, Head{Size: t.N, RootHash: t.Hash}).Entries(ctx, start) {
		if err == nil {
			bundle, err = torchwood.AppendTileEntry(bundle, e.Record)
		}
		if err != nil {
			return fmt.Errorf("last bundle of the log: %w", err)
		}
	}
	if t.N%torchwood.TileWidth != 0 {
		t.bundle = bundle
	}
	return nil
}

// linkFetcher reads tiles of a directory whose links are known.
type linkFetcher struct {
	src   dag.Source
	links map[string]dag.Link
}

func (f linkFetcher) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	l, ok := f.links[path]
	if !ok {
		return nil, fmt.Errorf("%s: %w", path, dag.ErrNotFound)
	}
	b, err := f.src.Get(ctx, l.CID)
	if err != nil {
		return nil, sourceError(err)
	}
	return b, nil
}

// sourceError tells wrong blocks from absent ones.
func sourceError(err error) error {
	for _, wrong := range []error{dag.ErrHash, dag.ErrNotCanonical, dag.ErrUnsupported} {
		if errors.Is(err, wrong) {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	for _, known := range []error{ErrCorrupt, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// CheckDirectory lists somebody's log root, which src has, and requires that there is
// nothing in it but files that a log of so many records can have, no more of them than
// maxFiles, and each one raw IPFS block of a length that it can have. So a directory that
// passes is one that can be fetched. Nothing is said about the bytes in the files. The
// error wraps ErrCorrupt or ErrUnavailable, or is the context's.
func CheckDirectory(ctx context.Context, src dag.Source, root cid.Cid, size int64, maxFiles int) error {
	n := 0
	for doc, err := range dag.Documents(ctx, src, root) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("log directory: %w", sourceError(err))
		}
		if n++; n > maxFiles {
			return fmt.Errorf("%w: more than %d files in the directory of a log of %d records", ErrCorrupt, maxFiles, size)
		}
		if doc.Link.CID.Prefix().Codec != cid.Raw || doc.Bytes > uint64(maxLength(doc.Path, size)) {
			return fmt.Errorf("%w: %q, of %d bytes, in the directory of a log of %d records", ErrCorrupt, doc.Path, doc.Bytes, size)
		}
	}
	return nil
}

// maxLength is how many bytes a file can have in the directory of a log of so many
// records; 0 if there can be none of that name.
func maxLength(path string, size int64) int {
	if path == checkpointPath {
		return MaxCheckpointSize
	}
	t, err := torchwood.ParseTilePath(path)
	if err != nil {
		return 0
	}
	hashes := size // on the tile's level
	for range t.L {
		hashes /= torchwood.TileWidth
	}
	switch {
	case t.N > hashes/torchwood.TileWidth || t.N*torchwood.TileWidth+int64(t.W) > hashes:
		return 0
	case t.L == entryLevel:
		return t.W * (2 + MaxRecordSize)
	}
	return t.W * tlog.HashSize
}
