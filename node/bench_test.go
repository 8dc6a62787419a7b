package node

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// benchState puts a state of n documents of 1 to 4 kB in 20 collections.
func benchState(b *testing.B, r *Repo, n int) cid.Cid {
	b.Helper()
	state := dag.NewBuilder(r.Blocks)
	for i := range n {
		block := dag.RawBlock(bytesOf(uint64(i), 1000+i*7919%3000))
		must(b, r.Blocks.Put(ctx, block))
		must(b, state.Add(ctx, fmt.Sprintf("collection-%02d/%08d.json", i/(n/20+1), i), dag.Link{CID: block.CID, Size: uint64(len(block.Data))}))
	}
	root, err := state.Finish(ctx)
	must(b, err)
	must(b, r.Blocks.Sync(ctx))
	return root.CID
}

// BenchmarkFetch fetches a DAG over loopback, and downloads the same CAR from the
// same gateway to a file, with an fsync, as curl would.
func BenchmarkFetch(b *testing.B) {
	from, err := Create(ctx, filepath.Join(b.TempDir(), "from"))
	must(b, err)
	defer from.Close()
	root := benchState(b, from, 100_000)
	gateway, err := from.Gateway(nil)
	must(b, err)
	srv := httptest.NewServer(gateway)
	defer srv.Close()
	var ours, plain []float64
	round := func() {
		start := time.Now()
		resp, err := http.Get(srv.URL + "/ipfs/" + root.String() + "?format=car")
		must(b, err)
		f, err := os.Create(filepath.Join(b.TempDir(), "plain.car"))
		must(b, err)
		_, err = io.Copy(f, resp.Body)
		must(b, err)
		must(b, f.Sync())
		must(b, f.Close())
		resp.Body.Close()
		plain = append(plain, time.Since(start).Seconds())
		must(b, os.Remove(f.Name()))

		to, err := Create(ctx, filepath.Join(b.TempDir(), fmt.Sprint("to", len(ours))))
		must(b, err)
		src, err := to.Dial(srv.URL)
		must(b, err)
		start = time.Now()
		must(b, to.Fetch(ctx, []*Remote{src}, root, nil))
		ours = append(ours, time.Since(start).Seconds())
		must(b, src.Close())
		must(b, to.Close())
		must(b, os.RemoveAll(to.Dir()))
	}
	for b.Loop() {
		round()
	}
	for len(ours) < 3 {
		round()
	}
	slices.Sort(ours)
	slices.Sort(plain)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours[len(ours)/2], "s")
	b.ReportMetric(plain[len(plain)/2], "plain-s")
	b.ReportMetric(ours[len(ours)/2]/plain[len(plain)/2], "ratio")
}
