package anchor

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/tlog"
)

// entryLevel is the level of entry bundles, as tlog.Tile counts it.
const entryLevel = -1

// tree is what has to be in memory to make a log longer: its right edge, the
// last unfinished bundle, and links to all tiles. The writer of a log and a
// mirror extend it in the same way and differ in who signs the result. Nothing
// gets into it that was not made here or checked against a signed root.
type tree struct {
	tlog.Tree
	edge    map[int]edgeTile    // by level: the rightmost tile where it is partial
	bundle  []byte              // the rightmost bundle where it is partial
	full    map[int][]dag.Link  // by level: full tiles and bundles by their number
	partial map[string]dag.Link // by path: partial tiles and bundles of recent sizes
	recent  []recent

	// base is the directory that the tree was read from or written to last; undefined
	// before. changed are the links, by path, that the directory of the tree as it is has
	// otherwise: undefined ones are of files that have gone.
	base    cid.Cid
	changed map[string]dag.Link
}

type edgeTile struct {
	tlog.Tile
	data []byte
}

func newTree() *tree {
	return &tree{
		Tree:    tlog.Tree{Hash: emptyRoot()},
		edge:    map[int]edgeTile{},
		full:    map[int][]dag.Link{},
		partial: map[string]dag.Link{},
	}
}

// clone returns a tree that can be extended without a change to t, so that a
// failed extension leaves nothing behind. The bundle is copied, since a sink may
// keep the bytes of an earlier one; of tiles only links are held.
func (t *tree) clone() *tree {
	c := *t
	c.edge = maps.Clone(t.edge)
	c.bundle = slices.Clone(t.bundle)
	c.full = maps.Clone(t.full)
	for level, links := range c.full {
		c.full[level] = slices.Clip(links)
	}
	c.partial = maps.Clone(t.partial)
	c.changed = maps.Clone(t.changed)
	return &c
}

// change notes that a file of the directory has another link, or none any more.
func (t *tree) change(path string, l dag.Link) {
	if !t.base.Defined() {
		return
	}
	if t.changed == nil {
		t.changed = map[string]dag.Link{}
	}
	t.changed[path] = l
}

// add appends records and returns the full tiles and bundles that this finishes.
// After an error t must not be used any more.
func (t *tree) add(records [][]byte) ([]dag.Block, error) {
	var blocks []dag.Block
	old := t.N
	if int64(len(records)) > maxSize-old {
		return nil, fmt.Errorf("a log of %d records is full", old)
	}
	added := map[int64]tlog.Hash{}
	hashes := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			h, ok := added[x]
			if !ok {
				e := t.edge[tlog.TileForIndex(torchwood.TileHeight, x).L]
				var err error
				if h, err = tlog.HashFromTile(e.Tile, e.data, x); err != nil {
					return nil, err
				}
			}
			out[i] = h
		}
		return out, nil
	})
	for _, r := range records {
		if len(r) > MaxRecordSize {
			return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrRecordSize, len(r), MaxRecordSize)
		}
		stored, err := tlog.StoredHashesForRecordHash(t.N, tlog.RecordHash(r), hashes)
		if err != nil {
			return nil, err
		}
		for i, h := range stored {
			added[tlog.StoredHashIndex(0, t.N)+int64(i)] = h
		}
		if t.bundle, err = torchwood.AppendTileEntry(t.bundle, r); err != nil {
			return nil, err
		}
		if t.N++; t.N%torchwood.TileWidth == 0 {
			blocks = append(blocks, t.keep(entryLevel, t.bundle))
			t.bundle = nil
		}
	}
	var err error
	if t.Hash, err = tlog.TreeHash(t.N, hashes); err != nil {
		return nil, err
	}
	edge := maps.Clone(t.edge)
	for _, tile := range tlog.NewTiles(torchwood.TileHeight, old, t.N) {
		data, err := tlog.ReadTileData(tile, hashes)
		if err != nil {
			return nil, err
		}
		if tile.W == torchwood.TileWidth {
			blocks = append(blocks, t.keep(tile.L, data))
			delete(edge, tile.L)
		} else {
			edge[tile.L] = edgeTile{tile, data}
		}
	}
	t.edge = edge
	return blocks, nil
}

// keep links the next full tile of a level.
func (t *tree) keep(level int, data []byte) dag.Block {
	b := dag.RawBlock(data)
	l := dag.Link{CID: b.CID, Size: uint64(len(data))}
	t.change(torchwood.TilePath(fullTile(level, int64(len(t.full[level])))), l)
	t.full[level] = append(t.full[level], l)
	return b
}

// publish makes the present size a published one: it returns its partial tiles
// and bundle, and forgets those of sizes that are no longer recent.
func (t *tree) publish(now time.Time) []dag.Block {
	before := t.recent
	t.recent = publish(before, t.N, now)
	var blocks []dag.Block
	for _, tile := range partialTiles(t.N) {
		data := t.bundle
		if tile.L != entryLevel {
			data = t.edge[tile.L].data
		}
		b := dag.RawBlock(data)
		blocks = append(blocks, b)
		path, l := torchwood.TilePath(tile), dag.Link{CID: b.CID, Size: uint64(len(data))}
		t.change(path, l)
		t.partial[path] = l
	}
	// A tile of a size that went stays only if it is one of the oldest size that stays:
	// tiles at the right edge do not come back.
	stays := partialTiles(t.recent[0].Size)
	for _, gone := range before[:len(before)+1-len(t.recent)] {
		for _, tile := range partialTiles(gone.Size) {
			if !slices.Contains(stays, tile) {
				path := torchwood.TilePath(tile)
				t.change(path, dag.Link{})
				delete(t.partial, path)
			}
		}
	}
	return blocks
}

// fullTile is the nth full tile, or bundle, of a level.
func fullTile(level int, n int64) tlog.Tile {
	return tlog.Tile{H: torchwood.TileHeight, L: level, N: n, W: torchwood.TileWidth}
}

// partialTiles returns the partial tiles, and bundle, of a tree of the given
// size (c2sp.org/tlog-tiles, "Partial Tiles").
func partialTiles(size int64) []tlog.Tile {
	var tiles []tlog.Tile
	for level, n := 0, size; n > 0; level, n = level+1, n/torchwood.TileWidth {
		w := int(n % torchwood.TileWidth)
		if w == 0 {
			continue
		}
		tile := tlog.Tile{H: torchwood.TileHeight, L: level, N: n / torchwood.TileWidth, W: w}
		tiles = append(tiles, tile)
		if level == 0 {
			tile.L = entryLevel
			tiles = append(tiles, tile)
		}
	}
	return tiles
}

// fullTiles returns how many full tiles a tree of the given size has at a level,
// entryLevel included.
func fullTiles(size int64, level int) int64 {
	for range max(level, 0) + 1 {
		size /= torchwood.TileWidth
	}
	return size
}
