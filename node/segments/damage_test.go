package segments

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

// Each byte of a segment in turn is damaged: nothing wrong is returned, at most
// the block that was hit is lost, and putting it again heals.
func TestEveryDamagedByte(t *testing.T) {
	sizes := []int{3, 3, 0, 91, 92, 3, 300, 3, 3, 36, 3}
	dir, blocks := fillStore(t, sizes...)
	intact, err := os.ReadFile(segmentPath(dir, 1))
	must(t, err)
	hit := sections(t, segmentPath(dir, 1))
	for off := range int64(len(intact)) {
		for _, xor := range []byte{1, 2, 0x68, 0x80, 0xff} {
			dir := t.TempDir()
			must(t, os.WriteFile(segmentPath(dir, 1), intact, 0o600))
			flip(t, segmentPath(dir, 1), off, xor)
			s := openTestStore(t, dir)
			unreadable(t, s, blocks)
			for _, lost := range unreadable(t, s, blocks) {
				for _, h := range hit {
					if h.cid == lost.CID && (off < h.start || off >= h.end) {
						t.Fatalf("xor %#x at %d costs block %s at %d", xor, off, lost.CID, h.start)
					}
				}
				if has, err := s.Has(ctx, lost.CID); err != nil || has {
					t.Fatalf("xor %#x at %d: the lost block counts as there, %v", xor, off, err)
				}
			}
			must(t, s.Put(ctx, blocks...))
			if lost := unreadable(t, s, blocks); len(lost) > 0 {
				t.Fatalf("xor %#x at %d: not healed: %s", xor, off, lost[0].CID)
			}
			must(t, s.Close())
		}
	}
}

// Healing lasts: after the next open the sound copy counts.
func TestHealedBlockStays(t *testing.T) {
	dir, blocks := fillStore(t, 100, 200, 300)
	at := sections(t, segmentPath(dir, 1))[1]
	flip(t, segmentPath(dir, 1), at.end-1, 1)
	s := openTestStore(t, dir)
	if _, err := s.Get(ctx, blocks[1].CID); !errors.Is(err, dag.ErrHash) {
		t.Fatalf("damaged block: %v", err)
	}
	if _, err := s.Size(ctx, blocks[1].CID); !errors.Is(err, dag.ErrNotFound) {
		t.Fatalf("size of a damaged block: %v", err)
	}
	must(t, s.Put(ctx, blocks[1]))
	must(t, s.Sync(ctx))
	must(t, s.Close())
	s = openTestStore(t, dir)
	defer s.Close()
	if lost := unreadable(t, s, blocks); len(lost) > 0 {
		t.Fatalf("lost again: %s", lost[0].CID)
	}
}

// A segment may end anywhere: the blocks before are there, the rest is cut, and
// the store goes on from there.
func TestTornTailOfEveryLength(t *testing.T) {
	dir, blocks := fillStore(t, 10, 0, 150, 40)
	intact, err := os.ReadFile(segmentPath(dir, 1))
	must(t, err)
	all := sections(t, segmentPath(dir, 1))
	for keep := range len(intact) + 1 {
		dir := t.TempDir()
		must(t, os.WriteFile(segmentPath(dir, 1), intact[:keep], 0o600))
		must(t, os.WriteFile(filepath.Join(dir, syncMarkFile), fmt.Appendf(nil, syncMarkFormat, 0, 0), 0o600))
		s := openTestStore(t, dir)
		for i, b := range blocks {
			_, err := s.Get(ctx, b.CID)
			if whole := all[i].end <= int64(keep); whole != (err == nil) || !whole && !errors.Is(err, dag.ErrNotFound) {
				t.Fatalf("%d bytes kept, block %d: %v", keep, i, err)
			}
			if errors.Is(err, ErrDamaged) {
				t.Fatalf("a torn tail is called damage: %v", err)
			}
		}
		for _, d := range s.Damage() {
			if !d.Torn || d.Segment != 1 || d.String() == "" {
				t.Fatalf("%d bytes kept: %v", keep, d)
			}
		}
		must(t, s.Put(ctx, blocks...))
		must(t, s.Sync(ctx))
		must(t, s.Close())
		if got := sections(t, segmentPath(dir, 1)); len(got) != len(blocks) {
			t.Fatalf("%d bytes kept: %d sections after writing on", keep, len(got))
		}
		s = openTestStore(t, dir)
		if lost := unreadable(t, s, blocks); len(lost) > 0 || len(s.Damage()) > 0 {
			t.Fatalf("%d bytes kept: %d lost, %v", keep, len(lost), s.Damage())
		}
		must(t, s.Close())
	}
}

// Damage far into a segment, with sections over the scanner's windows.
func TestResynchronizeAcrossWindows(t *testing.T) {
	dir, blocks := fillStore(t, scanWindow-200, 17, dag.MaxBlockSize, 17, scanWindow/2-1, 17, 17)
	path := segmentPath(dir, 1)
	all := sections(t, path)
	flip(t, path, all[2].start+1, 0x7f) // in the length of the largest
	flip(t, path, all[4].start+5, 0xff) // in a CID's hash function
	s := openTestStore(t, dir)
	defer s.Close()
	unreadable(t, s, blocks)
	lost := unreadable(t, s, blocks)
	if len(lost) != 2 || lost[0].CID != blocks[2].CID || lost[1].CID != blocks[4].CID {
		t.Fatalf("lost %d blocks, damage %v", len(lost), s.Damage())
	}
	if _, err := s.Get(ctx, blocks[4].CID); !errors.Is(err, dag.ErrNotFound) || !errors.Is(err, ErrDamaged) {
		t.Fatalf("a block missing from a damaged store: %v", err)
	}
}

// What a killed process wrote and did not sync is read by the next one. That one
// must not take it for durable.
func TestFirstSyncAfterOpenIsReal(t *testing.T) {
	dir, blocks := fillStore(t, 10)
	s := openTestStore(t, dir)
	defer s.Close()
	must(t, s.Put(ctx, blocks...))
	if s.commit.synced == s.commit.written {
		t.Fatal("the store takes all that it found for synced")
	}
	must(t, s.Sync(ctx))
	if s.commit.synced != s.commit.written {
		t.Fatal("Sync left something")
	}
}

func TestSegmentName(t *testing.T) {
	for _, name := range []string{"0x.car", "00000000.car"} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, name), segmentHeader, 0o600))
		if _, err := Open(ctx, dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A damaged head of a segment in the middle is not cut: only the last can be torn.
func TestDamageInClosedSegment(t *testing.T) {
	dir, blocks := fillStore(t, 50, 60)
	must(t, os.WriteFile(segmentPath(dir, 2), segmentHeader, 0o600))
	must(t, os.Truncate(segmentPath(dir, 1), sections(t, segmentPath(dir, 1))[1].end-1))
	s := openTestStore(t, dir)
	defer s.Close()
	if lost := unreadable(t, s, blocks); len(lost) != 1 || lost[0].CID != blocks[1].CID {
		t.Fatalf("lost %d", len(lost))
	}
	if d := s.Damage(); len(d) != 1 || d[0].Torn || d[0].Segment != 1 || d[0].String() == "" {
		t.Fatalf("damage: %v", d)
	}
	must(t, s.Put(ctx, blocks[1]))
	must(t, s.Sync(ctx))
	if lost := unreadable(t, s, blocks); len(lost) != 0 {
		t.Fatal("not healed")
	}
}
