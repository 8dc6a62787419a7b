package node

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// scanWindow is how many bytes scanSegment reads at once.
const scanWindow = 1 << 20

// sectionHead is the most bytes before the data of a section: a length of at most
// four bytes and a CID of 36.
const sectionHead = 4 + 36

// scanSegment adds the IPFS blocks of a segment to index. It reads the heads of
// the sections only. Where the sections stop making sense it looks for the next
// one that does, by its hash, so that damage costs what it hit and no more.
func scanSegment(f *os.File, n uint32, index map[digest]place) (size int64, damage []Damage, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	size = st.Size()
	w := &window{f: f, size: size}
	head, err := w.at(0, len(segmentHeader))
	if err != nil {
		return 0, nil, err
	}
	off := int64(len(segmentHeader))
	if !bytes.Equal(head, segmentHeader) {
		next, err := resync(f, 0, size)
		if err != nil {
			return 0, nil, err
		}
		damage = append(damage, Damage{Segment: n, Offset: 0, Bytes: next})
		off = next
	}
	for off < size {
		c, start, length, err := w.section(off)
		if err != nil {
			return 0, nil, err
		}
		if !c.Defined() {
			next, err := resync(f, off+1, size)
			if err != nil {
				return 0, nil, err
			}
			damage = append(damage, Damage{Segment: n, Offset: off, Bytes: next - off})
			off = next
			continue
		}
		index[digestOf(c)] = place{n, start, uint32(length)}
		off = start + length
	}
	return size, damage, nil
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
	f    *os.File
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
// the hash that its CID names, or size.
func resync(f *os.File, off, size int64) (int64, error) {
	// Every CID of a save point has these bytes after version and codec.
	mark := []byte{0x12, 0x20}
	w := &window{f: f, size: size}
	for off < size {
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
			for back := 3; back <= 6; back++ {
				at := off + int64(i-back)
				if i-back < 0 {
					break
				}
				if ok, err := validSection(f, at, size); err != nil || ok {
					return at, err
				}
			}
		}
		if off+int64(len(b)) >= size {
			return size, nil
		}
		off += int64(len(b)) - sectionHead // a head may straddle two windows
	}
	return size, nil
}

func validSection(f *os.File, off, size int64) (bool, error) {
	buf := make([]byte, min(sectionHead, size-off))
	if _, err := f.ReadAt(buf, off); err != nil && err != io.EOF {
		return false, err
	}
	c, head, length := parseHead(buf)
	if !c.Defined() || off+int64(head)+length > size {
		return false, nil
	}
	data := make([]byte, length)
	if _, err := f.ReadAt(data, off+int64(head)); err != nil {
		return false, err
	}
	return dag.Block{CID: c, Data: data}.Check() == nil, nil
}
