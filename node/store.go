package node

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// ErrDamaged: bytes of a segment cannot be read as IPFS blocks.
var ErrDamaged = errors.New("store is damaged")

const (
	// segmentSize is the length at which a segment is closed and another begun.
	segmentSize = 1 << 30
	// batchSize is how many bytes Put gathers before it writes them.
	batchSize = 4 << 20
)

// segmentHeader begins every segment: a CARv1 header whose one root is the empty
// identity CID (bafkqaaa), since CAR readers want a root and a store has none.
var segmentHeader = []byte("\x19\xa2eroots\x81\xd8\x2aE\x00\x01\x55\x00\x00gversion\x01")

// digest is what IPFS blocks are found by: sha2-256, whatever the codec.
type digest [32]byte

func digestOf(c cid.Cid) digest { return digest(c.Hash()[2:]) }

// place is where the bytes of an IPFS block lie.
type place struct {
	segment uint32
	offset  int64
	length  uint32
}

// Store keeps IPFS blocks in append-only CARv1 segments, packs/NNNNNNNN.car, which
// standard tools import. The index is in memory, about 100 bytes a block, and is
// built at open from the segments. Every read is checked against its CID. Safe
// for concurrent use.
type Store struct {
	dir string

	mu       sync.RWMutex
	index    map[digest]place
	segments map[uint32]*os.File
	active   uint32
	size     int64 // of the active segment
	unsynced bool
	mark     *syncMark   // how much of the active segment is synced
	pending  []dag.Block // put and not yet written to the segment
	pendingN int         // their bytes
	waiting  map[digest]int
	// bad are IPFS blocks whose bytes were found damaged: they count as absent,
	// so that putting or fetching them again heals them.
	bad map[digest]bool
	// damage describes what could not be read at open.
	damage []Damage
	failed error // a failed write: nothing may follow it
}

// Damage is a part of a segment that holds no readable IPFS block.
type Damage struct {
	Segment uint32
	Offset  int64
	Bytes   int64
	// Torn: at the end of the last segment and behind all that was synced, where
	// a crash leaves what was being written. It was cut.
	Torn bool
}

func (d Damage) String() string {
	if d.Torn {
		return fmt.Sprintf("segment %d: %d bytes that a crash left unfinished at offset %d were cut", d.Segment, d.Bytes, d.Offset)
	}
	return fmt.Sprintf("segment %d: %d unreadable bytes at offset %d", d.Segment, d.Bytes, d.Offset)
}

