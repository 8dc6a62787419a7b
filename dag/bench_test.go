package dag

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// The benchmarks measure what this package does and, beside it in the same run,
// what boxo does for the same result. They print medians: "ms" is ours, "boxo-ms"
// boxo's, "ratio" ours over boxo's. Collections have documents of about 2 kB with
// names of 29 bytes. Where boxo takes minutes it is left out.

// rounds is how often each side is measured at least; the median counts.
const rounds = 3

// beside runs ours and theirs in turn. Either prepares and returns what is to be
// measured; theirs can be nil.
func beside(b *testing.B, ours, theirs func() func()) {
	var times [2][]float64
	round := func() {
		for i, prepare := range []func() func(){ours, theirs} {
			if prepare == nil {
				continue
			}
			run := prepare()
			runtime.GC() // what is left of the other side is not this one's cost
			start := time.Now()
			run()
			times[i] = append(times[i], float64(time.Since(start).Nanoseconds())/1e6)
		}
	}
	for b.Loop() {
		round()
	}
	for len(times[0]) < rounds {
		round()
	}
	b.ReportMetric(0, "ns/op") // of one iteration, which means nothing here
	b.ReportMetric(median(times[0]), "ms")
	if theirs != nil {
		b.ReportMetric(median(times[1]), "boxo-ms")
		b.ReportMetric(median(times[0])/median(times[1]), "ratio")
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// boxoLimit is the largest collection that boxo is asked to handle.
const boxoLimit = 100_000

// sizes runs a benchmark for collections of 1,000 to 1,000,000 documents.
func sizes(b *testing.B, run func(b *testing.B, c *collection)) {
	for n := 1000; n <= 1_000_000; n *= 10 {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) { run(b, newCollection(b, n)) })
	}
}

// collection is a state whose documents lie in one directory, and a second one
// that differs in 100.
type collection struct {
	ctx      context.Context
	entries  []entry
	paths    []string  // of the entries
	replaced []entry   // 100 of the entries with other documents
	blocks   *memory   // the directory nodes, and one document
	trusted  unchecked // the same, as boxo has them: hashes not compared at each read
	root     cid.Cid   // a state with the collection "c"
	dir      Link      // the collection
	document []byte    // of the first entry
}

func newCollection(b *testing.B, n int) *collection {
	b.Helper()
	r := rand.New(rand.NewPCG(7, uint64(n)))
	c := &collection{ctx: b.Context(), entries: make([]entry, n), blocks: newMemory(), document: pattern(2000)}
	doc := RawBlock(c.document)
	must(b, c.blocks.Put(c.ctx, doc))
	for i := range c.entries {
		name := fmt.Sprintf("%016x%08x.json", r.Uint64(), i)
		c.paths = append(c.paths, "c/"+name)
		c.entries[i] = newEntry(name, Link{RawBlock([]byte(name)).CID, 1500 + r.Uint64N(1000)})
	}
	c.entries[0].link = doc.link()
	for _, i := range r.Perm(n)[:100] {
		e := c.entries[i]
		e.link.CID = RawBlock([]byte("another " + e.name)).CID
		c.replaced = append(c.replaced, e)
	}
	c.root = c.build(b, c.blocks).CID
	c.trusted = c.blocks.blocks
	d, err := openState(c.ctx, c.blocks, c.root)
	must(b, err)
	c.dir, _, err = d.lookup(c.ctx, "c")
	must(b, err)
	return c
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *collection) build(b *testing.B, sink Sink) Link {
	builder := NewBuilder(sink)
	for i, e := range c.entries {
		if err := builder.Add(c.ctx, c.paths[i], e.link); err != nil {
			b.Fatal(err)
		}
	}
	l, err := builder.Finish(c.ctx)
	must(b, err)
	return l
}

func (c *collection) edit(b *testing.B, sink Sink) Link {
	var e Editor
	for _, r := range c.replaced {
		must(b, e.Put("c/"+r.name, r.link))
	}
	l, err := e.Apply(c.ctx, c.trusted, sink, c.root)
	must(b, err)
	return l
}

