package segments

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

const (
	// garbageShare is the part of a segment that must be garbage for it to be
	// rewritten: below it, more is copied than is gained.
	garbageShare = 0.25
	// smallSegment is the length below which segments are put together.
	smallSegment = segmentSize / 8
)

// CollectOptions says what Collect does.
type CollectOptions struct {
	// DryRun counts what is live and what is not, and removes nothing.
	DryRun bool
	// All rewrites every segment that holds garbage, however little.
	All bool
}

// Collected is what Collect found and did. Bytes are those of sections before any
// compression.
type Collected struct {
	LiveBlocks, LiveBytes       int64
	GarbageBlocks, GarbageBytes int64 // found
	RemovedBlocks, RemovedBytes int64 // of the garbage, and of the segments that held it
	// Damaged are live and cannot be read, and there is no other copy of them. The
	// segments that they are in were kept. Only what was to be moved is read.
	Damaged int64
}

// Marks are the live blocks of a Collect.
type Marks struct {
	s      *Store
	closed map[uint32]bits
	others map[digest]struct{} // in segments that are newer than the Collect
}

// Add marks an IPFS block as live. It reports whether it was not marked before. The
// error wraps dag.ErrNotFound if the store does not hold it.
func (m *Marks) Add(ctx context.Context, c cid.Cid) (first bool, err error) {
	if err := dag.CheckCID(c); err != nil {
		return false, err
	}
	d := digestOf(c)
	m.s.files.RLock()
	defer m.s.files.RUnlock()
	at, err := m.s.findSound(ctx, c)
	if err != nil {
		return false, err
	}
	if at == nil {
		if err := m.addDamaged(d); err != nil {
			return false, err
		}
		return false, m.s.notFound(c)
	}
	if at.seg != nil {
		if marked, ok := m.closed[at.segment]; ok {
			first = !marked.has(at.row)
			marked.set(at.row)
			return first, nil
		}
	}
	_, ok := m.others[d]
	m.others[d] = struct{}{}
	return !ok, nil
}

// addDamaged marks the copies of a block that were found damaged: they must not be
// garbage only because the disk could not read them once.
func (m *Marks) addDamaged(d digest) error {
	for _, seg := range m.s.snapshot() {
		marked, ok := m.closed[seg.number]
		if !ok {
			continue
		}
		row, offset, ok, err := seg.index.lookup(d)
		if err != nil {
			return err
		}
		if ok && m.s.isBad(spot{seg.number, offset}, d) {
			marked.set(row)
		}
	}
	return nil
}

