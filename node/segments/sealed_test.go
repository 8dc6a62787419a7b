package segments

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/klauspost/compress/zstd"
)

// sealedStore makes a store of one sealed segment, of some frames, half of it bytes
// that compress. It returns the segment's bytes before sealing.
func sealedStore(t *testing.T) (dir string, blocks []dag.Block, plain []byte) {
	t.Helper()
	dir = t.TempDir()
	s := openTestStore(t, dir)
	for i := range 400 {
		data := append(bytesOf(uint64(i), 1+i*7), bytes.Repeat([]byte("policy "), i)...)
		blocks = append(blocks, dag.RawBlock(data))
	}
	blocks = append(blocks, dag.RawBlock(bytesOf(1000, dag.MaxBlockSize)), dag.RawBlock(nil))
	must(t, s.Put(ctx, blocks...))
	must(t, s.Sync(ctx))
	plain, err := os.ReadFile(segmentPath(dir, 1))
	must(t, err)
	must(t, s.Seal(ctx))
	if lost := unreadable(t, s, blocks); len(lost) > 0 {
		t.Fatalf("sealing cost %d blocks", len(lost))
	}
	must(t, s.Close())
	if _, err := os.Stat(segmentPath(dir, 1)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the segment is still there: %v", err)
	}
	return dir, blocks, plain
}

// Other people's tools read a sealed segment: zstd gives the CAR, and a reader of
// seekable zstd any part of it.
func TestSealedSegmentIsSeekableZstd(t *testing.T) {
	dir, _, plain := sealedStore(t)
	f, err := os.Open(segmentPath(dir, 1) + ".zst")
	must(t, err)
	defer f.Close()
	d, err := zstd.NewReader(f)
	must(t, err)
	defer d.Close()
	all, err := io.ReadAll(d)
	must(t, err)
	if !bytes.Equal(all, plain) {
		t.Fatal("zstd gives other bytes")
	}
	one, err := zstd.NewReader(nil)
	must(t, err)
	r, err := seekable.NewReader(f, one)
	must(t, err)
	part := make([]byte, 1000)
	_, err = r.ReadAt(part, frameSize-500)
	must(t, err)
	if !bytes.Equal(part, plain[frameSize-500:][:1000]) {
		t.Fatal("a part differs")
	}
	if path, err := exec.LookPath("zstd"); err == nil {
		out, err := exec.Command(path, "-dc", f.Name()).Output()
		must(t, err)
		if !bytes.Equal(out, plain) {
			t.Fatal("the zstd command gives other bytes")
		}
	}
}

// Damage in a sealed segment costs no more than the blocks in a frame, and putting
// them again heals. Damage in its seek table costs nothing.
func TestDamagedSealedSegment(t *testing.T) {
	dir, blocks, plain := sealedStore(t)
	path := segmentPath(dir, 1) + ".zst"
	sound, err := os.ReadFile(path)
	must(t, err)
	index, err := os.ReadFile(filepath.Join(dir, indexName(1)))
	must(t, err)
	car, err := openSealed(durable.Disk{}, path, newFrameCache())
	must(t, err)
	must(t, car.Close())
	table := car.frames[len(car.frames)-1].at + car.frames[len(car.frames)-1].length
	inFrame := func(off int64) (begin, end int64) {
		for i, f := range car.frames {
			if off >= f.at && off < f.at+f.length {
				end := car.size
				if i+1 < len(car.frames) {
					end = car.frames[i+1].begin
				}
				return f.begin, end
			}
		}
		return 0, 0
	}
	offsets := []int64{0, 3, 4, 5, 9, 17, 1000, table - 1, table, table + 4, table + 8, table + 12, int64(len(sound)) - 9, int64(len(sound)) - 5, int64(len(sound)) - 1}
	for off := int64(0); off < table; off += table/97 + 1 {
		offsets = append(offsets, off)
	}
	for _, off := range offsets {
		for _, reindex := range []bool{false, true} {
			must(t, os.WriteFile(path, sound, 0o600))
			flip(t, path, off, 0x41)
			must(t, os.WriteFile(filepath.Join(dir, indexName(1)), index, 0o600))
			if reindex {
				must(t, os.Remove(filepath.Join(dir, indexName(1))))
			}
			s := openTestStore(t, dir)
			unreadable(t, s, blocks)
			lost := unreadable(t, s, blocks)
			begin, end := inFrame(off)
			for _, b := range lost {
				at := int64(bytes.Index(plain, append(b.CID.Bytes(), b.Data...)))
				if at-4 > end || at+36+int64(len(b.Data)) < begin {
					t.Fatalf("damage at %d, that is in %d to %d, costs a block at %d", off, begin, end, at)
				}
			}
			must(t, s.Put(ctx, lost...))
			must(t, s.Sync(ctx))
			must(t, s.Close())
			s = openTestStore(t, dir)
			if lost := unreadable(t, s, blocks); len(lost) > 0 {
				t.Fatalf("damage at %d is not healed: %d lost", off, len(lost))
			}
			must(t, s.Close())
			left, err := filepath.Glob(filepath.Join(dir, "*"))
			must(t, err)
			for _, f := range left {
				if name := filepath.Base(f); name != carName(1)+".zst" && name != indexName(1) {
					must(t, os.Remove(f))
				}
			}
		}
	}
}