// boxoStore gives boxo the nodes of the collection.
func (c *collection) boxoStore(b *testing.B) ipld.DAGService {
	ds := newBoxo()
	for k, data := range c.blocks.blocks {
		if k.Prefix().Codec == codecPB {
			n, err := merkledag.DecodeProtobuf(data)
			must(b, err)
			must(b, n.SetCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12}))
			must(b, ds.Add(c.ctx, n))
		}
	}
	return ds
}

// BenchmarkBuild builds a state from nothing, documents already written.
func BenchmarkBuild(b *testing.B) {
	sizes(b, func(b *testing.B, c *collection) {
		ours := func() func() { return func() { c.build(b, &gathering{}) } }
		var theirs func() func()
		if len(c.entries) <= boxoLimit {
			theirs = func() func() { return func() { boxoDirectory(b, profile, c.entries) } }
		}
		beside(b, ours, theirs)
	})
}

// BenchmarkEdit replaces 100 documents, beside boxo in two ways: "boxo=built" has
// the directory in memory since it was built; "boxo=loaded" loads from its nodes
// what it needs, as the Editor does.
func BenchmarkEdit(b *testing.B) {
	for _, loaded := range []bool{false, true} {
		name := "boxo=built"
		if loaded {
			name = "boxo=loaded"
		}
		b.Run(name, func(b *testing.B) {
			sizes(b, func(b *testing.B, c *collection) {
				ours := func() func() { return func() { c.edit(b, &gathering{}) } }
				var theirs func() func()
				switch {
				case len(c.entries) > boxoLimit:
				case loaded:
					theirs = func() func() {
						ds := c.boxoStore(b)
						return func() { boxoEdit(b, boxoLoad(b, ds, c.dir.CID), c.replaced) }
					}
				default:
					theirs = func() func() {
						d := boxoBuild(b, profile, c.entries)
						return func() { boxoEdit(b, d, c.replaced) }
					}
				}
				beside(b, ours, theirs)
			})
		})
	}
}

func boxoLoad(b *testing.B, ds ipld.DAGService, dir cid.Cid) uio.Directory {
	n, err := ds.Get(b.Context(), dir)
	must(b, err)
	d, err := uio.NewDirectoryFromNode(ds, n)
	must(b, err)
	d.SetMaxHAMTFanout(profile.fanout)
	d.SetHAMTShardingSize(profile.threshold)
	d.SetSizeEstimationMode(uio.SizeEstimationBlock)
	return d
}

func boxoEdit(b *testing.B, d uio.Directory, replaced []entry) {
	for _, e := range replaced {
		must(b, d.AddChild(b.Context(), e.name, linked{e.link}))
	}
	_, err := d.GetNode()
	must(b, err)
}

// BenchmarkDiff finds 100 replaced documents. boxo has nothing to compare with.
func BenchmarkDiff(b *testing.B) {
	sizes(b, func(b *testing.B, c *collection) {
		after := c.edit(b, c.blocks).CID
		beside(b, func() func() {
			return func() {
				found := 0
				for _, err := range Diff(c.ctx, c.trusted, c.root, after) {
					must(b, err)
					found++
				}
				if found != len(c.replaced) {
					b.Fatalf("%d changes, not %d", found, len(c.replaced))
				}
			}
		}, nil)
	})
}

// BenchmarkScan finds the links of all directory nodes, which lie in memory as they
// lie in a CAR: ours scans, boxo decodes.
func BenchmarkScan(b *testing.B) {
	sizes(b, func(b *testing.B, c *collection) {
		var car bytes.Buffer
		must(b, WritePartialCAR(c.ctx, &car, directoriesOnly{c.trusted}, nil, c.root))
		nodes, _ := sections(b, car.Bytes())
		nodes = slices.DeleteFunc(nodes, func(n Block) bool { return n.CID.Type() == cid.Raw })
		links := 0
		beside(b, func() func() {
			return func() {
				for _, n := range nodes {
					// Of the bytes alone, as boxo decodes them.
					if _, err := scanNode(n.Data, func(rawLink[[]byte]) error { links++; return nil }); err != nil {
						b.Fatal(err)
					}
				}
			}
		}, func() func() {
			return func() {
				for _, n := range nodes {
					d, err := merkledag.DecodeProtobuf(n.Data)
					if err != nil {
						b.Fatal(err)
					}
					links -= len(d.Links())
				}
			}
		})
		if links != 0 {
			b.Fatalf("%d links more than boxo finds", links)
		}
	})
}

