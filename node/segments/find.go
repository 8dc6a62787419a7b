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
	place place    // in the active segment
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
		if !ok || deleted && at.before(gone) || s.isBad(at) {
			continue
		}
		if touch {
			seg.touch(row)
		}
		return &found{spot: at, store: s, seg: seg, row: row}, nil
	}
	if isHidden && !(deleted && hidden.before(gone)) && !s.isBad(hidden) {
		for _, seg := range closed {
			if seg.number == hidden.segment {
				return &found{spot: hidden, store: s, seg: seg, row: -1}, nil
			}
		}
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
	if gone, ok := s.deleted[d]; ok && at.before(gone) || s.bad[at] {
		return nil
	}
	return &found{spot: at, store: s, place: p}
}

func (s *Store) isBad(at spot) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bad[at]
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
func (s *Store) fileOf(n uint32) (file interface {
	ReadAt([]byte, int64) (int, error)
}, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.active == nil {
		return nil, errClosed
	}
	if s.active.number == n {
		return s.active.f, nil
	}
	for _, seg := range s.closed {
		if seg.number == n {
			return seg.car, nil
		}
	}
	return nil, errors.New("segment is gone")
}

// noteBad remembers that the bytes of a section are damaged. If that happened to its
// length, sound sections may lie in them: they are found again.
func (s *Store) noteBad(ctx context.Context, at *found) error {
	if at.segment == 0 {
		return nil
	}
	hidden := map[digest]place{}
	if n, err := at.size(); err == nil {
		file, err := s.fileOf(at.segment)
		if err != nil {
			return err
		}
		begin := at.offset + int64(headLen(uint32(n)))
		if hidden, err = hiddenSections(ctx, file, begin, begin+int64(n)); err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad[at.spot] = true
	for d, p := range hidden {
		s.hidden[d] = spot{at.segment, p.section()}
	}
	return nil
}

var _ interface {
	dag.Source
	dag.Sink
	dag.Has
} = (*Store)(nil)