// findSound is find, except that of a block with several copies it returns one whose
// bytes are right: the others are garbage.
func (s *Store) findSound(ctx context.Context, c cid.Cid) (*found, error) {
	for {
		at, err := s.find(digestOf(c), false)
		if at == nil || err != nil {
			return nil, err
		}
		alone, err := s.isOnly(at, digestOf(c))
		if alone || err != nil {
			return at, err
		}
		data, err := at.read()
		if err == nil && (dag.Block{CID: c, Data: data}).Check() == nil {
			return at, nil
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		if err := s.noteBad(ctx, at, digestOf(c)); err != nil {
			return nil, err
		}
	}
}

// isOnly reports whether no older segment has another copy of a block.
func (s *Store) isOnly(at *found, d digest) (bool, error) {
	for _, seg := range s.snapshot() {
		if at.segment != 0 && seg.number >= at.segment {
			break
		}
		if _, _, ok, err := seg.index.lookup(d); ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// Collect removes garbage: mark says what is live, and what is touched from the
// beginning of a [Store.Hold] on, or while Collect runs, is live too. Blocks are
// moved out of segments that hold much garbage, and those are removed, while
// others read and write. Small segments are put together. A segment of which
// something live cannot be read stays, and the others are gone on with: what is
// damaged is counted, and an error of the disk is returned at the end. After an
// error, or a crash, nothing that is live is missing, and the next Collect goes on.
func (s *Store) Collect(ctx context.Context, mark func(context.Context, *Marks) error, o CollectOptions) (Collected, error) {
	if err := s.beginRewriting(ctx); err != nil {
		return Collected{}, err
	}
	defer s.endRewriting()
	s.mu.Lock()
	s.track()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.untrack()
		s.mu.Unlock()
	}()
	// What is put from here on is in newer segments and not looked at.
	if err := s.roll(); err != nil {
		return Collected{}, err
	}
	candidates := s.snapshot()
	m := &Marks{s, map[uint32]bits{}, map[digest]struct{}{}}
	for _, seg := range candidates {
		m.closed[seg.number] = newBits(seg.index.rows)
	}
	if err := mark(ctx, m); err != nil {
		return Collected{}, fmt.Errorf("mark: %w", err)
	}
	return s.sweep(ctx, candidates, m, o)
}

// beginRewriting waits for its turn to replace segments, as long as ctx lasts.
func (s *Store) beginRewriting(ctx context.Context) error {
	select {
	case s.rewriting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) endRewriting() { <-s.rewriting }

func (s *Store) sweep(ctx context.Context, candidates []*segment, m *Marks, o CollectOptions) (Collected, error) {
	var out Collected
	var errs []error
	small := 0
	for _, seg := range candidates {
		if seg.car.Size() < smallSegment {
			small++
		}
	}
	for _, seg := range candidates {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		marked := m.closed[seg.number]
		live := func(row int) bool { return marked.has(row) || seg.wanted(row) }
		n, err := s.count(seg, live)
		if err != nil {
			errs = append(errs, fmt.Errorf("segment %d: %w", seg.number, err))
			continue
		}
		out.LiveBlocks += n.LiveBlocks
		out.LiveBytes += n.LiveBytes
		out.GarbageBlocks += n.GarbageBlocks
		out.GarbageBytes += n.GarbageBytes
		worth := n.GarbageBlocks > 0 && (o.All || float64(n.GarbageBytes) >= garbageShare*float64(seg.car.Size())) ||
			small > 1 && seg.car.Size() < smallSegment
		if o.DryRun || !worth {
			continue
		}
		lost, err := s.rewrite(ctx, seg, live, false)
		out.Damaged += int64(len(lost))
		if err != nil {
			errs = append(errs, fmt.Errorf("rewrite segment %d: %w", seg.number, err))
			if !errors.Is(err, errUnreadable) {
				return out, errors.Join(errs...)
			}
		}
		if err != nil || len(lost) > 0 {
			continue
		}
		out.RemovedBlocks += n.GarbageBlocks
		out.RemovedBytes += n.GarbageBytes
	}
	if !o.DryRun {
		errs = append(errs, s.Sync(ctx), s.pruneDeleted())
	}
	return out, errors.Join(errs...)
}

// count counts the rows of a segment.
func (s *Store) count(seg *segment, live func(int) bool) (Collected, error) {
	rows, err := seg.index.all()
	if err != nil {
		return Collected{}, err
	}
	var n Collected
	order := byOffset(rows)
	for i, row := range order {
		end := seg.car.Size()
		if i+1 < len(order) {
			end = rows[order[i+1]].offset
		}
		size := end - rows[row].offset
		if live(row) {
			n.LiveBlocks++
			n.LiveBytes += size
		} else {
			n.GarbageBlocks++
			n.GarbageBytes += size
		}
	}
	return n, nil
}

// errUnreadable: a segment cannot be read, which says nothing of the others.
var errUnreadable = errors.New("cannot be read")

// rewrite copies the live blocks of a segment to the active one, and removes the
// segment. It returns what it could not copy because it is damaged, if there is no
// other copy: then the segment stays, unless it must go.
func (s *Store) rewrite(ctx context.Context, seg *segment, live func(int) bool, mustGo bool) (lost map[digest]bool, err error) {
	rows, err := seg.index.all()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	order := byOffset(rows)
	done := newBits(len(rows))
	lost = map[digest]bool{}
	move := func(r row) error {
		ok, err := s.move(ctx, seg, r)
		if err == nil && !ok {
			lost[r.digest] = true
		}
		return err
	}
	for {
		for _, i := range order {
			if done.has(i) || !live(i) {
				continue
			}
			if err := errors.Join(ctx.Err(), move(rows[i])); err != nil {
				return lost, err
			}
			done.set(i)
		}
		for _, r := range s.hiddenIn(seg) {
			if err := move(r); err != nil {
				return lost, err
			}
		}
		if err := s.Sync(ctx); err != nil {
			return lost, err
		}
		if len(lost) > 0 && !mustGo {
			return lost, nil
		}
		if s.dropUnless(seg, func() bool {
			return slices.ContainsFunc(order, func(i int) bool { return live(i) && !done.has(i) })
		}) {
			return lost, seg.remove(s.disk, s.dir)
		}
		// Some row was touched meanwhile.
	}
}

// hiddenIn returns the sound sections that were found within damaged ones of a
// segment. Nothing marks them, so all are live.
func (s *Store) hiddenIn(seg *segment) []row {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var rows []row
	for d, at := range s.hidden {
		if at.segment == seg.number {
			rows = append(rows, row{d, at.spot().offset})
		}
	}
	return rows
}

// dropUnless takes a segment out of the store, unless it is still needed. Nobody
// reads or finds anything meanwhile.
func (s *Store) dropUnless(seg *segment, needed func() bool) bool {
	s.files.Lock()
	defer s.files.Unlock()
	if needed() {
		return false
	}
	s.replace(seg)
	seg.close() // nothing was written through these files
	return true
}

// replace puts segments in the place of one. The caller holds files for writing.
func (s *Store) replace(old *segment, new ...*segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.closed, old)
	s.closed = slices.Concat(s.closed[:i], new, s.closed[i+1:])
	if len(new) > 0 {
		return
	}
	for at := range s.bad {
		if at.segment == old.number {
			delete(s.bad, at)
		}
	}
	for d, at := range s.hidden {
		if at.segment == old.number {
			delete(s.hidden, d)
		}
	}
}

// move copies a block of a segment to the active one, unless it was deleted. It
// reports false if it is damaged and there is no other copy.
func (s *Store) move(ctx context.Context, seg *segment, r row) (bool, error) {
	s.files.RLock()
	defer s.files.RUnlock()
	at := spot{seg.number, r.offset}
	if s.isDeleted(at, r.digest) {
		return true, nil
	}
	c, _, err := seg.head(r.offset)
	var data []byte
	if err == nil {
		data, err = seg.read(r.offset)
	}
	if err == nil {
		if digestOf(c) != r.digest {
			err = fmt.Errorf("%w: another block", ErrDamaged)
		} else {
			err = dag.Block{CID: c, Data: data}.Check()
		}
	}
	if errors.Is(err, dag.ErrHash) && s.isDeleted(at, sha256.Sum256(data)) {
		return true, nil // the CID is what is wrong
	}
	if errors.Is(err, ErrDamaged) || errors.Is(err, dag.ErrHash) {
		return s.hasOther(ctx, &found{spot: at, store: s, seg: seg}, r.digest)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return true, s.appendMoved(dag.Block{CID: c, Data: data}, at)
}

// hasOther notes that a copy of a block is damaged, and reports whether there is a
// sound one, or none is wanted any more.
func (s *Store) hasOther(ctx context.Context, at *found, d digest) (bool, error) {
	if err := s.noteBad(ctx, at, d); err != nil {
		return false, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	data, _, err := s.readSound(ctx, rawCID(d))
	if err != nil {
		return false, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return data != nil || s.isDeleted(at.spot, d), nil
}

// isDeleted reports whether the copy of a block at a spot does not count.
func (s *Store) isDeleted(at spot, d digest) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	gone, ok := s.deleted[d]
	return ok && at.before(gone)
}

// roll closes the active segment, if it holds anything.
func (s *Store) roll() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == nil {
		return errClosed
	}
	if err := s.write(); err != nil {
		return err
	}
	if s.active.size == int64(len(segmentHeader)) {
		return nil
	}
	return s.closeActive()
}

// snapshot returns the closed segments.
func (s *Store) snapshot() []*segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}
