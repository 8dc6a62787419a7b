package segments

import (
	"context"
	"errors"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

// found is a copy of an IPFS block in the store.
type found struct {
	spot
	store *Store
	data  []byte   // of one that is not written yet
	place place    // in the active segment, or hidden in any
	seg   *segment // the closed segment, if it is in one
	row   int      // there
}

// find returns the newest copy of an IPFS block that is neither deleted nor known to
// be damaged, or nil. Who finds it relies on it, unless touch is false. The caller
// holds files for reading.
func (s *Store) find(d digest, touch bool) (*found, error) {
	s.mu.RLock()
	if s.active == nil {
		s.mu.RUnlock()
		return nil, errClosed
	}
	at := s.inActive(d)
	closed := s.closed
	gone, deleted := s.deleted[d]
	hidden, isHidden := s.hidden[d]
	s.mu.RUnlock()
	if at != nil {
		return at, nil
	}
	for i := len(closed) - 1; i >= 0; i-- {
		seg := closed[i]
		row, offset, ok, err := seg.index.lookup(d)
		if err != nil {
			return nil, err
		}
		at := spot{seg.number, offset}
		if !ok || deleted && at.before(gone) || s.isBad(at, d) {
			continue
		}
		if touch {
			seg.touch(row)
		}
		return &found{spot: at, store: s, seg: seg, row: row}, nil
	}
	if isHidden && !(deleted && hidden.spot().before(gone)) && !s.isBad(hidden.spot(), d) {
		return &found{spot: hidden.spot(), store: s, place: hidden.place}, nil
	}
	return nil, nil
}

// inActive finds what is in the active segment, or waits to be. The caller holds mu.
func (s *Store) inActive(d digest) *found {
	a := s.active
	if i, ok := a.waiting[d]; ok {
		return &found{store: s, data: a.pending[i].Data}
	}
	p, ok := a.index[d]
	if !ok {
		return nil
	}
	at := spot{a.number, p.section()}
	if gone, ok := s.deleted[d]; ok && at.before(gone) || s.bad[copyOf{at, d}] {
		return nil
	}
	return &found{spot: at, store: s, place: p}
}

func (s *Store) isBad(at spot, d digest) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bad[copyOf{at, d}]
}

func (f *found) size() (int, error) {
	switch {
	case f.seg != nil:
		_, n, err := f.seg.head(f.offset)
		return n, err
	case f.segment != 0:
		return int(f.place.length), nil
	}
	return len(f.data), nil
}

func (f *found) read() ([]byte, error) {
	switch {
	case f.seg != nil:
		return f.seg.read(f.offset)
	case f.segment == 0:
		return f.data, nil
	}
	file, err := f.store.fileOf(f.segment)
	if err != nil {
		return nil, err
	}
	data := make([]byte, f.place.length)
	_, err = file.ReadAt(data, f.place.offset)
	return data, err
}

// fileOf returns the file of a segment that was the active one a moment ago. That it
// was closed since does no harm.
func (s *Store) fileOf(n uint32) (carFile, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active == nil {
		return nil, errClosed
	}
	if s.active.number == n {
		return &plainCAR{s.active.f, s.active.size}, nil
	}
	for _, seg := range s.closed {
		if seg.number == n {
			return seg.car, nil
		}
	}
	return nil, errors.New("segment is gone")
}

// noteBad remembers that the bytes of a copy of a block are damaged. If that happened
// to its length, sound sections may lie in them: they are found again.
func (s *Store) noteBad(ctx context.Context, at *found, d digest) error {
	if at.segment == 0 {
		return nil
	}
	within := map[digest]place{}
	if n, err := at.size(); err == nil {
		file, err := s.fileOf(at.segment)
		if err != nil {
			return err
		}
		begin := at.offset + int64(headLen(uint32(n)))
		if within, err = hiddenSections(ctx, lenient{file}, begin, min(begin+int64(n), file.Size())); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad[copyOf{at.spot, d}] = true
	for d, p := range within {
		s.hidden[d] = hidden{at.segment, p}
	}
	return nil
}

var _ interface {
	dag.Source
	dag.Sink
	dag.Has
} = (*Store)(nil)
