package segments

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs/go-cid"
)

// ErrDamaged: bytes of a segment cannot be read as IPFS blocks.
var ErrDamaged = errors.New("store is damaged")

// errClosed is what a closed store answers.
var errClosed = errors.New("store is closed")

// digest is what IPFS blocks are found by: sha2-256, whatever the codec.
type digest [32]byte

func digestOf(c cid.Cid) digest { return digest(c.Hash()[2:]) }

// Store keeps IPFS blocks in segments. Every read is checked against its CID. All
// methods are safe for concurrent use.
type Store struct {
	dir   string
	disk  durable.Disk
	cache *frameCache // of sealed segments
	pages *pageCache  // of indexes

	// rewriting holds one token while a Collect, Seal or Erase is in progress.
	rewriting chan struct{}
	// files is held for reading while files of closed segments are used, for
	// writing to take one away. It is taken before mu.
	files sync.RWMutex

	mu     sync.RWMutex
	closed []*segment // by number; replaced, never changed
	active *active
	mark   *syncMark
	commit commit
	// bad are the copies of blocks whose bytes were found damaged, hidden the
	// sound sections that were found within them.
	bad    map[copyOf]bool
	hidden map[digest]hidden
	// deleted says up to where copies of a block do not count.
	deleted map[digest]spot
	damage  []Damage
	failed  error // a failed write: nothing may follow it
	holds   int
	// tracking counts who wants to know what is touched: holds and a Collect.
	tracking int
}

// spot is where a section begins.
type spot struct {
	segment uint32
	offset  int64
}

// copyOf is a block and where a copy of it should be. The place alone does not say
// what is wrong: an index may lead to the section of another block.
type copyOf struct {
	spot
	digest digest
}

// hidden is where a section lies that no index knows.
type hidden struct {
	segment uint32
	place   place
}

func (h hidden) spot() spot { return spot{h.segment, h.place.section()} }

func (s spot) before(t spot) bool {
	return s.segment < t.segment || s.segment == t.segment && s.offset < t.offset
}

// Damage is a part of a segment that holds no readable IPFS block, or, as Segment 0,
// of the list of what was deleted.
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
	if d.Segment == 0 {
		return fmt.Sprintf("list of what was deleted: %d unreadable bytes at offset %d: something may be back", d.Bytes, d.Offset)
	}
	return fmt.Sprintf("segment %d: %d unreadable bytes at offset %d", d.Segment, d.Bytes, d.Offset)
}

// Open opens the store in a folder that exists, which may be empty. One process at
// a time may have it open; to see to that is for the caller.
func Open(ctx context.Context, dir string) (*Store, error) {
	return OpenOn(ctx, dir, durable.Disk{})
}

// OpenOn is Open on a given disk.
func OpenOn(ctx context.Context, dir string, disk durable.Disk) (*Store, error) {
	s := &Store{dir: dir, disk: disk, rewriting: make(chan struct{}, 1), cache: newFrameCache(), pages: newPageCache(), bad: map[copyOf]bool{}, hidden: map[digest]hidden{}}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close releases the store's files. What was put and not synced may be lost.
func (s *Store) Close() error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.commit.running != nil { // who runs it uses the file
		running := s.commit.running
		s.mu.Unlock()
		<-running
		s.mu.Lock()
	}
	var err error
	for _, seg := range s.closed {
		err = errors.Join(err, seg.close())
	}
	if s.active != nil {
		err = errors.Join(err, s.active.f.Close())
	}
	if s.mark != nil {
		err = errors.Join(err, s.mark.close())
	}
	s.closed, s.active, s.mark = nil, nil, nil
	s.failed = errors.Join(errClosed, s.failed)
	return err
}

// Damage returns what could not be read when the store was opened.
func (s *Store) Damage() []Damage { return s.damage }

// Has reports whether the store holds the IPFS block, without reading it.
func (s *Store) Has(_ context.Context, c cid.Cid) (bool, error) {
	if err := dag.CheckCID(c); err != nil {
		return false, err
	}
	s.files.RLock()
	defer s.files.RUnlock()
	at, err := s.find(digestOf(c), true)
	return at != nil, err
}

