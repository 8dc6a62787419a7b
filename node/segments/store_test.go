package segments

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car/v2"
	mh "github.com/multiformats/go-multihash"
)

// go-car, which does not know this store, reads its segments.
func TestSegmentsAreCARs(t *testing.T) {
	dir, blocks := fillStore(t, 0, 1, 5000, dag.MaxBlockSize, 20)
	f, err := os.Open(segmentPath(dir, 1))
	must(t, err)
	defer f.Close()
	r, err := car.NewBlockReader(f) // hashes each block
	must(t, err)
	if r.Version != 1 || len(r.Roots) != 1 || r.Roots[0].String() != "bafkqaaa" {
		t.Fatalf("version %d, roots %v", r.Version, r.Roots)
	}
	for i := range blocks {
		b, err := r.Next()
		must(t, err)
		if b.Cid() != blocks[i].CID || !bytes.Equal(b.RawData(), blocks[i].Data) {
			t.Fatalf("block %d: %s", i, b.Cid())
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestStoreRefusesForeignCIDs(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	defer s.Close()
	data := []byte("x")
	for name, c := range map[string]cid.Cid{
		"none": cid.Undef, "v0": sum(t, 0, cid.DagProtobuf, mh.SHA2_256, data),
		"sha2-512": sum(t, 1, cid.Raw, mh.SHA2_512, data), "identity": sum(t, 1, cid.Raw, mh.IDENTITY, data),
		"blake3": sum(t, 1, cid.Raw, mh.BLAKE3, data), "dag-json": sum(t, 1, cid.DagJSON, mh.SHA2_256, data),
	} {
		if err := s.Put(ctx, dag.Block{CID: c, Data: data}); !errors.Is(err, dag.ErrUnsupported) {
			t.Errorf("put of %s: %v", name, err)
		}
		if _, err := s.Get(ctx, c); !errors.Is(err, dag.ErrUnsupported) {
			t.Errorf("get of %s: %v", name, err)
		}
		if _, err := s.Has(ctx, c); !errors.Is(err, dag.ErrUnsupported) {
			t.Errorf("has of %s: %v", name, err)
		}
		if _, err := s.Size(ctx, c); !errors.Is(err, dag.ErrUnsupported) {
			t.Errorf("size of %s: %v", name, err)
		}
	}
	if err := s.Put(ctx, dag.RawBlock(make([]byte, dag.MaxBlockSize+1))); !errors.Is(err, dag.ErrUnsupported) {
		t.Errorf("put of a block that is too large: %v", err)
	}
	must(t, s.Put(ctx, dag.RawBlock(data))) // none of it spoils the store
	must(t, s.Sync(ctx))
	if s.Len() != 1 {
		t.Errorf("%d blocks", s.Len())
	}
}

func sum(t *testing.T, version, codec, hash uint64, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.Prefix{Version: version, Codec: codec, MhType: hash, MhLength: -1}.Sum(data)
	must(t, err)
	return c
}

func TestStoreSkipsWhatItHolds(t *testing.T) {
	dir, blocks := fillStore(t, 100, 200)
	before, err := os.Stat(segmentPath(dir, 1))
	must(t, err)
	s := openTestStore(t, dir)
	must(t, s.Put(ctx, blocks...))
	must(t, s.Sync(ctx))
	must(t, s.Close())
	after, err := os.Stat(segmentPath(dir, 1))
	must(t, err)
	if before.Size() != after.Size() {
		t.Fatalf("%d bytes became %d", before.Size(), after.Size())
	}
}

func TestClosedStore(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	b := dag.RawBlock([]byte("x"))
	must(t, s.Put(ctx, b))
	must(t, s.Sync(ctx))
	must(t, s.Close())
	if err := s.Put(ctx, dag.RawBlock([]byte("y"))); err == nil {
		t.Error("put after close")
	}
	if err := s.Sync(ctx); err == nil {
		t.Error("sync after close")
	}
	if data, err := s.Get(ctx, b.CID); err == nil {
		t.Errorf("get after close: %q", data)
	}
}

func TestStoreContext(t *testing.T) {
	dir, blocks := fillStore(t, 100)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Open(ended, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
	s := openTestStore(t, dir)
	defer s.Close()
	if _, err := s.Get(ended, blocks[0].CID); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
}

// Many goroutines put, sync and read the same blocks.
func TestStoreConcurrency(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir)
	var blocks []dag.Block
	for i := range 200 {
		blocks = append(blocks, dag.RawBlock(bytesOf(uint64(i), 50*i)))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range blocks {
				b := blocks[(i*7+g*25)%len(blocks)]
				if err := s.Put(ctx, b); err != nil {
					t.Error(err)
				}
				if i%60 == g {
					if err := s.Sync(ctx); err != nil {
						t.Error(err)
					}
				}
				data, err := s.Get(ctx, b.CID)
				if err != nil || !bytes.Equal(data, b.Data) {
					t.Errorf("block %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	must(t, s.Sync(ctx))
	must(t, s.Close())
	if got := sections(t, segmentPath(dir, 1)); len(got) != len(blocks) {
		t.Fatalf("%d sections for %d blocks", len(got), len(blocks))
	}
}
