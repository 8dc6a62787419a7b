package segments

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs/go-cid"
)

// carFile is the bytes of a closed segment as a CAR, however they are stored.
type carFile interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// segment is a closed segment.
type segment struct {
	number uint32
	sealed bool
	index  *index
	car    carFile
	// touched has a bit for each row that was put, found or read while somebody
	// tracked it; nil while nobody does.
	touched atomic.Pointer[bits]
	// held: all rows count as touched. It was closed during a hold.
	held atomic.Bool
}

// plainCAR is a segment that is not sealed.
type plainCAR struct {
	durable.File
	size int64
}

// ReadAt says of what the disk cannot read, or has lost, that it is damaged.
func (p *plainCAR) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.File.ReadAt(b, off)
	if err == io.EOF && off+int64(n) < p.size {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return n, asDamage(err)
}

// asDamage says of what the disk cannot read that it is damaged.
func asDamage(err error) error {
	if errors.Is(err, syscall.EIO) && !errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

func (p *plainCAR) Size() int64 { return p.size }

func (s *segment) close() error { return errors.Join(s.car.Close(), s.index.close()) }

func (s *segment) name() segmentName { return segmentName{s.number, s.sealed, true} }

// openClosed opens a closed segment. Without a usable index it reads the segment
// and makes one.
func (s *Store) openClosed(ctx context.Context, name segmentName) error {
	car, err := s.openCAR(filepath.Join(s.dir, name.car()), name.sealed)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, indexName(name.number))
	index, err := openIndex(s.disk, path, s.pages)
	if err == nil && index.carLen != car.Size() {
		err = errors.Join(fmt.Errorf("%w: %s is of another segment", ErrDamaged, path), index.close())
	}
	if errors.Is(err, ErrDamaged) || errors.Is(err, os.ErrNotExist) {
		index, err = s.reindex(ctx, car, path, name.number)
	}
	if err != nil {
		return errors.Join(err, car.Close())
	}
	s.closed = append(s.closed, &segment{number: name.number, sealed: name.sealed, index: index, car: car})
	return nil
}

func (s *Store) openCAR(path string, sealed bool) (carFile, error) {
	if sealed {
		return openSealed(s.disk, path, s.cache)
	}
	f, err := s.disk.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &plainCAR{f, st.Size()}, nil
}

// reindex makes the index of a segment from its sections.
func (s *Store) reindex(ctx context.Context, car carFile, path string, n uint32) (*index, error) {
	found := map[digest]place{}
	sc := &scan{f: lenient{car}, segment: n, size: car.Size(), believed: 0, index: found}
	if err := sc.run(ctx); err != nil {
		return nil, err
	}
	s.damage = append(s.damage, sc.damage...)
	if err := writeIndex(s.disk, path, rowsOf(found), car.Size()); err != nil {
		return nil, err
	}
	return openIndex(s.disk, path, s.pages)
}

// smallRead is how much of a section is read at first: most are not longer.
const smallRead = 4 << 10

var smallBuffers = sync.Pool{New: func() any { return new([smallRead]byte) }}

// read returns the data of the section at an offset. The error wraps ErrDamaged if
// there is none.
func (s *segment) read(offset int64) ([]byte, error) {
	buf := smallBuffers.Get().(*[smallRead]byte)
	defer smallBuffers.Put(buf)
	// It may reach into damage that is not the section's.
	n, err := s.car.ReadAt(buf[:min(smallRead, max(0, s.car.Size()-offset))], offset)
	if err != nil && err != io.EOF && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	c, head, length := parseHead(buf[:n])
	if !c.Defined() || offset+int64(head)+length > s.car.Size() {
		return nil, fmt.Errorf("%w: no section", ErrDamaged)
	}
	data := make([]byte, length)
	if have := copy(data, buf[head:n]); have < len(data) {
		if _, err := s.car.ReadAt(data[have:], offset+int64(n)); err != nil {
			if err == io.EOF {
				err = fmt.Errorf("%w: segment ends in a section", ErrDamaged)
			}
			return nil, err
		}
	}
	return data, nil
}

// head returns the CID of the section at an offset and the length of its data.
func (s *segment) head(offset int64) (cid.Cid, int, error) {
	var buf [sectionHead]byte
	n, err := s.car.ReadAt(buf[:], offset)
	if err != nil && err != io.EOF && !errors.Is(err, ErrDamaged) {
		return cid.Undef, 0, err
	}
	c, _, length := parseHead(buf[:n])
	if !c.Defined() {
		return cid.Undef, 0, fmt.Errorf("%w: no section", ErrDamaged)
	}
	return c, int(length), nil
}

// remove deletes the segment's files; a crash between leaves an index without a
// segment, which the next open removes.
func (s *segment) remove(disk durable.Disk, dir string) error {
	return errors.Join(disk.Remove(filepath.Join(dir, s.name().car())), disk.Remove(filepath.Join(dir, indexName(s.number))))
}

// bits is a set of rows.
type bits []uint64

func newBits(n int) bits { return make(bits, (n+63)/64) }

func (b bits) set(i int)      { atomic.OrUint64(&b[i/64], 1<<(i%64)) }
func (b bits) has(i int) bool { return atomic.LoadUint64(&b[i/64])>>(i%64)&1 == 1 }

// track begins to note which rows are touched, if nobody does yet.
func (s *segment) track() {
	b := newBits(s.index.rows)
	s.touched.CompareAndSwap(nil, &b)
}

func (s *segment) touch(row int) {
	if b := s.touched.Load(); b != nil {
		b.set(row)
	}
}

// wanted reports whether somebody relies on a row.
func (s *segment) wanted(row int) bool {
	b := s.touched.Load()
	return s.held.Load() || b != nil && b.has(row)
}