// directoriesOnly has no documents: they are all empty.
type directoriesOnly struct{ unchecked }

func (s directoriesOnly) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if c.Type() == cid.Raw {
		return nil, nil
	}
	return s.unchecked.Get(ctx, c)
}

// BenchmarkWalk visits every node of a state once, the documents by CID alone.
// boxo's walk does the same with nodes that it decodes; it is spared the documents
// too, which it would read.
func BenchmarkWalk(b *testing.B) {
	sizes(b, func(b *testing.B, c *collection) {
		nodes := uint64(0)
		ours := func() func() {
			return func() {
				for _, err := range Walk(c.ctx, c.trusted, Limits{}, c.root) {
					if err != nil {
						b.Fatal(err)
					}
					nodes++
				}
			}
		}
		var theirs func() func()
		if len(c.entries) <= boxoLimit {
			theirs = func() func() {
				ds := c.boxoStore(b)
				return func() { nodes -= boxoWalk(b, ds, c.root) }
			}
		}
		beside(b, ours, theirs)
		if theirs != nil && nodes != 0 {
			b.Fatalf("%d nodes more than boxo finds", nodes)
		}
	})
}

func boxoWalk(b *testing.B, ds ipld.DAGService, root cid.Cid) uint64 {
	seen := cid.NewSet()
	links := func(ctx context.Context, c cid.Cid) ([]*ipld.Link, error) {
		if c.Prefix().Codec == codecRaw {
			return nil, nil
		}
		return ipld.GetLinks(ctx, ds, c)
	}
	must(b, merkledag.Walk(b.Context(), links, root, seen.Visit))
	return uint64(seen.Len())
}

// BenchmarkProof writes the proof of one document of 2 kB and verifies it.
func BenchmarkProof(b *testing.B) {
	sizes(b, func(b *testing.B, c *collection) {
		path := "c/" + c.entries[0].name
		size := 0
		beside(b, func() func() {
			return func() {
				var car, got bytes.Buffer
				must(b, WriteProof(c.ctx, &car, c.blocks, c.root, path))
				size = car.Len()
				_, err := VerifyProof(c.ctx, &car, c.root, path, &got)
				must(b, err)
				if !bytes.Equal(got.Bytes(), c.document) {
					b.Fatal("another document")
				}
			}
		}, nil)
		b.ReportMetric(float64(size), "bytes")
	})
}

// BenchmarkMemory measures the heap of a Builder: "B/entry" when all entries of one
// directory are in it, names and CIDs included, "peak-B/entry" the most that was
// seen while it was laid out.
func BenchmarkMemory(b *testing.B) {
	sizes(b, func(b *testing.B, c *collection) {
		before := heap()
		peak := before
		builder := NewBuilder(sinkFunc(func() { peak = max(peak, heapNow()) }))
		for i := range c.entries {
			// Names and CIDs of their own, as documents that are read have them.
			name, data := fmt.Sprintf("c/%024x.json", i), []byte{byte(i), byte(i >> 8), byte(i >> 16)}
			must(b, builder.Add(c.ctx, name, RawBlock(data).link()))
		}
		full := heap()
		_, err := builder.Finish(c.ctx)
		must(b, err)
		n := float64(len(c.entries))
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(full-before)/n, "B/entry")
		b.ReportMetric(float64(peak-before)/n, "peak-B/entry")
	})
}

type sinkFunc func()

func (f sinkFunc) Put(context.Context, ...Block) error { f(); return nil }

// heap is the live heap in bytes.
func heap() uint64 {
	runtime.GC()
	return heapNow()
}

func heapNow() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
