package segments

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
)

const (
	// A segment is closed when it has as many bytes or blocks. That bounds the
	// memory and the time that the active one takes at open.
	segmentSize   = 256 << 20
	segmentBlocks = 1 << 17
	// batchSize is how many bytes are gathered before they are written.
	batchSize = 4 << 20
)

// segmentHeader begins every segment: a CARv1 header whose one root is the empty
// identity CID (bafkqaaa), since CAR readers want a root and a store has none.
var segmentHeader = []byte("\x19\xa2eroots\x81\xd8\x2aE\x00\x01\x55\x00\x00gversion\x01")

// place is where the bytes of an IPFS block lie in the active segment.
type place struct {
	offset int64
	length uint32
}

// section is where the section of the block begins.
func (p place) section() int64 { return p.offset - int64(headLen(p.length)) }

// headLen is the length of what precedes length bytes in a section.
func headLen(length uint32) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutUvarint(b[:], uint64(length)+36) + 36
}

// active is the segment that is written. Its index is in memory, about 100 bytes a
// block. The Store's mu guards it.
type active struct {
	number   uint32
	f        durable.File
	size     int64
	index    map[digest]place
	pending  []dag.Block // put and not yet written
	pendingN int         // their bytes
	waiting  map[digest]int
}

// commit lets callers of Sync that wait at the same time share one fsync.
type commit struct {
	written uint64 // how many times something was written
	synced  uint64 // the value of written that is surely on disk
	running chan struct{}
}

func (s *Store) openActive(ctx context.Context, n uint32) error {
	f, err := s.disk.OpenFile(filepath.Join(s.dir, carName(n)), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.active = &active{number: n, f: f, index: map[digest]place{}, waiting: map[digest]int{}}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	sc := &scan{f: lenient{&plainCAR{f, st.Size()}}, segment: n, size: st.Size(), index: s.active.index}
	cut := int64(0)
	sc.believed, cut = s.mark.synced(n, st.Size())
	if st.Size() < int64(len(segmentHeader)) {
		cut = 0 // it was being begun
	}
	if err := sc.run(ctx); err != nil {
		return fmt.Errorf("segment %d: %w", n, err)
	}
	s.active.size = sc.size
	for _, d := range sc.damage {
		if d.Offset >= cut && d.Offset+d.Bytes == sc.size {
			d.Torn = true
			s.active.size = max(d.Offset, int64(len(segmentHeader)))
			if err := restoreTail(f, s.active.size); err != nil {
				return fmt.Errorf("cut segment %d: %w", n, err)
			}
		}
		s.damage = append(s.damage, d)
	}
	// What a killed process wrote is read here and may not be on disk yet: the
	// next Sync sees to it.
	s.commit.written++
	return nil
}

// restoreTail cuts a segment and makes sure that it begins with a header.
func restoreTail(f durable.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	if _, err := f.WriteAt(segmentHeader, 0); err != nil {
		return err
	}
	return f.Sync()
}

// startSegment makes segment n the active one.
func (s *Store) startSegment(n uint32) error {
	f, err := s.disk.OpenFile(filepath.Join(s.dir, carName(n)), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(segmentHeader, 0)
	if err == nil {
		err = errors.Join(f.Sync(), s.disk.SyncDir(s.dir))
	}
	if err == nil {
		err = s.mark.begin(n)
	}
	if err != nil {
		return errors.Join(err, f.Close(), s.disk.Remove(f.Name()))
	}
	a := &active{number: n, f: f, size: int64(len(segmentHeader)), index: map[digest]place{}, waiting: map[digest]int{}}
	if s.active != nil {
		a.pending, a.pendingN, a.waiting = s.active.pending, s.active.pendingN, s.active.waiting
	}
	s.active = a
	return nil
}

// append takes a block that no closed segment holds.
func (s *Store) append(b dag.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	d := digestOf(b.CID)
	if s.inActive(d) != nil {
		return nil // another put it meanwhile
	}
	return s.enqueue(d, b)
}

// appendMoved takes a block that was read at a spot, unless it was deleted meanwhile.
func (s *Store) appendMoved(b dag.Block, from spot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	d := digestOf(b.CID)
	if gone, ok := s.deleted[d]; ok && from.before(gone) || s.inActive(d) != nil {
		return nil
	}
	return s.enqueue(d, b)
}

func (s *Store) enqueue(d digest, b dag.Block) error {
	a := s.active
	a.waiting[d] = len(a.pending)
	a.pending = append(a.pending, b)
	if a.pendingN += len(b.Data); a.pendingN < batchSize {
		return nil
	}
	err := s.write()
	if err != nil && s.failed == nil {
		// The disk may be full. What others put before stays, to be written
		// when there is room; this block is its caller's to put again.
		a = s.active
		delete(a.waiting, d)
		a.pending = a.pending[:len(a.pending)-1]
		a.pendingN -= len(b.Data)
	}
	return err
}

// write appends the pending IPFS blocks to the active segment.
func (s *Store) write() error {
	if s.failed != nil {
		return s.failed
	}
	if len(s.active.pending) == 0 {
		return nil
	}
	if s.active.size >= segmentSize || len(s.active.index) >= segmentBlocks {
		if err := s.closeActive(); err != nil {
			return err
		}
	}
	a := s.active
	w := bufio.NewWriterSize(&at{a.f, a.size}, 1<<20)
	places := make([]place, len(a.pending))
	end := a.size
	var head []byte
	for i, b := range a.pending {
		head = binary.AppendUvarint(head[:0], uint64(b.CID.ByteLen()+len(b.Data)))
		head = append(head, b.CID.KeyString()...)
		places[i] = place{end + int64(len(head)), uint32(len(b.Data))}
		end += int64(len(head) + len(b.Data))
		// bufio remembers the first error for Flush.
		w.Write(head)
		w.Write(b.Data)
	}
	s.commit.written++
	if err := w.Flush(); err != nil {
		// Nothing of it counts, as after a crash. Only if it cannot be cut off
		// is it not known any more what the segment holds.
		if cutErr := a.f.Truncate(a.size); cutErr != nil {
			return s.fail(errors.Join(err, cutErr))
		}
		return fmt.Errorf("write segment %d: %w", a.number, err)
	}
	for i, b := range a.pending {
		a.index[digestOf(b.CID)] = places[i]
	}
	a.size = end
	a.pending, a.pendingN = nil, 0
	clear(a.waiting)
	return nil
}

// at writes to a file from an offset on, without the file's own position.
type at struct {
	f   durable.File
	off int64
}

func (w *at) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.off)
	w.off += int64(n)
	return n, err
}

