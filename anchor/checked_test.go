package anchor_test

import (
	"bytes"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

// What somebody calls a log's directory has the files of a log of that size, and no more.
func TestCheckDirectory(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/directory")
	l := create(t, store, k)
	sizes := []int{1, 2, 255, 256, 257, 65536 + 256}
	for _, size := range sizes {
		_, h, err := l.AppendAll(ctx, numbered(int(l.Head().Size), size-int(l.Head().Size)))
		must(t, err)
		if err := anchor.CheckDirectory(ctx, store, h.Root, h.Size, 2000); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
		wantError(t, anchor.CheckDirectory(ctx, store, h.Root, h.Size-1, 2000), anchor.ErrCorrupt)
	}
	small := appendOne(t, create(t, store, newKey(t, "log.example/small")), "a")
	with := func(path string, data []byte) error {
		t.Helper()
		link, _, err := dag.WriteDocument(ctx, store, bytes.NewReader(data))
		must(t, err)
		var d dag.Editor
		must(t, d.Put(path, link))
		root, err := d.Apply(ctx, store, store, small.Root)
		must(t, err)
		return anchor.CheckDirectory(ctx, store, root.CID, 1, 100)
	}
	must(t, with("tile/entries/000.p/1", make([]byte, 2+anchor.MaxRecordSize)))
	for path, length := range map[string]int{
		"junk": 1, "tile/junk": 1, "tile/0/000": 8192, "tile/0/000.p/2": 64, "tile/0/001.p/1": 32, "tile/1/000.p/1": 32,
		"tile/0/000.p/1": 33, "tile/entries/000.p/1": 3 + anchor.MaxRecordSize, "tile/entries/000.p/01": 1, "tile/8/data/000.p/1": 1,
		"checkpoint": anchor.MaxCheckpointSize + 1, "tile/63/000.p/1": 32, "tile/entries/x999/999.p/1": 1,
	} {
		if err := with(path, make([]byte, length)); err == nil {
			t.Errorf("%s of %d bytes is in the directory of a log of one record", path, length)
		}
	}
	wantError(t, with("checkpoint", make([]byte, 3<<20)), anchor.ErrCorrupt) // of more than one IPFS block
	wantError(t, anchor.CheckDirectory(ctx, store, small.Root, 1, 2), anchor.ErrCorrupt)
	wantError(t, anchor.CheckDirectory(ctx, newMemStore(), small.Root, 1, 100), anchor.ErrUnavailable)
}
