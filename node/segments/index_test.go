package segments

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs/go-cid"
	carindex "github.com/ipld/go-car/v2/index"
)

// manyRows returns rows as of n blocks.
func manyRows(n int) []row {
	rows := make([]row, n)
	for i := range rows {
		rows[i] = row{sha256.Sum256(bytesOf(uint64(i), 8)), int64(59 + 100*i)}
	}
	slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.digest[:], b.digest[:]) })
	return rows
}

func TestIndexFindsEveryRow(t *testing.T) {
	for _, n := range []int{0, 1, 2, fenceRows - 1, fenceRows, fenceRows + 1, 1000, 20_000} {
		path := filepath.Join(t.TempDir(), "x")
		rows := manyRows(n)
		if n > 3*fenceRows {
			// Digests that differ behind the prefix, on both sides of a fence.
			for i := fenceRows - 3; i < fenceRows+3; i++ {
				copy(rows[i].digest[:8], rows[fenceRows].digest[:8])
			}
			slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.digest[:], b.digest[:]) })
		}
		must(t, writeIndex(durable.Disk{}, path, rows, 12345))
		x, err := openIndex(durable.Disk{}, path, newPageCache())
		must(t, err)
		defer x.close()
		if x.rows != n || x.carLen != 12345 {
			t.Fatalf("%d rows of %d bytes", x.rows, x.carLen)
		}
		for i, r := range rows {
			at, offset, ok, err := x.lookup(r.digest)
			if err != nil || !ok || at != i || offset != r.offset {
				t.Fatalf("row %d of %d: %d, %d, %v, %v", i, n, at, offset, ok, err)
			}
		}
		false1 := 0
		for i := range 10_000 {
			d := digest(sha256.Sum256(bytesOf(uint64(i), 9)))
			if _, _, ok, err := x.lookup(d); ok || err != nil {
				t.Fatalf("found what is not there: %v", err)
			}
			if n > 0 && x.mayHold(d) {
				false1++
			}
		}
		if n >= 1000 && false1 > 1500 {
			t.Errorf("%d rows: the filter lets %d of 10,000 through", n, false1)
		}
		if got := 8 * (len(x.bloom) + len(x.fences)); n >= 1000 && got > n {
			t.Errorf("%d rows take %d bytes of memory", n, got)
		}
		got, err := x.all()
		must(t, err)
		if !slices.Equal(got, rows) {
			t.Fatal("other rows")
		}
	}
}

// go-car, which does not know this store, reads its indexes, and finds sections by
// them.
func TestIndexesAreOfGoCAR(t *testing.T) {
	dir, blocks := fillStore(t, 0, 1, 5000, 200, 70_000)
	s := openTestStore(t, dir)
	defer s.Close()
	must(t, s.roll())
	f, err := os.Open(filepath.Join(dir, indexName(1)))
	must(t, err)
	defer f.Close()
	x, err := carindex.ReadFrom(f)
	must(t, err)
	at := map[cid.Cid]int64{}
	for _, sec := range sections(t, segmentPath(dir, 1)) {
		at[sec.cid] = sec.start
	}
	for _, b := range blocks {
		got, err := carindex.GetFirst(x, b.CID)
		must(t, err)
		if int64(got) != at[b.CID] {
			t.Errorf("%s at %d, not %d", b.CID, got, at[b.CID])
		}
	}
	if x.Codec() != 0x0401 {
		t.Errorf("codec %v", x.Codec())
	}
}

// Every byte of an index in turn is damaged, or the index ends there: it is made
// again, and nothing is lost.
func TestDamagedIndex(t *testing.T) {
	dir, blocks := fillStore(t, 10, 20, 0, 300)
	s := openTestStore(t, dir)
	must(t, s.roll())
	must(t, s.Close())
	path := filepath.Join(dir, indexName(1))
	sound, err := os.ReadFile(path)
	must(t, err)
	check := func(what string, at int) {
		t.Helper()
		s := openTestStore(t, dir)
		defer s.Close()
		if lost := unreadable(t, s, blocks); len(lost) > 0 || len(s.Damage()) > 0 {
			t.Fatalf("%s %d: %d lost, damage %v", what, at, len(lost), s.Damage())
		}
		again, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(again, sound) {
			t.Fatalf("%s %d: the index was not made again", what, at)
		}
	}
	for at := range sound {
		flip(t, path, int64(at), 1<<(at%8))
		check("byte", at)
		must(t, os.WriteFile(path, sound[:at], 0o600))
		check("end", at)
	}
	must(t, os.Remove(path))
	check("removed", 0)
}

// An index that was made for a segment which then went on to grow is not believed.
func TestIndexOfShorterSegment(t *testing.T) {
	dir, blocks := fillStore(t, 10, 20, 30)
	all := sections(t, segmentPath(dir, 1))
	must(t, writeIndex(durable.Disk{}, filepath.Join(dir, indexName(1)), []row{{digestOf(blocks[0].CID), all[0].start}}, all[0].end))
	s := openTestStore(t, dir)
	defer s.Close()
	if lost := unreadable(t, s, blocks); len(lost) > 0 {
		t.Fatalf("%d lost", len(lost))
	}
	if s.active.number != 1 {
		t.Errorf("segment %d is active", s.active.number)
	}
}

func FuzzOpenIndex(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	for _, n := range []int{0, 1, 65} {
		must(f, writeIndex(durable.Disk{}, path, manyRows(n), 1000))
		data, err := os.ReadFile(path)
		must(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x")
		must(t, os.WriteFile(path, data, 0o600))
		x, err := openIndex(durable.Disk{}, path, newPageCache())
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		defer x.close()
		rows, err := x.all()
		must(t, err)
		for _, r := range rows {
			_, _, _, err := x.lookup(r.digest)
			must(t, err)
		}
	})
}
