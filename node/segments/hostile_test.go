package segments

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/klauspost/compress/zstd"
)

// A sound section that a damaged length hides is not given up with its segment.
func TestCollectKeepsWhatDamageHides(t *testing.T) {
	// The first block's length is made to end where the third begins.
	dir, blocks := fillStore(t, 3, 50, 60, 70)
	path := segmentPath(dir, 1)
	all := sections(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{byte(all[2].start - all[0].start - 1)}, all[0].start)
	must(t, err)
	must(t, f.Close())
	s := openTestStore(t, dir)
	defer s.Close()
	unreadable(t, s, blocks)
	if lost := unreadable(t, s, blocks); len(lost) != 1 || lost[0].CID != blocks[0].CID {
		t.Fatalf("%d are lost", len(lost))
	}
	collectAll(t, s, blocks[1:]...)
	if lost := unreadable(t, s, blocks); len(lost) != 1 {
		t.Fatalf("%d are lost after collecting", len(lost))
	}
}

// An index that rots while it is in use misleads nobody: no other block counts as
// damaged, and no segment is given up by it.
func TestIndexRotsInUse(t *testing.T) {
	dir, blocks := fillStore(t, 10, 20, 30, 40, 50)
	s := openTestStore(t, dir)
	must(t, s.roll())
	path := filepath.Join(dir, indexName(1))
	row, _, ok, err := s.closed[0].index.lookup(digestOf(blocks[2].CID))
	if err != nil || !ok {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(path)
	must(t, err)
	for at := range int64(rowSize) {
		s.pages.Purge()
		must(t, os.WriteFile(path, sound, 0o600))
		flip(t, path, rowsBegin+int64(row)*rowSize+at, 0x31)
		unreadable(t, s, blocks)
		for _, lost := range unreadable(t, s, blocks) {
			if lost.CID != blocks[2].CID && at >= 32 { // a wrong digest may lead a search astray
				t.Fatalf("byte %d of a row costs another block", at)
			}
		}
		_, err := s.Collect(ctx, func(context.Context, *Marks) error { return nil }, CollectOptions{All: true})
		if !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d of a row: collected by it: %v", at, err)
		}
	}
	must(t, s.Close())
	s = openTestStore(t, dir)
	defer s.Close()
	if lost := unreadable(t, s, blocks); len(lost) > 0 {
		t.Fatalf("%d lost", len(lost))
	}
}

// Bits in every byte of a seek table in turn are wrong: nothing is lost by it.
func TestDamagedSeekTable(t *testing.T) {
	dir, blocks, _ := sealedStore(t)
	path := segmentPath(dir, 1) + ".zst"
	car, err := openSealed(durable.Disk{}, path, newFrameCache())
	must(t, err)
	last := car.frames[len(car.frames)-1]
	must(t, car.Close())
	st, err := os.Stat(path)
	must(t, err)
	for off := last.at + last.length; off < st.Size(); off++ {
		for bit := int(off) % 3; bit < 8; bit += 3 {
			flip(t, path, off, 1<<bit)
			s := openTestStore(t, dir)
			if lost := unreadable(t, s, blocks); len(lost) > 0 || len(s.Damage()) > 0 {
				t.Fatalf("bit %d at %d costs %d blocks, damage %v", bit, off, len(lost), s.Damage())
			}
			must(t, s.Close())
			flip(t, path, off, 1<<bit)
		}
	}
}

// Every byte of the list of what was deleted in turn is wrong, or it ends there: the
// store opens and says so, what was put again is there, and what was deleted is gone
// or back, but not wrong.
func TestDamagedDeletionList(t *testing.T) {
	dir, blocks := fillStore(t, 10, 20, 30, 40)
	s := openTestStore(t, dir)
	must(t, s.Delete(ctx, blocks[0].CID, blocks[1].CID, blocks[2].CID))
	must(t, s.Put(ctx, blocks[1]))
	must(t, s.Sync(ctx))
	must(t, s.Close())
	path := filepath.Join(dir, deletedFile)
	sound, err := os.ReadFile(path)
	must(t, err)
	check := func(what string, at int) {
		t.Helper()
		s := openTestStore(t, dir)
		defer s.Close()
		for _, b := range unreadable(t, s, blocks) {
			if b.CID == blocks[1].CID || b.CID == blocks[3].CID {
				t.Fatalf("%s %d costs a block", what, at)
			}
		}
		d := s.Damage()
		if line := at % (len(sound) / 3); what == "byte" && len(d) == 0 || len(d) > 0 && (d[0].Segment != 0 || !strings.Contains(d[0].String(), "deleted")) {
			t.Fatalf("%s %d, %d of its line: damage %v", what, at, line, d)
		}
	}
	for at := range sound {
		for _, xor := range []byte{1, 0x20} {
			bad := bytes.Clone(sound)
			bad[at] ^= xor
			must(t, os.WriteFile(path, bad, 0o600))
			check("byte", at)
		}
		must(t, os.WriteFile(path, sound[:at], 0o600))
		check("end", at)
	}
}

