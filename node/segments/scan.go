package segments

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// scanWindow is how many bytes scanSegment reads at once.
const scanWindow = 1 << 20

// sectionHead is the most bytes before the data of a section: a length of at most
// four bytes and a CID of 36.
const sectionHead = 4 + 36

// Looking for sound sections in damage costs a hash for every place that looks
// like the head of one. Who chooses documents can fill them with such places, so
// that once resyncBudget bytes were hashed in vain, only sections of at most
// resyncSmall bytes are still looked for.
const (
	resyncBudget = 256 << 20
	resyncSmall  = 64 << 10
)

// scan reads a segment that nothing is known of yet.
type scan struct {
	f       io.ReaderAt
	segment uint32
	size    int64 // of the file
	// believed is the offset up to which the segment was synced: sections before
	// it are taken by their heads, those behind it only if their hash is right.
	believed int64
	vain     int64 // bytes hashed in vain
	index    map[digest]place
	damage   []Damage
}

// run adds the IPFS blocks of the segment to the index. Where the sections stop
// making sense it looks for the next one that does, by its hash, so that damage
// costs what it hit and no more.
func (s *scan) run(ctx context.Context) error {
	w := &window{f: s.f, size: s.size}
	head, err := w.at(0, len(segmentHeader))
	if err != nil {
		return err
	}
	off := int64(len(segmentHeader))
	if !bytes.Equal(head, segmentHeader) {
		if off, err = s.skip(ctx, 0, 0); err != nil {
			return err
		}
	}
	last := int64(-1) // where the section that ends at off begins, if one does
	var lastDigest digest
	for off < s.size {
		c, start, length, err := w.section(off)
		if err != nil {
			return err
		}
		if c.Defined() && off >= s.believed {
			ok, err := s.sound(off)
			if err != nil {
				return err
			}
			if !ok {
				c = cid.Undef
			}
		}
		if c.Defined() {
			lastDigest = digestOf(c)
			s.index[lastDigest] = place{start, uint32(length)}
			off, last = start+length, off
			continue
		}
		bad := off
		if last >= 0 {
			// The length of the section before may be what is wrong, and off
			// in the middle of a sound one.
			ok, err := s.sound(last)
			if err != nil {
				return err
			}
			if !ok {
				bad = last
				delete(s.index, lastDigest)
			}
		}
		if off, err = s.skip(ctx, bad, bad+1); err != nil {
			return err
		}
		last = -1
	}
	return nil
}

// skip notes damage that begins at bad, and returns where it ends: at the next
// sound section from off on.
func (s *scan) skip(ctx context.Context, bad, off int64) (int64, error) {
	next, err := s.resync(ctx, off, s.size)
	if err == nil {
		s.damage = append(s.damage, Damage{Segment: s.segment, Offset: bad, Bytes: next - bad})
	}
	return next, err
}

// hiddenSections returns the sound sections that lie between two offsets. There are
// some in the data of a section that has got its length from damage which by chance
// leads to another section.
func hiddenSections(ctx context.Context, f io.ReaderAt, begin, end int64) (map[digest]place, error) {
	hidden := map[digest]place{}
	s := &scan{f: f, size: end}
	w := &window{f: f, size: end}
	for off := begin; ; {
		at, err := s.resync(ctx, off, end)
		if err != nil || at >= end {
			return hidden, err
		}
		c, start, length, err := w.section(at)
		if err != nil {
			return hidden, err
		}
		hidden[digestOf(c)] = place{start, uint32(length)}
		off = start + length
	}
}

// parseHead reads the head of a section: it returns the CID, the length of the
// head and that of the data, or cid.Undef if this is none.
func parseHead(b []byte) (c cid.Cid, head int, length int64) {
	v, k := binary.Uvarint(b)
	if k <= 0 || k > 4 || len(b) < k+36 || v < 36 || v > 36+dag.MaxBlockSize {
		return cid.Undef, 0, 0
	}
	c, err := cid.Cast(b[k : k+36])
	if err != nil || dag.CheckCID(c) != nil {
		return cid.Undef, 0, 0
	}
	return c, k + 36, int64(v) - 36
}

// window reads small pieces of a file in ascending order.
type window struct {
	f    io.ReaderAt
	size int64
	buf  []byte
	from int64
}

// at returns n bytes from off on, or fewer at the end of the file.
func (w *window) at(off int64, n int) ([]byte, error) {
	end := min(off+int64(n), w.size)
	if off < w.from || end > w.from+int64(len(w.buf)) {
		buf := make([]byte, min(scanWindow, w.size-off))
		if _, err := w.f.ReadAt(buf, off); err != nil && err != io.EOF {
			return nil, err
		}
		w.buf, w.from = buf, off
	}
	return w.buf[off-w.from : end-w.from], nil
}

func (w *window) section(off int64) (c cid.Cid, start, length int64, err error) {
	b, err := w.at(off, sectionHead)
	if err != nil {
		return cid.Undef, 0, 0, err
	}
	c, head, length := parseHead(b)
	start = off + int64(head)
	if !c.Defined() || start+length > w.size {
		return cid.Undef, 0, 0, nil
	}
	return c, start, length, nil
}

// resync returns the offset of the first section at or after off whose data has
// the hash that its CID names, or end.
func (s *scan) resync(ctx context.Context, off, end int64) (int64, error) {
	// Every CID of a save point has these bytes after version and codec.
	mark := []byte{0x12, 0x20}
	w := &window{f: s.f, size: end}
	for off < end {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b, err := w.at(off, scanWindow/2)
		if err != nil {
			return 0, err
		}
		for i := 0; i+2 <= len(b); i++ {
			j := bytes.Index(b[i:], mark)
			if j < 0 {
				break
			}
			i += j
			// The head begins three to six bytes before the mark: a length
			// of one to four bytes, version, codec.
			for back := 3; back <= 6 && back <= i; back++ {
				at := off + int64(i-back)
				if ok, err := s.sound(at); err != nil || ok {
					return at, err
				}
			}
		}
		if off+int64(len(b)) >= end {
			return end, nil
		}
		off += int64(len(b)) - sectionHead // a head may straddle two windows
	}
	return end, nil
}

// sound reports whether a section begins at off whose data has the right hash.
func (s *scan) sound(off int64) (bool, error) {
	buf := make([]byte, min(sectionHead, s.size-off))
	if _, err := s.f.ReadAt(buf, off); err != nil && err != io.EOF {
		return false, err
	}
	c, head, length := parseHead(buf)
	if !c.Defined() || off+int64(head)+length > s.size {
		return false, nil
	}
	if s.vain > resyncBudget && length > resyncSmall {
		return false, nil
	}
	data := make([]byte, length)
	if _, err := s.f.ReadAt(data, off+int64(head)); err != nil {
		return false, err
	}
	ok := dag.Block{CID: c, Data: data}.Check() == nil
	if !ok {
		s.vain += length
	}
	return ok, nil
}
