package savepoints

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// blocks is a store in memory.
type blocks map[cid.Cid][]byte

func (m blocks) Put(_ context.Context, list ...dag.Block) error {
	for _, b := range list {
		m[b.CID] = b.Data
	}
	return nil
}

func (m blocks) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	data, ok := m[c]
	if !ok {
		return nil, fmt.Errorf("%w: %s", dag.ErrNotFound, c)
	}
	return data, nil
}

// TestSampleDAG: a sample has the root and different other nodes, each of which is as
// likely as any other.
func TestSampleDAG(t *testing.T) {
	ctx := context.Background()
	store := blocks{}
	var tree dag.Editor
	for i := range 20 {
		link, _, err := dag.WriteDocument(ctx, store, strings.NewReader(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Put(fmt.Sprintf("c/%d", i), link); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.Apply(ctx, nil, store, cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	const rounds, n = 4000, 6
	times := map[cid.Cid]int{}
	for range rounds {
		sample, err := sampleDAG(ctx, store, root.CID, n, nothingGone)
		if err != nil || len(sample) != n || sample[0] != root.CID {
			t.Fatalf("%v: %v", sample, err)
		}
		for i, c := range sample {
			if slices.Contains(sample[:i], c) {
				t.Fatalf("%s is there twice", c)
			}
			times[c]++
		}
	}
	want := float64(rounds*(n-1)) / float64(len(store)-1)
	for c := range store {
		if got := float64(times[c]); c != root.CID && (got < want*0.8 || got > want*1.2) { // six standard deviations
			t.Errorf("%s is in %v samples, want about %v", c, got, want)
		}
	}
	all, err := sampleDAG(ctx, store, root.CID, 1000, nothingGone)
	if err != nil || len(all) != len(store) {
		t.Errorf("%d of %d nodes: %v", len(all), len(store), err)
	}
	for c := range store {
		if c != root.CID && c.Prefix().Codec != cid.Raw {
			delete(store, c)
			break
		}
	}
	if some, err := sampleDAG(ctx, store, root.CID, 1000, nothingGone); err == nil || some != nil {
		t.Errorf("of a DAG that is not whole it is %d nodes, %v", len(some), err)
	}
	delete(store, root.CID)
	if some, err := sampleDAG(ctx, store, root.CID, 8, nothingGone); err == nil || some != nil {
		t.Errorf("of nothing it is %v, %v", some, err)
	}
}

func TestHealthOf(t *testing.T) {
	for want, cases := range map[Health][]struct {
		own    bool
		others int
	}{
		Resilient: {{true, 2}, {true, 5}, {false, 2}},
		Healthy:   {{true, 1}},
		Fragile:   {{true, 0}, {false, 1}},
		Broken:    {{false, 0}},
	} {
		for _, c := range cases {
			if got := healthOf(c.own, c.others); got != want {
				t.Errorf("own %t, others %d: %s, want %s", c.own, c.others, got, want)
			}
		}
	}
}

func nothingGone(cid.Cid) bool { return false }
