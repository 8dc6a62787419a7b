package entry

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
)

var (
	// ErrRule: an entry that must not follow those before it in its log.
	ErrRule = errors.New("log entry breaks a rule of its log")
	// ErrFrozen: an entry after the one that says that nothing follows. It is an
	// ErrRule.
	ErrFrozen = fmt.Errorf("%w: the log is frozen", ErrRule)
)

// History is what the entries of a log say so far. It is given them in the order of
// their log. An entry that breaks a rule is reported and counts for nothing. A History
// is not safe for concurrent use; it holds about a hundred bytes for a save point, and for
// an erased document.
//
// The rules: all entries have the log's origin and one instance; time does not fall;
// nothing follows a freeze. A policy begins with a save point of sequence 1 in epoch 0,
// or with a takeover from another log, which must be, or follow, the log's first entry;
// any sequence may follow that one. Otherwise sequences of a policy follow each other
// without gaps, in the policy's present epoch, which only a takeover raises, by one.
// Heights rise within an epoch. A retire names a save point of its policy that was not
// retired before. An entry of no policy has the largest epoch so far.
type History struct {
	origin   string
	next     int64 // index that was not given yet
	began    bool
	first    Common
	imported bool // the first entry is a takeover from another log
	frozen   bool
	epoch    uint64
	time     time.Time
	policies map[PolicyKey]*policy
	erased   map[cid.Cid]int64 // the index of the first entry that says so
}

// policy is what a log says of a policy.
type policy struct {
	epoch uint64
	// opened is the index of the takeover that opened the epoch, -1 in epoch 0.
	opened int64
	last   *Anchored
	high   *Anchored // the newest of the epoch that has a height
	// previous is the log that it was taken over from, if it was.
	previous   *Previous
	savepoints map[uint64]place
}

// place is where a save point is in the log.
type place struct {
	index   int64
	cid     cid.Cid
	retired bool
}

// Anchored is a save point and where the log has it.
type Anchored struct {
	Index int64
	Entry Savepoint
}

// NewHistory returns the history of an empty log.
func NewHistory(origin string) *History {
	return &History{origin: origin, policies: map[PolicyKey]*policy{}, erased: map[cid.Cid]int64{}}
}

// Add takes the entry at an index of the log. The error is that of Check; one that was
// given before is passed over.
func (h *History) Add(index int64, e Entry) error {
	if index < h.next {
		return nil
	}
	h.next = index + 1
	if err := h.Check(e); err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	c := e.Base()
	if !h.began {
		h.began, h.first = true, c
		t, ok := e.(*Takeover)
		h.imported = ok && t.Previous != nil
	}
	h.time, h.epoch = c.Time, max(h.epoch, c.Epoch)
	switch e := e.(type) {
	case *Savepoint:
		p := h.policies[e.Policy]
		if p == nil {
			p = &policy{savepoints: map[uint64]place{}, opened: -1}
			h.policies[e.Policy] = p
		}
		p.last = &Anchored{index, *e}
		if e.Height != nil {
			p.high = p.last
		}
		p.savepoints[e.Sequence] = place{index: index, cid: e.Savepoint}
	case *Retire:
		p := h.policies[e.Policy]
		at := p.savepoints[e.Sequence]
		at.retired = true
		p.savepoints[e.Sequence] = at
	case *Takeover:
		p := h.policies[e.Policy]
		if p == nil {
			p = &policy{savepoints: map[uint64]place{}, previous: e.Previous}
			h.policies[e.Policy] = p
		}
		p.epoch, p.opened, p.high = e.Epoch, index, nil
	case *Erase:
		for _, c := range e.Documents {
			if _, ok := h.erased[c]; !ok {
				h.erased[c] = index
			}
		}
	case *Freeze:
		h.frozen = true
	}
	return nil
}

// Check reports whether an entry may come next. The error wraps ErrRule.
func (h *History) Check(e Entry) error {
	c := e.Base()
	switch {
	case h.frozen:
		return ErrFrozen
	case c.Origin != h.origin:
		return broken("it says log %q, this is %q", c.Origin, h.origin)
	case h.began && c.Instance != h.first.Instance:
		return broken("it is of instance %x, the log of %x", c.Instance, h.first.Instance)
	case c.Time.Before(h.time):
		return broken("time %v is before the newest entry's %v", c.Time, h.time)
	}
	switch e := e.(type) {
	case *Savepoint:
		return h.checkSavepoint(e)
	case *Retire:
		return h.checkRetire(e)
	case *Takeover:
		return h.checkTakeover(e)
	}
	if c.Epoch != h.epoch {
		return broken("it says epoch %d, the log has %d", c.Epoch, h.epoch)
	}
	return nil
}

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRule}, args...)...)
}

