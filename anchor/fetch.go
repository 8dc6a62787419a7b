package anchor

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/tlog"
)

// Fetcher reads one path of a tlog-tiles prefix, such as "checkpoint" or
// "tile/0/000.p/5" (c2sp.org/tlog-tiles): over HTTP, over libp2p, from a store.
// Nothing that it returns is believed. It must stop reading after
// [MaxEndpointSize] bytes and be safe for concurrent use. Its errors become
// [ErrUnavailable], unless they wrap [ErrCorrupt].
type Fetcher interface {
	ReadEndpoint(ctx context.Context, path string) ([]byte, error)
}

// parallelFetches is how many tiles are fetched at a time.
const parallelFetches = 8

// localBudget bounds the bytes of IPFS blocks that one path of a local log
// root may cost: directories and the file.
const localBudget = 16 << 20

// LocalFetcher reads from the log root whose blocks src holds.
func LocalFetcher(src dag.Source, root cid.Cid) Fetcher { return localFetcher{src, root} }

type localFetcher struct {
	src  dag.Source
	root cid.Cid
}

func (f localFetcher) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	b, err := dag.ReadDocument(ctx, &boundedSource{f.src, localBudget}, f.root, path)
	if err != nil {
		return nil, sourceError(err)
	}
	return b, nil
}

// boundedSource keeps a root that somebody else made from costing more than a
// log's tiles can. It serves one read.
type boundedSource struct {
	src  dag.Source
	left int
}

func (s *boundedSource) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	b, err := s.src.Get(ctx, c)
	if s.left -= len(b); err == nil && s.left < 0 {
		return nil, fmt.Errorf("%w: more than %d bytes for one file of a log", ErrCorrupt, localBudget)
	}
	return b, err
}

// fetch reads one path of at most limit bytes and sorts the errors.
func fetch(ctx context.Context, f Fetcher, path string, limit int) ([]byte, error) {
	b, err := f.ReadEndpoint(ctx, path)
	switch {
	case err == nil && len(b) > limit:
		return nil, fmt.Errorf("%w: %s has %d bytes, more than %d", ErrCorrupt, path, len(b), limit)
	case err == nil:
		return b, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", path, ctx.Err())
	case errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnavailable):
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, path, err)
}

// tileReader reads tiles from a Fetcher, as torchwood wants them: of exactly the
// right length, not authenticated yet.
type tileReader struct {
	f Fetcher
	// saved, if not nil, gets each hash tile once it is authenticated.
	saved func(tlog.Tile, []byte)
}

func (r *tileReader) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	return fetch(ctx, r.f, path, MaxEndpointSize)
}

func (r *tileReader) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, t := range tiles {
		if r.saved != nil {
			r.saved(t, data[i])
		}
	}
}

func (r *tileReader) ReadTiles(ctx context.Context, tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, parallelFetches)
	var wg sync.WaitGroup
	var once sync.Once
	var first error // the others end because of it
	for i, t := range tiles {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var err error
			if data[i], err = r.readTile(ctx, t); err != nil {
				once.Do(func() { first = err })
				cancel()
			}
		})
	}
	wg.Wait()
	return data, first
}

// readTile reads a tile. Where a partial tile is gone, the full tile that
// replaced it begins with the same bytes (c2sp.org/tlog-tiles, "Partial Tiles").
func (r *tileReader) readTile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	b, err := fetch(ctx, r.f, torchwood.TilePath(t), tileLimit(t))
	if errors.Is(err, ErrUnavailable) && t.W < torchwood.TileWidth {
		full := t
		full.W = torchwood.TileWidth
		if whole, fullErr := fetch(ctx, r.f, torchwood.TilePath(full), tileLimit(full)); fullErr == nil {
			b, err = cutTile(whole, t)
		}
	}
	if err != nil {
		return nil, err
	}
	if t.L != entryLevel && len(b) != t.W*tlog.HashSize || t.L == entryLevel && len(b) < 2*t.W {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrCorrupt, torchwood.TilePath(t), len(b))
	}
	return b, nil
}

func tileLimit(t tlog.Tile) int {
	if t.L == entryLevel {
		return MaxEndpointSize
	}
	return t.W * tlog.HashSize
}

// cutTile returns the first t.W hashes or entries of a full tile.
func cutTile(whole []byte, t tlog.Tile) ([]byte, error) {
	if t.L != entryLevel {
		return whole[:min(len(whole), t.W*tlog.HashSize)], nil
	}
	rest := whole
	for range t.W {
		var err error
		if _, rest, err = torchwood.ReadTileEntry(rest); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	return whole[:len(whole)-len(rest)], nil
}