// fail makes every later write fail too: what a failed fsync left on disk is not
// known, and only reading it again at open tells.
func (s *Store) fail(err error) error {
	s.failed = fmt.Errorf("write segment %d: %w", s.active.number, err)
	return s.failed
}

// Sync returns when all IPFS blocks put before are on disk.
func (s *Store) Sync(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write(); err != nil {
		return err
	}
	for want := s.commit.written; s.commit.synced < want; {
		if s.failed != nil {
			return s.failed
		}
		if running := s.commit.running; running != nil {
			s.mu.Unlock()
			select {
			case <-running:
			case <-ctx.Done():
			}
			s.mu.Lock()
			if err := ctx.Err(); err != nil {
				return err
			}
			continue
		}
		if err := s.syncActive(); err != nil {
			return err
		}
	}
	return s.failed
}

// syncActive makes what was written durable, without the lock meanwhile.
func (s *Store) syncActive() error {
	a, size, written := s.active, s.active.size, s.commit.written
	running := make(chan struct{})
	s.commit.running = running
	s.mu.Unlock()
	err := a.f.Sync()
	s.mu.Lock()
	s.commit.running = nil
	close(running)
	if s.commit.synced >= written {
		return nil // the segment was closed meanwhile, which syncs it
	}
	if err != nil {
		return s.fail(err)
	}
	s.commit.synced = written
	return s.mark.set(a.number, size)
}

// closeActive closes the active segment, with an index, and begins another.
func (s *Store) closeActive() error {
	a := s.active
	if err := a.f.Sync(); err != nil {
		return s.fail(err)
	}
	path := filepath.Join(s.dir, indexName(a.number))
	if err := writeIndex(s.disk, path, rowsOf(a.index), a.size); err != nil {
		return fmt.Errorf("index segment %d: %w", a.number, err)
	}
	index, err := openIndex(s.disk, path, s.pages)
	if err != nil {
		return fmt.Errorf("index segment %d: %w", a.number, err)
	}
	if err := s.startSegment(a.number + 1); err != nil {
		return errors.Join(fmt.Errorf("begin segment %d: %w", a.number+1, err), index.close())
	}
	s.commit.synced = s.commit.written
	seg := &segment{number: a.number, index: index, car: &plainCAR{a.f, a.size}}
	if s.tracking > 0 {
		seg.track()
	}
	// Whose hold it is that found what in the active segment is not noted.
	seg.held.Store(s.holds > 0)
	s.closed = append(slices.Clip(s.closed), seg)
	return nil
}

func rowsOf(index map[digest]place) []row {
	rows := make([]row, 0, len(index))
	for d, p := range index {
		rows = append(rows, row{d, p.section()})
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(string(a.digest[:]), string(b.digest[:])) })
	return rows
}
