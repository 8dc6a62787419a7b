package segments

import "sync"

// Hold keeps blocks that nothing marks yet from being collected: all that are put,
// found by Has or Put, or read while it lasts, by whomever. It costs a bit of memory
// for each block of the store. Garbage that a Collect meets meanwhile may stay.
type Hold struct {
	release func()
}

// Hold begins to hold. What is relied on must be pinned, or given up, before the
// release.
func (s *Store) Hold() *Hold {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds++
	s.track()
	return &Hold{sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.holds--
		s.untrack()
	})}
}

// Release ends the hold. Further calls do nothing.
func (h *Hold) Release() { h.release() }

// track begins to note what is touched. The caller holds mu.
func (s *Store) track() {
	s.tracking++
	for _, seg := range s.closed {
		seg.track()
	}
}

// untrack ends what track began. Only when nobody is left who wants to know is what
// was touched forgotten: a Collect that began during a hold outlasts it.
func (s *Store) untrack() {
	if s.tracking--; s.tracking > 0 {
		return
	}
	for _, seg := range s.closed {
		seg.touched.Store(nil)
		seg.held.Store(false)
	}
}