// Every byte of the mark of what is synced in turn is wrong, or it ends there, or is
// not there: nothing is lost.
func TestDamagedSyncMark(t *testing.T) {
	dir, blocks := fillStore(t, 10, 20, 30, 40)
	path := filepath.Join(dir, syncMarkFile)
	sound, err := os.ReadFile(path)
	must(t, err)
	check := func(what string, at int) {
		t.Helper()
		s := openTestStore(t, dir)
		defer s.Close()
		if lost := unreadable(t, s, blocks); len(lost) > 0 || len(s.Damage()) > 0 {
			t.Fatalf("%s %d costs %d blocks, damage %v", what, at, len(lost), s.Damage())
		}
	}
	for at := range sound {
		for bit := range 8 {
			must(t, os.WriteFile(path, sound, 0o600))
			flip(t, path, int64(at), 1<<bit)
			check("byte", at)
		}
		must(t, os.WriteFile(path, sound[:at], 0o600))
		check("end", at)
	}
	must(t, os.Remove(path))
	check("removed", 0)
}

// everything returns the bytes of all files of a store, decompressed.
func everything(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files, err := os.ReadDir(dir)
	must(t, err)
	out := map[string][]byte{}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		must(t, err)
		out[f.Name()] = data
		if strings.HasSuffix(f.Name(), ".zst") {
			d, err := zstd.NewReader(bytes.NewReader(data))
			must(t, err)
			out[f.Name()+", decompressed"], err = io.ReadAll(d)
			must(t, err)
			d.Close()
		}
	}
	return out
}

// What is erased is in no file any more: not in a compressed one, not in a second copy,
// not in bytes that damage has made unreadable.
func TestEraseLeavesNoBytes(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir)
	person := dag.RawBlock([]byte(strings.Repeat("a person's name and address. ", 40)))
	rotten := dag.RawBlock([]byte(strings.Repeat("another person's file number. ", 30)))
	keep := dag.RawBlock([]byte("nobody's"))
	must(t, s.Put(ctx, keep, person, rotten))
	must(t, s.Sync(ctx))
	must(t, s.Close())
	// The head of one rots, so that nothing knows any more that it is there.
	flip(t, segmentPath(dir, 1), sections(t, segmentPath(dir, 1))[2].start+10, 1)
	s = openTestStore(t, dir)
	must(t, s.Put(ctx, dag.RawBlock([]byte("later"))))
	must(t, s.Seal(ctx))
	must(t, s.Put(ctx, rotten)) // once more, in another segment
	must(t, s.roll())
	found := 0
	for _, data := range everything(t, dir) {
		found += bytes.Count(data, person.Data) + bytes.Count(data, rotten.Data)
	}
	if found != 3 {
		t.Fatalf("%d copies before", found)
	}
	must(t, s.Erase(ctx, person.CID, rotten.CID))
	for name, data := range everything(t, dir) {
		if bytes.Contains(data, []byte("person's")) {
			t.Errorf("erased bytes are in %s", name)
		}
	}
	if lost := unreadable(t, s, []dag.Block{keep}); len(lost) > 0 {
		t.Error("what was not erased is lost")
	}
	must(t, s.Close())
	s = openTestStore(t, dir)
	defer s.Close()
	if left := unreadable(t, s, []dag.Block{person, rotten}); len(left) != 2 {
		t.Error("what was erased is back")
	}
}

// A million blocks in closed segments take less than a byte of memory each.
func TestIndexMemory(t *testing.T) {
	const rows, files = 1_000_000, 8
	all := manyRows(rows)
	dir := t.TempDir()
	for i := range files {
		must(t, writeIndex(durable.Disk{}, filepath.Join(dir, indexName(uint32(i+1))), all[i*rows/files:(i+1)*rows/files], 1))
	}
	all = nil
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	pages := newPageCache()
	var open []*index
	counted := 0
	for i := range files {
		x, err := openIndex(durable.Disk{}, filepath.Join(dir, indexName(uint32(i+1))), pages)
		must(t, err)
		defer x.close()
		open = append(open, x)
		counted += 8 * (cap(x.bloom) + cap(x.fences))
	}
	grown := heap() - before
	t.Logf("%d rows: %d bytes by the structures, %d of heap", rows, counted, grown)
	if counted > rows || grown > rows+rows/10 {
		t.Errorf("%d rows take %d bytes by the structures, %d of heap", rows, counted, grown)
	}
	runtime.KeepAlive(open)
}

// A store that is closed says so, whatever is asked.
func TestClosedStoreAnswers(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	must(t, s.Close())
	for name, err := range map[string]error{
		"seal": s.Seal(ctx), "delete": s.Delete(ctx, testBlock(1).CID), "erase": s.Erase(ctx, testBlock(1).CID),
		"heal": s.Heal(ctx, nil, testBlock(1)),
	} {
		if err == nil {
			t.Errorf("%s after close", name)
		}
	}
	if _, err := s.Collect(ctx, func(context.Context, *Marks) error { return nil }, CollectOptions{}); err == nil {
		t.Error("collect after close")
	}
	if s.Len() != 0 {
		t.Errorf("%d blocks", s.Len())
	}
	for _, err := range s.All(ctx) {
		if err == nil {
			t.Error("a block after close")
		}
	}
	must(t, s.Close())
	s.Hold().Release()
}

// Bytes that were put under another block's CID are not given back, written or not.
func TestPutOfWrongBytes(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	defer s.Close()
	wrong := dag.Block{CID: testBlock(1).CID, Data: []byte("wrong")}
	must(t, s.Put(ctx, wrong))
	for _, when := range []string{"put", "written"} {
		if data, err := s.Get(ctx, wrong.CID); !errors.Is(err, dag.ErrHash) {
			t.Errorf("%s: %q, %v", when, data, err)
		}
		must(t, s.Sync(ctx))
	}
	must(t, s.Put(ctx, testBlock(1)))
	if lost := unreadable(t, s, []dag.Block{testBlock(1)}); len(lost) > 0 {
		t.Error("not healed")
	}
}
