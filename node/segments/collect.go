package segments

import (
	"context"
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
	Damaged                     int64 // live, and their bytes wrong; they were not moved
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
// others read and write. Small segments are put together. After an error, or a
// crash, nothing that is live is missing, and the next Collect goes on.
func (s *Store) Collect(ctx context.Context, mark func(context.Context, *Marks) error, o CollectOptions) (Collected, error) {
	s.rewriting.Lock()
	defer s.rewriting.Unlock()
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

func (s *Store) sweep(ctx context.Context, candidates []*segment, m *Marks, o CollectOptions) (Collected, error) {
	var out Collected
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
			return out, err
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
		damaged, err := s.rewrite(ctx, seg, live)
		if err != nil {
			return out, fmt.Errorf("rewrite segment %d: %w", seg.number, err)
		}
		out.Damaged += damaged
		out.RemovedBlocks += n.GarbageBlocks
		out.RemovedBytes += n.GarbageBytes
	}
	if o.DryRun {
		return out, nil
	}
	return out, errors.Join(s.Sync(ctx), s.pruneDeleted())
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

// rewrite copies the live blocks of a segment to the active one, and removes the
// segment. It returns how many it could not copy because their bytes are wrong.
func (s *Store) rewrite(ctx context.Context, seg *segment, live func(int) bool) (damaged int64, err error) {
	rows, err := seg.index.all()
	if err != nil {
		return 0, err
	}
	order := byOffset(rows)
	done := newBits(len(rows))
	for {
		for _, i := range order {
			if done.has(i) || !live(i) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return damaged, err
			}
			ok, err := s.move(ctx, seg, rows[i])
			if err != nil {
				return damaged, err
			}
			if !ok {
				damaged++
			}
			done.set(i)
		}
		for _, r := range s.hiddenIn(seg) {
			if _, err := s.move(ctx, seg, r); err != nil {
				return damaged, err
			}
		}
		if err := s.Sync(ctx); err != nil {
			return damaged, err
		}
		if s.dropUnless(seg, func() bool {
			return slices.ContainsFunc(order, func(i int) bool { return live(i) && !done.has(i) })
		}) {
			return damaged, seg.remove(s.disk, s.dir)
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
// reports false if its bytes are wrong: it is lost, unless there is another copy.
func (s *Store) move(ctx context.Context, seg *segment, r row) (bool, error) {
	s.files.RLock()
	defer s.files.RUnlock()
	at := spot{seg.number, r.offset}
	s.mu.RLock()
	gone, deleted := s.deleted[r.digest]
	s.mu.RUnlock()
	if deleted && at.before(gone) {
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
	if errors.Is(err, ErrDamaged) || errors.Is(err, dag.ErrHash) {
		return false, s.noteBad(ctx, &found{spot: at, store: s, seg: seg}, r.digest)
	}
	if err != nil {
		return false, err
	}
	return true, s.append(dag.Block{CID: c, Data: data})
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
