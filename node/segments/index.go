package segments

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sort"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
)

// indexHead begins an index: go-car's MultihashIndexSorted with the one hash
// function sha2-256, up to the length of its rows.
var indexHead = []byte{
	0x81, 0x08, // multicodec car-multihash-index-sorted
	1, 0, 0, 0, // one hash function
	0x12, 0, 0, 0, 0, 0, 0, 0, // sha2-256
	1, 0, 0, 0, // one width
	rowSize, 0, 0, 0,
}

const (
	rowSize   = 32 + 8
	rowsBegin = 22 + 8
	// trailer follows the rows: the length of the CAR, and the CRC-32C of all
	// bytes before.
	trailer = 8 + 4
	// fenceRows is how many rows lie between two that are in memory.
	fenceRows = 64
	// bloomBits is how many bits of a filter there are for a row.
	bloomBits = 6
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// row says where the section of a block begins.
type row struct {
	digest digest
	offset int64
}

// index finds the sections of a closed segment. Its rows lie on disk, sorted by
// digest. In memory there is every 64th, and a Bloom filter, by which a segment
// that does not hold a block is seldom searched: 0.9 bytes a block.
type index struct {
	f      durable.File
	rows   int
	carLen int64 // of the uncompressed CAR
	fences []uint64
	bloom  []uint64
	pages  *pageCache
}

// pageCache keeps rows of a store's indexes: 2.5 kB a page.
type pageCache = lru.Cache[pageKey, []byte]

type pageKey struct {
	index *index
	n     int
}

// cachedPages is how many pages of indexes a store keeps: 10 MB.
const cachedPages = 4096

func newPageCache() *pageCache {
	pages, err := lru.New[pageKey, []byte](cachedPages)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return pages
}

// writeIndex writes an index durably. The rows are sorted.
func writeIndex(disk durable.Disk, path string, rows []row, carLen int64) error {
	b := make([]byte, 0, rowsBegin+len(rows)*rowSize+trailer)
	b = append(b, indexHead...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(rows)*rowSize))
	for _, r := range rows {
		b = append(b, r.digest[:]...)
		b = binary.LittleEndian.AppendUint64(b, uint64(r.offset))
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(carLen))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return disk.WriteFile(path, b, 0o600)
}

// openIndex reads an index. The error wraps ErrDamaged if its bytes are wrong.
func openIndex(disk durable.Disk, path string, pages *pageCache) (*index, error) {
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	x := &index{f: f, pages: pages}
	if err := x.load(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

func (x *index) load() error {
	b, err := x.read()
	if err != nil {
		return err
	}
	n := len(b) - rowsBegin - trailer
	x.rows = n / rowSize
	x.carLen = int64(binary.LittleEndian.Uint64(b[rowsBegin+n:]))
	x.bloom = make([]uint64, 8*(x.rows*bloomBits/512+1))
	x.fences = make([]uint64, 0, (x.rows+fenceRows-1)/fenceRows)
	for i := range x.rows {
		at := b[rowsBegin+i*rowSize:]
		d := digest(at[:32])
		if i%fenceRows == 0 {
			x.fences = append(x.fences, d.prefix())
		}
		word, mask := x.bloomAt(d)
		for j := range mask {
			x.bloom[word+j] |= mask[j]
		}
	}
	return nil
}

// read returns the bytes of the whole index, checked.
func (x *index) read() ([]byte, error) {
	st, err := x.f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, st.Size())
	if _, err := x.f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read index: %w", asDamage(err))
	}
	n := len(b) - rowsBegin - trailer
	if n < 0 || n%rowSize != 0 || !bytes.HasPrefix(b, indexHead) ||
		binary.LittleEndian.Uint64(b[rowsBegin-8:]) != uint64(n) ||
		binary.LittleEndian.Uint32(b[len(b)-4:]) != crc32.Checksum(b[:len(b)-4], castagnoli) {
		return nil, fmt.Errorf("%w: index %s", ErrDamaged, x.f.Name())
	}
	return b, nil
}

func (x *index) close() error { return x.f.Close() }

func (d digest) prefix() uint64 { return binary.BigEndian.Uint64(d[:]) }

// bloomAt returns the block of the filter, of eight words, that a digest falls
// into, and its four bits there. A digest is as good as random bits.
func (x *index) bloomAt(d digest) (word int, mask [8]uint64) {
	blocks := uint64(len(x.bloom) / 8)
	word = int(uint64(binary.BigEndian.Uint32(d[8:]))*blocks>>32) * 8
	bits := binary.BigEndian.Uint64(d[12:])
	for range 4 {
		mask[bits>>6&7] |= 1 << (bits & 63)
		bits >>= 9
	}
	return word, mask
}

func (x *index) mayHold(d digest) bool {
	word, mask := x.bloomAt(d)
	for j, m := range mask {
		if x.bloom[word+j]&m != m {
			return false
		}
	}
	return true
}

// lookup returns the row of a digest, and where its section begins.
func (x *index) lookup(d digest) (n int, offset int64, ok bool, err error) {
	if x.rows == 0 || !x.mayHold(d) {
		return 0, 0, false, nil
	}
	// Rows of equal prefixes may lie on both sides of a fence.
	p := d.prefix()
	first := max(0, sort.Search(len(x.fences), func(i int) bool { return x.fences[i] >= p })-1)
	for page := first; page < len(x.fences) && (page == first || x.fences[page] <= p); page++ {
		rows, err := x.page(page)
		if err != nil {
			return 0, 0, false, err
		}
		i := sort.Search(len(rows)/rowSize, func(i int) bool { return bytes.Compare(rows[i*rowSize:i*rowSize+32], d[:]) >= 0 })
		if i*rowSize < len(rows) && bytes.Equal(rows[i*rowSize:i*rowSize+32], d[:]) {
			return page*fenceRows + i, int64(binary.LittleEndian.Uint64(rows[i*rowSize+32:])), true, nil
		}
	}
	return 0, 0, false, nil
}

// page returns the rows between two fences.
func (x *index) page(n int) ([]byte, error) {
	key := pageKey{x, n}
	if rows, ok := x.pages.Get(key); ok {
		return rows, nil
	}
	rows := make([]byte, min(fenceRows, x.rows-n*fenceRows)*rowSize)
	if _, err := x.f.ReadAt(rows, int64(rowsBegin+n*fenceRows*rowSize)); err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	x.pages.Add(key, rows)
	return rows, nil
}

// all returns all rows, by digest. They are checked: by what they leave out, segments
// are given up. The error wraps ErrDamaged if their bytes have become wrong; the next
// open makes the index again.
func (x *index) all() ([]row, error) {
	b, err := x.read()
	if err == nil && len(b) != rowsBegin+x.rows*rowSize+trailer {
		err = fmt.Errorf("%w: index %s", ErrDamaged, x.f.Name())
	}
	if err != nil {
		return nil, err
	}
	rows := make([]row, x.rows)
	for i := range rows {
		at := b[rowsBegin+i*rowSize:]
		rows[i] = row{digest(at[:32]), int64(binary.LittleEndian.Uint64(at[32:]))}
	}
	return rows, nil
}

// byOffset returns the numbers of rows in the order of their sections.
func byOffset(rows []row) []int {
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(rows[a].offset - rows[b].offset) })
	return order
}