func (h *History) checkSavepoint(s *Savepoint) error {
	p := h.policies[s.Policy]
	switch {
	case p == nil && (s.Epoch != 0 || s.Sequence != 1):
		return broken("epoch %d, sequence %d is the policy's first", s.Epoch, s.Sequence)
	case p == nil:
		return nil
	case s.Epoch != p.epoch:
		return broken("epoch %d, the policy is in epoch %d", s.Epoch, p.epoch)
	case p.last != nil && s.Sequence != p.last.Entry.Sequence+1:
		return broken("sequence %d follows sequence %d", s.Sequence, p.last.Entry.Sequence)
	case p.high != nil && s.Height != nil && *s.Height <= *p.high.Entry.Height:
		return broken("height %d does not follow height %d", *s.Height, *p.high.Entry.Height)
	}
	return nil
}

func (h *History) checkRetire(r *Retire) error {
	p := h.policies[r.Policy]
	if p == nil {
		return broken("the policy has no save points")
	}
	at, ok := p.savepoints[r.Sequence]
	switch {
	case !ok || at.cid != r.Savepoint:
		return broken("the policy's save point %d is not %s", r.Sequence, r.Savepoint)
	case at.retired:
		return broken("save point %s was retired before", r.Savepoint)
	case r.Epoch != p.epoch:
		return broken("epoch %d, the policy is in epoch %d", r.Epoch, p.epoch)
	}
	return nil
}

func (h *History) checkTakeover(t *Takeover) error {
	p := h.policies[t.Policy]
	switch {
	case t.Previous == nil && p == nil:
		return broken("a policy is taken over that the log does not know")
	case t.Previous == nil && t.Epoch != p.epoch+1:
		return broken("epoch %d follows epoch %d", t.Epoch, p.epoch)
	case t.Previous == nil:
		return nil
	case p != nil:
		return broken("a policy is taken over from another log that is in this one")
	case t.Previous.Origin == h.origin:
		return broken("a policy is taken over from this log as if from another")
	case h.began && !h.imported:
		return broken("a policy is taken over from another log, which this one does not continue")
	case t.Epoch == 0:
		return broken("a takeover to epoch 0")
	}
	return nil
}

// Began returns what the first entry says, and whether there is one.
func (h *History) Began() (Common, bool) { return h.first, h.began }

// Time is that of the newest entry.
func (h *History) Time() time.Time { return h.time }

// Epoch is the largest of all entries.
func (h *History) Epoch() uint64 { return h.epoch }

// Frozen reports whether nothing may follow.
func (h *History) Frozen() bool { return h.frozen }

// Policies returns the keys of all policies, sorted.
func (h *History) Policies() []PolicyKey {
	var keys []PolicyKey
	for k := range h.policies {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b PolicyKey) int { return bytes.Compare(a[:], b[:]) })
	return keys
}

// EpochOf returns the epoch that a policy is in, and whether the log knows the policy.
func (h *History) EpochOf(k PolicyKey) (uint64, bool) {
	if p := h.policies[k]; p != nil {
		return p.epoch, true
	}
	return 0, false
}

// OpenedAt returns the index of the takeover that opened the epoch that a policy is in; -1
// if there was none.
func (h *History) OpenedAt(k PolicyKey) int64 {
	if p := h.policies[k]; p != nil {
		return p.opened
	}
	return -1
}

// Last returns the newest save point of a policy; nil if there is none.
func (h *History) Last(k PolicyKey) *Anchored {
	if p := h.policies[k]; p != nil {
		return p.last
	}
	return nil
}

// High returns the newest save point of a policy's present epoch that has a height; nil
// if there is none.
func (h *History) High(k PolicyKey) *Anchored {
	if p := h.policies[k]; p != nil {
		return p.high
	}
	return nil
}

// TakenFrom returns the log from which a policy was taken over into this one; nil if it
// was not.
func (h *History) TakenFrom(k PolicyKey) *Previous {
	if p := h.policies[k]; p != nil {
		return p.previous
	}
	return nil
}

// Retired returns the index of a save point's entry, and whether it was retired.
func (h *History) Retired(k PolicyKey, sequence uint64) (index int64, retired bool) {
	if p := h.policies[k]; p != nil {
		at, ok := p.savepoints[sequence]
		return at.index, ok && at.retired
	}
	return 0, false
}

// Erased returns the index of the first entry that says that a document is erased, and
// whether there is one.
func (h *History) Erased(document cid.Cid) (index int64, erased bool) {
	index, erased = h.erased[document]
	return index, erased
}