// Size returns the length of an IPFS block.
func (s *Store) Size(_ context.Context, c cid.Cid) (int, error) {
	if err := dag.CheckCID(c); err != nil {
		return 0, err
	}
	s.files.RLock()
	defer s.files.RUnlock()
	at, err := s.find(digestOf(c), true)
	if err != nil {
		return 0, err
	}
	if at == nil {
		return 0, s.notFound(c)
	}
	return at.size()
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
	s.files.RLock()
	defer s.files.RUnlock()
	data, damage, err := s.readSound(ctx, c)
	switch {
	case err != nil:
		return nil, err
	case data == nil && damage != nil:
		return nil, damage
	case data == nil:
		return nil, s.notFound(c)
	}
	return data, nil
}

// readSound returns the bytes of the newest copy of an IPFS block whose bytes are
// right, or nil, and what was found wrong with copies before. The caller holds
// files for reading.
func (s *Store) readSound(ctx context.Context, c cid.Cid) (data []byte, damage, err error) {
	for {
		at, err := s.find(digestOf(c), true)
		if at == nil || err != nil {
			return nil, damage, err
		}
		data, err := at.read()
		if err == nil {
			err = dag.Block{CID: c, Data: data}.Check()
		}
		if err == nil {
			if data == nil {
				data = []byte{}
			}
			return data, damage, nil
		}
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, dag.ErrHash) {
			return nil, nil, fmt.Errorf("read segment %d: %w", at.segment, err)
		}
		if at.segment == 0 {
			return nil, nil, fmt.Errorf("put with another block's CID: %w", err) // it is no disk's fault
		}
		damage = fmt.Errorf("%w: segment %d, offset %d: %w", dag.ErrHash, at.segment, at.offset, err)
		if err := s.noteBad(ctx, at, digestOf(c)); err != nil {
			return nil, nil, errors.Join(damage, err)
		}
	}
}

// notFound also says that damage may be the reason.
func (s *Store) notFound(c cid.Cid) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active == nil {
		return errClosed
	}
	err := fmt.Errorf("IPFS block %s: %w", c, dag.ErrNotFound)
	for _, d := range s.damage {
		if !d.Torn && d.Segment != 0 {
			return fmt.Errorf("%w (%w: %s)", err, ErrDamaged, d)
		}
	}
	for at := range s.bad {
		return fmt.Errorf("%w (%w: segment %d, offset %d)", err, ErrDamaged, at.segment, at.offset)
	}
	return err
}

