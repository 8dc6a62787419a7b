package dag

import (
	"context"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ipfs/go-cid"
)

// BenchmarkProfile measures what the two numbers of the CID profile decide, for
// one collection whose documents have names of 29 bytes:
//
//	nodes      directory nodes
//	dirB       their bytes
//	pathB      bytes of the nodes between the root and one document: its proof
//	upd1B      bytes of the nodes that one replaced document writes anew
//	upd100B    the same for 100 replaced documents
//	fetch-ms   the whole DAG as a CAR over HTTP on loopback, every block checked;
//	           documents as short as their names
//
// The table in docs/formats.md comes from: go test -run - -bench Profile -benchtime 1x ./dag
func BenchmarkProfile(b *testing.B) {
	for _, n := range []int{25, 50, 100, 1_000, 10_000, 100_000, 1_000_000} {
		for _, fanout := range []int{16, 32, 64, 256} {
			for _, threshold := range []int{1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 256 << 10} {
				if (fanout == 256) != (threshold == 256<<10) {
					continue // the standard profile, to compare with
				}
				if n > 10_000 && threshold != 4<<10 && fanout != 256 {
					continue // far above every threshold all are the same
				}
				b.Run(fmt.Sprintf("n=%d/F=%d/T=%d", n, fanout, threshold>>10), func(b *testing.B) {
					measureProfile(b, layout{fanout: fanout, threshold: threshold}, n)
				})
			}
		}
	}
}

func measureProfile(b *testing.B, p layout, n int) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(7, uint64(n)))
	entries := make([]entry, n)
	for i := range entries {
		name := fmt.Sprintf("%016x%08x.json", r.Uint64(), i)
		entries[i] = entry{name, nameHash(name), Link{RawBlock([]byte(name)).CID, 2000}}
	}
	var fetchMS float64
	var nodes, dirB, pathB, upd1, upd100 int
	for b.Loop() {
		m := newMemory()
		root, err := p.writeDirectory(ctx, m, entries)
		if err != nil {
			b.Fatal(err)
		}
		nodes, dirB = len(m.blocks), 0
		for _, data := range m.blocks {
			dirB += len(data)
		}
		for _, e := range entries {
			if err := m.Put(ctx, RawBlock([]byte(e.name))); err != nil {
				b.Fatal(err)
			}
		}
		pathB = 0
		const sample = 200
		for range sample {
			pathB += pathBytes(ctx, b, p, m, root.CID, entries[r.IntN(n)].name)
		}
		pathB /= sample
		upd1 = updateBytes(ctx, b, p, m, entries, r, 1)
		upd100 = updateBytes(ctx, b, p, m, entries, r, 100)
		fetchMS = fetchTime(b, m, root.CID)
	}
	b.ReportMetric(float64(nodes), "nodes")
	b.ReportMetric(float64(dirB), "dirB")
	b.ReportMetric(float64(pathB), "pathB")
	b.ReportMetric(float64(upd1), "upd1B")
	b.ReportMetric(float64(upd100), "upd100B")
	b.ReportMetric(fetchMS, "fetch-ms")
}

func pathBytes(ctx context.Context, b *testing.B, p layout, m *memory, c cid.Cid, name string) int {
	total := 0
	width := bits.Len(uint(p.fanout - 1))
	for used := 0; ; used += width {
		data, err := m.Get(ctx, c)
		if err != nil {
			b.Fatal(err)
		}
		total += len(data)
		n, err := decodeNode(data)
		if err != nil {
			b.Fatal(err)
		}
		if n.typ == typeDirectory {
			return total
		}
		prefix := p.prefix(p.slot(nameHash(name), used))
		next := cid.Undef
		for _, l := range n.links {
			if l.Name == prefix {
				next = l.CID.cid()
			} else if l.Name == prefix+name {
				return total
			}
		}
		c = next
	}
}

// updateBytes replaces documents at random and counts the nodes that were not
// there; the average of several rounds.
func updateBytes(ctx context.Context, b *testing.B, p layout, m *memory, entries []entry, r *rand.Rand, changes int) int {
	total := 0
	const rounds = 3
	for range rounds {
		changed := append([]entry(nil), entries...)
		for range changes {
			i := r.IntN(len(changed))
			changed[i].link.CID = RawBlock([]byte(fmt.Sprint(changed[i].name, r.Uint64()))).CID
		}
		fresh := &onlyNew{have: m}
		if _, err := p.writeDirectory(ctx, fresh, changed); err != nil {
			b.Fatal(err)
		}
		total += fresh.bytes
	}
	return total / rounds
}

type onlyNew struct {
	have  *memory
	bytes int
}

func (o *onlyNew) Put(ctx context.Context, blocks ...Block) error {
	for _, b := range blocks {
		if ok, _ := o.have.Has(ctx, b.CID); !ok {
			o.bytes += len(b.Data)
		}
	}
	return nil
}

// fetchTime fetches the whole DAG; each document is as short as its name, so that
// the directory nodes decide.
func fetchTime(b *testing.B, m *memory, root cid.Cid) float64 {
	ctx := context.Background()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := WriteCAR(ctx, w, m, root); err != nil {
			b.Error(err)
		}
	}))
	defer srv.Close()
	best := 0.0
	for range 3 {
		start := b.Elapsed()
		resp, err := http.Get(srv.URL)
		if err != nil {
			b.Fatal(err)
		}
		cr, err := ReadCAR(resp.Body)
		if err == nil {
			_, err = cr.CopyDAG(ctx, Discard, cr.Roots, nil)
		}
		resp.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
		if ms := float64((b.Elapsed() - start).Microseconds()) / 1000; best == 0 || ms < best {
			best = ms
		}
	}
	return best
}
