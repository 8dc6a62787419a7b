package stores

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/boxo/datastore/dshelp"
	ds "github.com/ipfs/go-datastore"
	flatfs "github.com/ipfs/go-ds-flatfs"
	pebbleds "github.com/ipfs/go-ds-pebble"
)

const (
	blockCount = 100_000
	batch      = 1000
	gets       = 20_000
)

var ctx = context.Background()

// block returns a block of 1 to 2 KiB, half of which compresses.
func block(i int) dag.Block {
	var key [32]byte
	for j := range 8 {
		key[j] = byte(i >> (8 * j))
	}
	rng := rand.NewChaCha8(key)
	data := make([]byte, 1024+int(rng.Uint64()%1024))
	rng.Read(data[:len(data)/2])
	copy(data[len(data)/2:], fmt.Sprintf(`{"policy":%d,"state":"..............................."}`, i))
	return dag.RawBlock(data)
}

func blocks(n int) []dag.Block {
	out := make([]dag.Block, n)
	for i := range out {
		out[i] = block(i)
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// store is what is measured. put is durable when it returns, get checks the hash.
type store struct {
	put   func([]dag.Block) error
	get   func(dag.Block) error
	close func() error
	seal  func() error
}

func ours(b testing.TB, dir string) store {
	s, err := segments.Open(ctx, dir)
	must(b, err)
	return store{
		put:   func(blocks []dag.Block) error { must(b, s.Put(ctx, blocks...)); return s.Sync(ctx) },
		get:   func(blk dag.Block) error { _, err := s.Get(ctx, blk.CID); return err },
		close: s.Close,
		seal:  func() error { return s.Seal(ctx) },
	}
}

func datastore(b testing.TB, d ds.Batching) store {
	return store{
		put: func(blocks []dag.Block) error {
			w, err := d.Batch(ctx)
			must(b, err)
			for _, blk := range blocks {
				must(b, w.Put(ctx, dshelp.MultihashToDsKey(blk.CID.Hash()), blk.Data))
			}
			must(b, w.Commit(ctx))
			return d.Sync(ctx, ds.NewKey("/"))
		},
		get: func(blk dag.Block) error {
			data, err := d.Get(ctx, dshelp.MultihashToDsKey(blk.CID.Hash()))
			must(b, err)
			return dag.Block{CID: blk.CID, Data: data}.Check()
		},
		close: d.Close,
	}
}

// pebbleStore has the settings of kubo's profile.
func pebbleStore(b testing.TB, dir string) store {
	d, err := pebbleds.NewDatastore(dir, pebbleds.WithPebbleOpts(&pebble.Options{FormatMajorVersion: pebble.FormatNewest}))
	must(b, err)
	return datastore(b, d)
}

func flatfsStore(b testing.TB, dir string) store {
	d, err := flatfs.CreateOrOpen(dir, flatfs.NextToLast(2), true)
	must(b, err)
	return datastore(b, d)
}

func fill(b testing.TB, s store, all []dag.Block) float64 {
	start := time.Now()
	for part := range slices.Chunk(all, batch) {
		must(b, s.put(part))
	}
	return time.Since(start).Seconds()
}

// dir is a new folder below $STORES_DIR, or else where tests have theirs.
func dir(b testing.TB) string {
	if top := os.Getenv("STORES_DIR"); top != "" {
		d, err := os.MkdirTemp(top, "stores-")
		must(b, err)
		b.Cleanup(func() { os.RemoveAll(d) })
		return d
	}
	return b.TempDir()
}

func BenchmarkPut(b *testing.B) {
	all := blocks(blockCount)
	for b.Loop() {
		seconds := map[string]float64{}
		for name, open := range map[string]func(testing.TB, string) store{"ours": ours, "pebble": pebbleStore, "flatfs": flatfsStore} {
			s := open(b, dir(b))
			seconds[name] = fill(b, s, all)
			must(b, s.close())
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(seconds["ours"], "s")
		b.ReportMetric(seconds["pebble"], "pebble-s")
		b.ReportMetric(seconds["flatfs"], "flatfs-s")
		b.ReportMetric(seconds["ours"]/seconds["pebble"], "of-pebble")
		b.ReportMetric(seconds["ours"]/seconds["flatfs"], "of-flatfs")
	}
}

func timeGets(b testing.TB, s store, order []dag.Block) float64 {
	start := time.Now()
	for _, blk := range order {
		must(b, s.get(blk))
	}
	return float64(time.Since(start).Microseconds()) / float64(len(order))
}

func BenchmarkGet(b *testing.B) {
	all := blocks(blockCount)
	rng := rand.New(rand.NewPCG(1, 2))
	var random []dag.Block
	for range gets {
		random = append(random, all[rng.IntN(len(all))])
	}
	for b.Loop() {
		p := pebbleStore(b, dir(b))
		fill(b, p, all)
		d := dir(b)
		s := ours(b, d)
		fill(b, s, all)
		pebbleUS := timeGets(b, p, random)
		active := timeGets(b, s, random)
		must(b, s.seal())
		must(b, s.close())
		s = ours(b, d)
		pebbleInOrder := timeGets(b, p, all)
		sealed := timeGets(b, s, all)
		sealedRandom := timeGets(b, s, random[:2000])
		must(b, s.close())
		must(b, p.close())
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(pebbleUS, "pebble-us")
		b.ReportMetric(pebbleInOrder, "pebble-in-order-us")
		b.ReportMetric(active, "unsealed-us")
		b.ReportMetric(active/pebbleUS, "unsealed-of-pebble")
		b.ReportMetric(sealed, "sealed-in-order-us")
		b.ReportMetric(sealed/pebbleUS, "sealed-in-order-of-pebble")
		b.ReportMetric(sealedRandom, "sealed-random-us")
	}
}

// BenchmarkOpen opens a store of a million blocks, as a crash leaves it: with as
// large an active segment as there can be.
func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		d := dir(b)
		s, err := segments.Open(ctx, d)
		must(b, err)
		for i := range 1_000_000 {
			must(b, s.Put(ctx, dag.RawBlock(fmt.Appendf(nil, "a small block, number %d, as many are", i))))
		}
		must(b, s.Sync(ctx))
		must(b, s.Close())
		var times []float64
		for range 5 {
			start := time.Now()
			s, err := segments.Open(ctx, d)
			must(b, err)
			times = append(times, float64(time.Since(start).Milliseconds()))
			if s.Len() != 1_000_000 {
				b.Fatalf("%d blocks", s.Len())
			}
			must(b, s.Close())
		}
		slices.Sort(times)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(times[2], "ms")
	}
}

// All stores give back what they were given.
func TestStores(t *testing.T) {
	all := blocks(500)
	for name, open := range map[string]func(testing.TB, string) store{"ours": ours, "pebble": pebbleStore, "flatfs": flatfsStore} {
		d := filepath.Join(t.TempDir(), name)
		must(t, os.Mkdir(d, 0o700))
		s := open(t, d)
		fill(t, s, all)
		if s.seal != nil {
			must(t, s.seal())
		}
		timeGets(t, s, all)
		must(t, s.close())
	}
}