// Put takes IPFS blocks, whose CIDs must be right: they are not hashed here. One
// that the store holds is skipped; one that is known to be damaged is written
// again. They are on disk after Sync.
func (s *Store) Put(_ context.Context, blocks ...dag.Block) error {
	s.files.RLock()
	defer s.files.RUnlock()
	for _, b := range blocks {
		if err := checkBlock(b); err != nil {
			return err
		}
		// Closed segments lie on disk and are searched without the lock.
		at, err := s.find(digestOf(b.CID), true)
		if err == nil && at == nil {
			err = s.append(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Heal is Put for what is to be relied on: a block that the store holds is read, and
// written again if its bytes are wrong. It calls absent, unless that is nil, for each
// block that the store did not hold.
func (s *Store) Heal(ctx context.Context, absent func(dag.Block), blocks ...dag.Block) error {
	s.files.RLock()
	defer s.files.RUnlock()
	for _, b := range blocks {
		if err := checkBlock(b); err != nil {
			return err
		}
		data, damage, err := s.readSound(ctx, b.CID)
		if err == nil && data == nil {
			err = s.append(b)
			if err == nil && damage == nil && absent != nil {
				absent(b)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkBlock(b dag.Block) error {
	if err := dag.CheckCID(b.CID); err != nil {
		return err
	}
	if len(b.Data) > dag.MaxBlockSize {
		return fmt.Errorf("%w: %s has %d bytes", dag.ErrUnsupported, b.CID, len(b.Data))
	}
	return nil
}

// Len returns the number of IPFS blocks in the store; copies count.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active == nil {
		return 0
	}
	n := len(s.active.index) + len(s.active.pending)
	for _, seg := range s.closed {
		n += seg.index.rows
	}
	return n
}

// Bytes returns the length of the store's files.
func (s *Store) Bytes() (int64, error) {
	found, err := os.ReadDir(s.dir)
	var n int64
	for _, f := range found {
		st, err := f.Info()
		if err != nil {
			return 0, err
		}
		n += st.Size()
	}
	return n, err
}

func (s *Store) open(ctx context.Context) error {
	if err := s.disk.Clean(s.dir); err != nil {
		return err
	}
	names, err := s.listSegments()
	if err != nil {
		return err
	}
	if s.mark, err = openSyncMark(s.disk, s.dir, len(names)); err != nil {
		return err
	}
	if s.deleted, s.damage, err = readDeleted(s.dir); err != nil {
		return err
	}
	highest := uint32(0)
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		highest = name.number
		if i == len(names)-1 {
			closed, err := s.isClosed(name)
			if err != nil {
				return err
			}
			if !closed {
				return s.openActive(ctx, name.number)
			}
		}
		if err := s.openClosed(ctx, name); err != nil {
			return fmt.Errorf("segment %d: %w", name.number, err)
		}
	}
	return s.startSegment(highest + 1)
}

// isClosed reports whether the last segment has an index that is its own. It has
// another if closing it failed and it went on to grow.
func (s *Store) isClosed(name segmentName) (bool, error) {
	if name.sealed || !name.indexed {
		return name.sealed, nil
	}
	path := filepath.Join(s.dir, indexName(name.number))
	st, err := os.Stat(filepath.Join(s.dir, name.car()))
	if err != nil {
		return false, err
	}
	index, err := openIndex(s.disk, path, s.pages)
	if err == nil {
		closed := index.carLen == st.Size()
		if err := index.close(); closed || err != nil {
			return closed, err
		}
	} else if !errors.Is(err, ErrDamaged) {
		return false, err
	}
	return false, s.disk.Remove(path)
}

// segmentName says what files there are of a segment.
type segmentName struct {
	number          uint32
	sealed, indexed bool
}

func (n segmentName) car() string {
	if n.sealed {
		return carName(n.number) + ".zst"
	}
	return carName(n.number)
}

func carName(n uint32) string   { return fmt.Sprintf("%08d.car", n) }
func indexName(n uint32) string { return fmt.Sprintf("%08d.idx", n) }

// listSegments returns the segments in a folder, by number, and removes what a
// crash left of others: an index without a segment, and the second form of a
// segment that was being sealed.
func (s *Store) listSegments() ([]segmentName, error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, "[0-9]*"))
	if err != nil {
		return nil, err
	}
	plain, sealed, indexed := map[uint32]bool{}, map[uint32]bool{}, map[uint32]bool{}
	for _, path := range paths {
		name := filepath.Base(path)
		var n uint32
		if _, err := fmt.Sscanf(name, "%d.", &n); err != nil || n == 0 {
			return nil, fmt.Errorf("%w: %s is not a segment's name", ErrDamaged, path)
		}
		switch name {
		case carName(n):
			plain[n] = true
		case carName(n) + ".zst":
			sealed[n] = true
		case indexName(n):
			indexed[n] = true
		default:
			return nil, fmt.Errorf("%w: %s is not a segment's name", ErrDamaged, path)
		}
	}
	var out []segmentName
	for n := range plain {
		if sealed[n] {
			if err := s.disk.Remove(filepath.Join(s.dir, carName(n)+".zst")); err != nil {
				return nil, err
			}
		}
		out = append(out, segmentName{n, false, indexed[n]})
	}
	for n := range sealed {
		if !plain[n] {
			out = append(out, segmentName{n, true, indexed[n]})
		}
	}
	for n := range indexed {
		if !plain[n] && !sealed[n] {
			if err := s.disk.Remove(filepath.Join(s.dir, indexName(n))); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(out, func(a, b segmentName) int { return int(a.number) - int(b.number) })
	return out, nil
}
