package dag

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	"pgregory.net/rapid"
)

// memory is a store of IPFS blocks.
type memory struct {
	mu     sync.Mutex
	blocks map[cid.Cid][]byte
}

func newMemory() *memory { return &memory{blocks: map[cid.Cid][]byte{}} }

func (m *memory) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blocks[c]
	if !ok {
		return nil, fmt.Errorf("IPFS block %s: %w", c, ErrNotFound)
	}
	return data, Block{c, data}.Check()
}

func (m *memory) Has(_ context.Context, c cid.Cid) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.blocks[c]
	return ok, nil
}

func (m *memory) Put(_ context.Context, blocks ...Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range blocks {
		m.blocks[b.CID] = b.Data
	}
	return nil
}

func newBoxo() ipld.DAGService {
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	return merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))
}

func boxoBuild(t fataler, p layout, entries []entry) uio.Directory {
	t.Helper()
	d, err := uio.NewDirectory(newBoxo(),
		uio.WithMaxHAMTFanout(p.fanout),
		uio.WithCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12}),
		uio.WithSizeEstimationMode(uio.SizeEstimationBlock))
	if err != nil {
		t.Fatal(err)
	}
	d.SetHAMTShardingSize(p.threshold)
	for _, e := range entries {
		if err := d.AddChild(context.Background(), e.name, linked{e.link}); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// boxoDirectory is the oracle: the directory as boxo builds it from nothing.
func boxoDirectory(t fataler, p layout, entries []entry) Link {
	t.Helper()
	d := boxoBuild(t, p, entries)
	n, err := d.GetNode()
	if err != nil {
		t.Fatal(err)
	}
	size, err := n.Size()
	if err != nil {
		t.Fatal(err)
	}
	return Link{n.Cid(), size}
}

// list is every entry of the directory at link.
func (p layout) list(ctx context.Context, src Source, link Link) ([]entry, error) {
	n, err := getNode(ctx, src, link.CID)
	if err != nil {
		return nil, err
	}
	d, err := p.directoryOf(src, link, n)
	if err != nil {
		return nil, err
	}
	return d.entries(ctx)
}

// linked is a node of which boxo needs only the link.
type linked struct{ l Link }

func (n linked) Cid() cid.Cid                            { return n.l.CID }
func (n linked) Size() (uint64, error)                   { return n.l.Size, nil }
func (n linked) RawData() []byte                         { return nil }
func (n linked) String() string                          { return n.l.CID.String() }
func (n linked) Loggable() map[string]any                { return nil }
func (n linked) Resolve([]string) (any, []string, error) { return nil, nil, errors.ErrUnsupported }
func (n linked) Tree(string, int) []string               { return nil }
func (n linked) ResolveLink([]string) (*ipld.Link, []string, error) {
	return nil, nil, errors.ErrUnsupported
}
func (n linked) Copy() ipld.Node               { return n }
func (n linked) Links() []*ipld.Link           { return nil }
func (n linked) Stat() (*ipld.NodeStat, error) { return &ipld.NodeStat{}, nil }

// someEntries returns n entries; names and sizes follow from the seed.
func someEntries(seed uint64, n int) []entry {
	r := rand.New(rand.NewPCG(seed, 1))
	entries := make([]entry, n)
	for i := range entries {
		name := fmt.Sprintf("%024x.json", i*7919+int(seed))
		if i%17 == 0 {
			name = fmt.Sprintf("ünïcode %d", i)
		}
		size := uint64(1) << (r.IntN(34)) // Tsizes of one to five bytes
		entries[i] = entry{name, nameHash(name), Link{RawBlock([]byte(name)).CID, size}}
	}
	return entries
}

func TestDirectoryEqualsBoxo(t *testing.T) {
	ctx := context.Background()
	for _, p := range []layout{profile, {16, 1 << 10, 7}, {32, 2 << 10, 0}, {64, 16 << 10, 0}, {256, 256 << 10, 0}} {
		for _, n := range []int{0, 1, 2, p.fanout, p.fanout + 1, 50, 100, 255, 256, 257, 3000} {
			entries := someEntries(uint64(n), n)
			want := boxoDirectory(t, p, entries)
			m := newMemory()
			got, err := p.writeDirectory(ctx, m, entries)
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("fan-out %d, threshold %d, %d entries: %v, boxo says %v", p.fanout, p.threshold, n, got, want)
			}
			back, err := p.list(ctx, m, got)
			if err != nil || len(back) != n {
				t.Errorf("%d entries: read back %d: %v", n, len(back), err)
			}
		}
	}
}