func openStore(ctx context.Context, dir string) (*Store, error) {
	s := &Store{
		dir: dir, index: map[digest]place{}, segments: map[uint32]*os.File{},
		waiting: map[digest]int{}, bad: map[digest]bool{},
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	paths, err := filepath.Glob(filepath.Join(s.dir, "[0-9]*.car"))
	if err != nil {
		return err
	}
	if s.mark, err = openSyncMark(s.dir, len(paths)); err != nil {
		return err
	}
	for i, path := range paths { // sorted: the numbers have leading zeros
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.openSegment(ctx, path, i == len(paths)-1); err != nil {
			return err
		}
	}
	if s.active == 0 {
		return s.startSegment()
	}
	return nil
}

func (s *Store) openSegment(ctx context.Context, path string, last bool) error {
	var n uint32
	if _, err := fmt.Sscanf(filepath.Base(path), "%d.car", &n); err != nil || n == 0 {
		return fmt.Errorf("%w: %s is not a segment's name", ErrDamaged, path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.segments[n] = f
	st, err := f.Stat()
	if err != nil {
		return err
	}
	sc := &scan{f: f, segment: n, size: st.Size(), believed: st.Size(), index: s.index}
	cut := st.Size() // nothing before it may be cut
	if last {
		sc.believed, cut = s.mark.synced(n, st.Size())
	}
	if err := sc.run(ctx); err != nil {
		return fmt.Errorf("segment %d: %w", n, err)
	}
	size := sc.size
	for _, d := range sc.damage {
		if d.Offset >= cut && d.Offset+d.Bytes == size {
			d.Torn = true
			size = max(d.Offset, int64(len(segmentHeader)))
			if err := restoreTail(f, size); err != nil {
				return fmt.Errorf("cut segment %d: %w", n, err)
			}
		}
		s.damage = append(s.damage, d)
	}
	s.active, s.size = n, size
	// What a killed process wrote is read here and may not be on disk yet: the
	// next Sync sees to it.
	s.unsynced = true
	return nil
}

// restoreTail cuts a segment and makes sure that it begins with a header.
func restoreTail(f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	if _, err := f.WriteAt(segmentHeader, 0); err != nil {
		return err
	}
	return f.Sync()
}

func (s *Store) startSegment() error {
	n := s.active + 1
	f, err := os.OpenFile(filepath.Join(s.dir, fmt.Sprintf("%08d.car", n)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(segmentHeader)
	if err := errors.Join(err, f.Sync(), syncDir(s.dir)); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	s.segments[n], s.active, s.size = f, n, int64(len(segmentHeader))
	return s.mark.set(n-1, 0)
}

func (s *Store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, f := range s.segments {
		err = errors.Join(err, f.Close())
	}
	if s.mark != nil {
		err = errors.Join(err, s.mark.close())
	}
	s.failed = errors.Join(errors.New("store is closed"), s.failed)
	return err
}

// Damage returns what could not be read when the store was opened.
func (s *Store) Damage() []Damage { return s.damage }

// Has reports whether the store holds the IPFS block, without reading it.
func (s *Store) Has(_ context.Context, c cid.Cid) (bool, error) {
	if err := dag.CheckCID(c); err != nil {
		return false, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.has(digestOf(c)), nil
}

func (s *Store) has(d digest) bool {
	if _, ok := s.waiting[d]; ok {
		return true
	}
	_, ok := s.index[d]
	return ok && !s.bad[d]
}

// Size returns the length of an IPFS block.
func (s *Store) Size(_ context.Context, c cid.Cid) (int, error) {
	if err := dag.CheckCID(c); err != nil {
		return 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	d := digestOf(c)
	if i, ok := s.waiting[d]; ok {
		return len(s.pending[i].Data), nil
	}
	if p, ok := s.index[d]; ok && !s.bad[d] {
		return int(p.length), nil
	}
	return 0, s.notFound(c)
}

// Get returns the bytes of an IPFS block, checked against c. The error wraps
// dag.ErrNotFound, or dag.ErrHash the first time that damage is found.
func (s *Store) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := dag.CheckCID(c); err != nil {
		return nil, err
	}
	d := digestOf(c)
	s.mu.RLock()
	if i, ok := s.waiting[d]; ok {
		defer s.mu.RUnlock()
		return s.pending[i].Data, nil
	}
	p, ok := s.index[d]
	bad := s.bad[d]
	f := s.segments[p.segment]
	s.mu.RUnlock()
	if bad {
		return nil, fmt.Errorf("IPFS block %s: %w (%w: segment %d, offset %d)", c, dag.ErrNotFound, ErrDamaged, p.segment, p.offset)
	}
	if !ok {
		return nil, s.notFound(c)
	}
	data := make([]byte, p.length)
	if _, err := f.ReadAt(data, p.offset); err != nil {
		return nil, fmt.Errorf("read segment %d: %w", p.segment, err)
	}
	if err := (dag.Block{CID: c, Data: data}).Check(); err != nil {
		err = fmt.Errorf("segment %d, offset %d: %w", p.segment, p.offset, err)
		return nil, errors.Join(err, s.noteBad(ctx, f, d, p))
	}
	return data, nil
}

// noteBad remembers that the bytes of an IPFS block are damaged. If that happened
// to the length, sound IPFS blocks may lie in them: they are found again.
func (s *Store) noteBad(ctx context.Context, f *os.File, d digest, p place) error {
	s.mu.RLock()
	known := s.bad[d] || s.index[d] != p // or healed meanwhile
	s.mu.RUnlock()
	if known {
		return nil
	}
	hidden, err := hiddenSections(ctx, f, p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index[d] == p {
		s.bad[d] = true
	}
	for d, p := range hidden {
		if _, ok := s.index[d]; !ok {
			s.index[d] = p
		}
	}
	return err
}

// notFound also says that damage may be the reason.
func (s *Store) notFound(c cid.Cid) error {
	err := fmt.Errorf("IPFS block %s: %w", c, dag.ErrNotFound)
	for _, d := range s.damage {
		if !d.Torn {
			return fmt.Errorf("%w (%w: %s)", err, ErrDamaged, d)
		}
	}
	return err
}

// Put takes IPFS blocks, whose CIDs must be right: they are not hashed here. One
// that the store holds is skipped; a damaged one is written again. They are on
// disk after Sync.
func (s *Store) Put(_ context.Context, blocks ...dag.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blocks {
		if err := s.put(b); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) put(b dag.Block) error {
	if s.failed != nil {
		return s.failed
	}
	if err := dag.CheckCID(b.CID); err != nil {
		return err
	}
	if len(b.Data) > dag.MaxBlockSize {
		return fmt.Errorf("%w: %s has %d bytes", dag.ErrUnsupported, b.CID, len(b.Data))
	}
	d := digestOf(b.CID)
	if s.has(d) {
		return nil
	}
	s.waiting[d] = len(s.pending)
	s.pending = append(s.pending, b)
	if s.pendingN += len(b.Data); s.pendingN < batchSize {
		return nil
	}
	err := s.write()
	if err != nil && s.failed == nil {
		// The disk may be full. What others put before stays, to be written
		// when there is room; this block is its caller's to put again.
		delete(s.waiting, d)
		s.pending = s.pending[:len(s.pending)-1]
		s.pendingN -= len(b.Data)
	}
	return err
}

// write appends the pending IPFS blocks to the active segment.
func (s *Store) write() error {
	if s.failed != nil {
		return s.failed
	}
	if len(s.pending) == 0 {
		return nil
	}
	if s.size >= segmentSize {
		if err := s.sync(); err != nil {
			return err
		}
		if err := s.startSegment(); err != nil {
			return fmt.Errorf("begin segment %d: %w", s.active+1, err)
		}
	}
	f := s.segments[s.active]
	w := bufio.NewWriterSize(&at{f, s.size}, 1<<20)
	places := make([]place, len(s.pending))
	end := s.size
	for i, b := range s.pending {
		head := binary.AppendUvarint(nil, uint64(b.CID.ByteLen()+len(b.Data)))
		head = append(head, b.CID.Bytes()...)
		places[i] = place{s.active, end + int64(len(head)), uint32(len(b.Data))}
		end += int64(len(head) + len(b.Data))
		// bufio remembers the first error for Flush.
		w.Write(head)
		w.Write(b.Data)
	}
	s.unsynced = true
	if err := w.Flush(); err != nil {
		// Nothing of it counts, as after a crash. Only if it cannot be cut off
		// is it not known any more what the segment holds.
		if cutErr := f.Truncate(s.size); cutErr != nil {
			return s.fail(errors.Join(err, cutErr))
		}
		return fmt.Errorf("write segment %d: %w", s.active, err)
	}
	for i, b := range s.pending {
		d := digestOf(b.CID)
		s.index[d] = places[i]
		delete(s.bad, d)
	}
	s.size = end
	s.pending, s.pendingN = nil, 0
	clear(s.waiting)
	return nil
}

// fail makes every later write fail too: what a failed fsync left on disk is not
// known, and only reading it again at open tells.
func (s *Store) fail(err error) error {
	s.failed = fmt.Errorf("write segment %d: %w", s.active, err)
	return s.failed
}

// Sync returns when all IPFS blocks put before are on disk.
func (s *Store) Sync(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write(); err != nil {
		return err
	}
	return s.sync()
}

func (s *Store) sync() error {
	if !s.unsynced {
		return s.failed
	}
	if err := s.segments[s.active].Sync(); err != nil {
		return s.fail(err)
	}
	s.unsynced = false
	return s.mark.set(s.active, s.size)
}

// Len returns the number of IPFS blocks in the store.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.index) + len(s.pending)
}

// at writes to a file from an offset on, without the file's own position.
type at struct {
	f   *os.File
	off int64
}

func (w *at) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.off)
	w.off += int64(n)
	return n, err
}
