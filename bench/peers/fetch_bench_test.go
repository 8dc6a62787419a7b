package peers

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// documentCount is the size of the workload where PEERS_STATE names none.
const documentCount = 5_000

// workload returns two states as folders, the second of which has few changes: those in
// $PEERS_STATE, state-000 and state-001, or small ones made here.
func workload(b *testing.B) (first, next string) {
	b.Helper()
	if top := os.Getenv("PEERS_STATE"); top != "" {
		return filepath.Join(top, "state-000"), filepath.Join(top, "state-001")
	}
	b.Logf("PEERS_STATE names no states: %d documents are made instead", documentCount)
	first, next = b.TempDir(), b.TempDir()
	for _, dir := range []string{first, next} {
		for i := range documentCount {
			write(b, dir, fmt.Sprintf("collection-%02d/%016x.json", i%20, i*7919), 1000+i%2500)
		}
		for i := range 4 {
			write(b, dir, fmt.Sprintf("attachments/%d.bin", i), (i+1)<<20)
		}
	}
	for i := range documentCount / 1000 {
		write(b, next, fmt.Sprintf("collection-%02d/changed-%d.json", i, i), 2000)
	}
	return first, next
}

// seconds are the times of the rounds of several works.
type seconds map[string][]float64

// time adds how long f takes.
func (s seconds) time(work string, f func()) {
	start := time.Now()
	f()
	s[work] = append(s[work], time.Since(start).Seconds())
}

func (s seconds) median(work string) float64 {
	times := slices.SortedFunc(slices.Values(s[work]), cmp.Compare[float64])
	n := len(times)
	return (times[(n-1)/2] + times[n/2]) / 2
}

// BenchmarkFetch fetches a save point over loopback to an empty place, and then the
// next one: with ipfs-savepoint from its gateway; with kubo from a kubo, by bitswap;
// and, for the floor, the same CAR to a file with a plain HTTP client and fsync.
func BenchmarkFetch(b *testing.B) {
	first, next := workload(b)
	p := newProduct(b)
	a, z := p.take(b, first), p.take(b, next)
	server := p.serve(b)
	from := newKubo(b)
	for _, s := range []taken{a, z} {
		archive := filepath.Join(b.TempDir(), "save.car")
		p.run(b, "export", s.Savepoint, archive)
		from.run(b, nil, "dag", "import", archive)
	}
	source := from.start(b)
	times := seconds{}
	for b.Loop() {
		reader := product{p.program, filepath.Join(b.TempDir(), "repo")}
		fetch := func(s taken) {
			reader.run(b, "fetch", s.Savepoint, "--trust", p.trust(), "--from", server.Gateway)
		}
		times.time("ours", func() { fetch(a) })
		times.time("ours-next", func() { fetch(z) })
		times.time("plain", func() {
			download(b, server.Gateway+"/ipfs/"+a.Savepoint+"?format=car", filepath.Join(b.TempDir(), "plain.car"))
		})

		d := newKubo(b).start(b)
		d.ask(b, "swarm", "connect", source.swarm)
		times.time("kubo", func() { d.pinAll(b, a) })
		times.time("kubo-next", func() { d.pinAll(b, z) })
		d.stop(b)
	}
	b.ReportMetric(0, "ns/op")
	for work := range times {
		b.ReportMetric(times.median(work), work+"-s")
	}
	b.ReportMetric(times.median("ours")/times.median("plain"), "of-plain")
	b.ReportMetric(times.median("ours")/times.median("kubo"), "of-kubo")
	b.ReportMetric(times.median("ours-next")/times.median("kubo-next"), "next-of-kubo-next")
}

// pinAll has the daemon pin a save point, however long that takes.
func (d daemon) pinAll(b *testing.B, s taken) {
	b.Helper()
	output(b, d.unlimited("pin", "add", s.Savepoint))
}

// download writes what a URL gives to a file and syncs it.
func download(b *testing.B, url, file string) {
	b.Helper()
	resp, err := http.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status)
	}
}