// A sealed segment may end anywhere: what lies before is read.
func TestTruncatedSealedSegment(t *testing.T) {
	dir, blocks, plain := sealedStore(t)
	path := segmentPath(dir, 1) + ".zst"
	sound, err := os.ReadFile(path)
	must(t, err)
	index, err := os.ReadFile(filepath.Join(dir, indexName(1)))
	must(t, err)
	for _, keep := range []int{0, 1, 8, 9, 100, len(sound) / 3, len(sound) / 2, len(sound) - 200, len(sound) - 1} {
		must(t, os.WriteFile(path, sound[:keep], 0o600))
		must(t, os.WriteFile(filepath.Join(dir, indexName(1)), index, 0o600))
		s := openTestStore(t, dir)
		whole := int64(0)
		for _, f := range s.closed[0].car.(*sealedCAR).frames {
			if f.at+f.length <= int64(keep) {
				whole = f.begin + frameSize
			}
		}
		for _, b := range unreadable(t, s, blocks) {
			if at := int64(bytes.Index(plain, append(b.CID.Bytes(), b.Data...))); at+36+int64(len(b.Data)) <= whole {
				t.Fatalf("%d bytes kept: a block at %d is lost, %d are whole", keep, at, whole)
			}
		}
		must(t, s.Put(ctx, blocks...))
		if lost := unreadable(t, s, blocks); len(lost) > 0 {
			t.Fatalf("%d bytes kept: not healed", keep)
		}
		must(t, s.Close())
		must(t, os.Remove(segmentPath(dir, 2)))
	}
}

// What claims to be larger than a frame is not decompressed.
func TestZstdBomb(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	must(t, err)
	defer encoder.Close()
	for name, frames := range map[string][][]byte{
		"one frame of 64 MiB":           {make([]byte, 64<<20)},
		"a frame that hides its length": {make([]byte, 10), make([]byte, 64<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			w, err := seekable.NewWriter(&b, encoder)
			must(t, err)
			for _, f := range frames {
				_, err := w.Write(f)
				must(t, err)
			}
			must(t, w.Close())
			dir := t.TempDir()
			must(t, os.WriteFile(segmentPath(dir, 1)+".zst", b.Bytes(), 0o600))
			s := openTestStore(t, dir)
			defer s.Close()
			if n := s.closed[0].car.Size(); n > frameSize {
				t.Errorf("a segment of %d bytes", n)
			}
			if len(s.Damage()) == 0 {
				t.Error("no damage is reported")
			}
		})
	}
}

// A crash between the two forms of a segment leaves both: the first one counts.
func TestCrashWhileSealing(t *testing.T) {
	dir, blocks, plain := sealedStore(t)
	must(t, os.WriteFile(segmentPath(dir, 1), plain, 0o600))
	must(t, os.Truncate(segmentPath(dir, 1)+".zst", 100))
	must(t, os.WriteFile(filepath.Join(dir, ".tmp-left"), []byte("x"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, indexName(7)), []byte("x"), 0o600))
	s := openTestStore(t, dir)
	defer s.Close()
	if lost := unreadable(t, s, blocks); len(lost) > 0 {
		t.Fatalf("%d lost", len(lost))
	}
	for _, name := range []string{carName(1) + ".zst", ".tmp-left", indexName(7)} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}

func FuzzOpenSealed(f *testing.F) {
	var b bytes.Buffer
	must(f, compress(ctx, &b, &memoryCAR{bytes.NewReader(append(bytes.Clone(segmentHeader), bytesOf(1, 300_000)...))}))
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:b.Len()-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x")
		must(t, os.WriteFile(path, data, 0o600))
		c, err := openSealed(durable.Disk{}, path, newFrameCache())
		if err != nil {
			t.Fatal(err) // damage is no error here: what is whole counts
		}
		defer c.Close()
		buf := make([]byte, 1000)
		for off := int64(0); off < min(c.Size(), 10*frameSize); off += frameSize / 2 {
			if _, err := c.ReadAt(buf, off); err != nil && err != io.EOF && !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			if _, err := (lenient{c}).ReadAt(buf, off); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
	})
}

type memoryCAR struct{ *bytes.Reader }

func (memoryCAR) Close() error { return nil }
