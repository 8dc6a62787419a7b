package anchor

import (
	"bytes"
	"context"
	"fmt"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

// BundleWidth is how many records a full bundle holds.
const BundleWidth = torchwood.TileWidth

// Bundle returns the records of one entry bundle: those from index n*[BundleWidth] on,
// as many as are in the log. It fetches the bundle, the tile of their hashes and the
// log's right edge, and nothing else: with it one reads a log from its end. The error
// wraps ErrNotIncluded if the log has no such bundle.
func (v *View) Bundle(ctx context.Context, n int64) ([]Entry, error) {
	start := n * BundleWidth
	if n < 0 || n > maxSize/BundleWidth || start >= v.head.Size {
		return nil, fmt.Errorf("%w: bundle %d of a log of %d", ErrNotIncluded, n, v.head.Size)
	}
	width := int(min(BundleWidth, v.head.Size-start))
	fail := func(err error) ([]Entry, error) { return nil, fmt.Errorf("bundle %d: %w", n, verification(err)) }
	rest, err := v.tiles.readTile(ctx, tlog.Tile{H: torchwood.TileHeight, L: entryLevel, N: n, W: width})
	if err != nil {
		return fail(err)
	}
	entries := make([]Entry, width)
	indexes := make([]int64, width)
	hashes := make([]tlog.Hash, width)
	for i := range entries {
		var record []byte
		if record, hashes[i], rest, err = cutEntry(rest); err != nil {
			return fail(err)
		}
		entries[i] = Entry{start + int64(i), bytes.Clone(record)}
		indexes[i] = tlog.StoredHashIndex(0, start+int64(i))
	}
	if len(rest) > 0 {
		return fail(fmt.Errorf("%d bytes follow its records", len(rest)))
	}
	signed, err := v.hashes(ctx).ReadHashes(indexes)
	if err != nil {
		return fail(err)
	}
	for i, h := range hashes {
		if h != signed[i] {
			return fail(fmt.Errorf("record %d is not the one that was signed", entries[i].Index))
		}
	}
	return entries, nil
}