// The directory that is exactly at the threshold is basic, one byte more is not.
func TestDirectoryThreshold(t *testing.T) {
	ctx := context.Background()
	entries := someEntries(3, 40)
	for pad := 1; pad < 200; pad++ {
		name := strings.Repeat("p", pad)
		all := append(entries[:40:40], entry{name, nameHash(name), entries[0].link})
		want := boxoDirectory(t, profile, all)
		got, err := profile.writeDirectory(ctx, Discard, all)
		if err != nil || got != want {
			t.Fatalf("padding %d: %v %v, boxo says %v", pad, got, err, want)
		}
	}
}

func TestDirectoryProperty(t *testing.T) {
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		p := layout{rapid.SampledFrom([]int{16, 32, 64}).Draw(t, "fanout"), rapid.IntRange(64, 4096).Draw(t, "threshold"), rapid.IntRange(2, 60).Draw(t, "part")}
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9é]{1,40}`), 0, 120, rapid.ID[string]).Draw(t, "names")
		var entries []entry
		for _, n := range names {
			entries = append(entries, entry{n, nameHash(n), Link{RawBlock([]byte(n)).CID, rapid.Uint64Range(0, 1<<40).Draw(t, "size")}})
		}
		want := boxoDirectory(t, p, entries)
		m := newMemory()
		got, err := p.writeDirectory(ctx, m, entries)
		if err != nil || got != want {
			t.Fatalf("%v %v, boxo says %v", got, err, want)
		}
		back, err := p.list(ctx, m, got)
		if err != nil || len(back) != len(names) {
			t.Fatalf("read back %d of %d: %v", len(back), len(names), err)
		}
	})
}

// Two names with equal murmur3-x64-64 (found by inverting the finaliser's blocks
// for names of sixteen bytes).
func TestNameCollision(t *testing.T) {
	a, b := collidingNames(t)
	var tree Editor
	for _, n := range []string{"c/" + a, "c/" + b} {
		if err := tree.Put(n, RawBlock(nil).link()); err != nil {
			t.Fatal(err)
		}
	}
	if err := CheckPaths(slices.Values([]string{"c/" + a, "c/" + b})); !errors.Is(err, ErrNameCollision) {
		t.Errorf("check: %v", err)
	}
	m := newMemory()
	if _, err := tree.Apply(context.Background(), nil, m, cid.Undef); !errors.Is(err, ErrNameCollision) || len(m.blocks) > 0 {
		t.Errorf("write: %v, %d IPFS blocks written", err, len(m.blocks))
	}
}

func TestEditorPaths(t *testing.T) {
	l := RawBlock(nil).link()
	deep := strings.Repeat("d/", MaxNames-1)
	for _, bad := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a\x00b", "a/\xff", strings.Repeat("n", 256), deep + "a/b",
	} {
		if err := new(Editor).Put(bad, l); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"a", ".hidden", "a b", "ä/ö", strings.Repeat("n", 255), deep + "a", "...", "\n"} {
		if err := new(Editor).Put(good, l); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	var tree Editor
	if err := tree.Put("a/b", l); err != nil {
		t.Fatal(err)
	}
	for _, taken := range []string{"a", "a/b/c"} {
		if err := tree.Put(taken, l); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", taken, err)
		}
	}
}
