package savepoints

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// What a name says next is kept by whoever holds what it said before, whatever the clock
// has done.
func TestNextName(t *testing.T) {
	ctx := context.Background()
	key, err := node.NewNameKey()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	heads := []anchor.Stored{
		{Root: dag.RawBlock([]byte("one")).CID, Size: 2, Signed: now.Add(-time.Hour)},
		{Root: dag.RawBlock([]byte("cosigned again")).CID, Size: 2, Signed: now.Add(-time.Hour)},
		{Root: dag.RawBlock([]byte("grown")).CID, Size: 3, Signed: now},
	}
	for _, clock := range []time.Duration{-nameLife / 2, -time.Hour, -time.Minute, 0, time.Second, time.Hour} {
		for _, head := range heads[1:] {
			repo, err := node.Create(ctx, filepath.Join(t.TempDir(), "repo"))
			if err != nil {
				t.Fatal(err)
			}
			defer repo.Close()
			var held node.Name
			for i, h := range []anchor.Stored{heads[0], head} {
				next := nextName(h, held, now.Add(time.Duration(i)*clock))
				signed, err := node.SignName(key, next)
				if err == nil {
					err = repo.PutName(signed.Name, signed.Record)
				}
				if err == nil {
					held, err = repo.Name(signed.Name)
				}
				if err != nil || held.Value != "/ipfs/"+h.Root.String() || nameSize(held) != h.Size {
					t.Errorf("record %d, %s later, size %d: %+v, %v", i, clock, h.Size, held, err)
				}
			}
		}
	}
}

func TestNameSequence(t *testing.T) {
	for _, c := range []struct {
		size int64
		age  time.Duration
		want uint64
	}{
		{0, 0, 0}, {1, 59 * time.Second, 1 << 16}, {1, time.Minute, 1<<16 + 1}, {2, -time.Hour, 2 << 16},
		{3, 65535 * time.Minute, 3<<16 + 65535}, {3, 1 << 62, 3<<16 + 65535}, {1 << 40, 0, 1 << 56},
	} {
		got := nameSequence(c.size, c.age)
		if got != c.want || nameSize(node.Name{Sequence: got}) != c.size {
			t.Errorf("size %d, age %s: %d", c.size, c.age, got)
		}
	}
}
