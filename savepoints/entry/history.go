package entry

import (
	"bytes"
	"encoding/json"
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
//
// As JSON it can be kept, to go on later with the entries that follow.
type History struct{ said said }

// said is what is known of a log. Its fields are exported for their JSON only.
type said struct {
	Origin   string
	Next     int64   // index that was not given yet
	First    *Common // nil: there was none
	Imported bool    // the first entry is a takeover from another log
	Frozen   bool
	Epoch    uint64
	Time     time.Time
	Policies map[PolicyKey]*policy
	// Erased has documents, each with the index of the first entry that erases it.
	Erased map[document]int64 `json:",omitempty"`
}

// document is the CID of a document as a key in JSON. A cid.Cid is none: it is written by
// its MarshalText, and read by its UnmarshalJSON, which wants another form.
type document cid.Cid

// MarshalText returns the CID in its text form.
func (d document) MarshalText() ([]byte, error) { return cid.Cid(d).MarshalText() }

// UnmarshalText reads what MarshalText returns.
func (d *document) UnmarshalText(text []byte) error {
	c, err := cid.Decode(string(text))
	*d = document(c)
	return err
}

// policy is what a log says of a policy.
type policy struct {
	Epoch uint64
	// Opened is the index of the takeover that opened the epoch, -1 in epoch 0.
	Opened int64
	Last   *Anchored
	High   *Anchored // the newest of the epoch that has a height
	// Previous is the log that it was taken over from, if it was.
	Previous   *Previous
	Savepoints map[uint64]place // by sequence
}

// place is where a save point is in the log.
type place struct {
	Index   int64
	CID     cid.Cid
	Retired bool `json:",omitempty"`
}

// Anchored is a save point and where the log has it.
type Anchored struct {
	Index int64
	Entry Savepoint
}

// NewHistory returns the history of an empty log.
func NewHistory(origin string) *History {
	return &History{said{Origin: origin, Policies: map[PolicyKey]*policy{}, Erased: map[document]int64{}}}
}

// Add takes the entry at an index of the log. The error is that of Check; one that was
// given before is passed over.
func (h *History) Add(index int64, e Entry) error {
	if index < h.said.Next {
		return nil
	}
	h.said.Next = index + 1
	if err := h.Check(e); err != nil {
		return err
	}
	c := e.Base()
	if h.said.First == nil {
		h.said.First = &c
		t, ok := e.(*Takeover)
		h.said.Imported = ok && t.Previous != nil
	}
	h.said.Time, h.said.Epoch = c.Time, max(h.said.Epoch, c.Epoch)
	switch e := e.(type) {
	case *Savepoint:
		p := h.said.Policies[e.Policy]
		if p == nil {
			p = &policy{Savepoints: map[uint64]place{}, Opened: -1}
			h.said.Policies[e.Policy] = p
		}
		p.Last = &Anchored{index, *e}
		if e.Height != nil {
			p.High = p.Last
		}
		p.Savepoints[e.Sequence] = place{Index: index, CID: e.Savepoint}
	case *Retire:
		p := h.said.Policies[e.Policy]
		at := p.Savepoints[e.Sequence]
		at.Retired = true
		p.Savepoints[e.Sequence] = at
	case *Takeover:
		p := h.said.Policies[e.Policy]
		if p == nil {
			p = &policy{Savepoints: map[uint64]place{}, Previous: e.Previous}
			h.said.Policies[e.Policy] = p
		}
		p.Epoch, p.Opened, p.High = e.Epoch, index, nil
	case *Erase:
		for _, c := range e.Documents {
			if _, ok := h.said.Erased[document(c)]; !ok {
				h.said.Erased[document(c)] = index
			}
		}
	case *Freeze:
		h.said.Frozen = true
	}
	return nil
}

// Check reports whether an entry may come next. The error wraps ErrRule.
func (h *History) Check(e Entry) error {
	c := e.Base()
	switch {
	case h.said.Frozen:
		return ErrFrozen
	case c.Origin != h.said.Origin:
		return broken("it says log %q, this is %q", c.Origin, h.said.Origin)
	case h.said.First != nil && c.Instance != h.said.First.Instance:
		return broken("it is of instance %x, the log of %x", c.Instance, h.said.First.Instance)
	case c.Time.Before(h.said.Time):
		return broken("time %v is before the newest entry's %v", c.Time, h.said.Time)
	}
	switch e := e.(type) {
	case *Savepoint:
		return h.checkSavepoint(e)
	case *Retire:
		return h.checkRetire(e)
	case *Takeover:
		return h.checkTakeover(e)
	}
	if c.Epoch != h.said.Epoch {
		return broken("it says epoch %d, the log has %d", c.Epoch, h.said.Epoch)
	}
	return nil
}

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRule}, args...)...)
}

func (h *History) checkSavepoint(s *Savepoint) error {
	p := h.said.Policies[s.Policy]
	switch {
	case p == nil && (s.Epoch != 0 || s.Sequence != 1):
		return broken("epoch %d, sequence %d is the policy's first", s.Epoch, s.Sequence)
	case p == nil:
		return nil
	case s.Epoch != p.Epoch:
		return broken("epoch %d, the policy is in epoch %d", s.Epoch, p.Epoch)
	case p.Last != nil && s.Sequence != p.Last.Entry.Sequence+1:
		return broken("sequence %d follows sequence %d", s.Sequence, p.Last.Entry.Sequence)
	case p.High != nil && s.Height != nil && *s.Height <= *p.High.Entry.Height:
		return broken("height %d does not follow height %d", *s.Height, *p.High.Entry.Height)
	}
	return nil
}

func (h *History) checkRetire(r *Retire) error {
	p := h.said.Policies[r.Policy]
	if p == nil {
		return broken("the policy has no save points")
	}
	at, ok := p.Savepoints[r.Sequence]
	switch {
	case !ok || at.CID != r.Savepoint:
		return broken("the policy's save point %d is not %s", r.Sequence, r.Savepoint)
	case at.Retired:
		return broken("save point %s was retired before", r.Savepoint)
	case r.Epoch != p.Epoch:
		return broken("epoch %d, the policy is in epoch %d", r.Epoch, p.Epoch)
	}
	return nil
}

func (h *History) checkTakeover(t *Takeover) error {
	p := h.said.Policies[t.Policy]
	switch {
	case t.Previous == nil && p == nil:
		return broken("a policy is taken over that the log does not know")
	case t.Previous == nil && t.Epoch != p.Epoch+1:
		return broken("epoch %d follows epoch %d", t.Epoch, p.Epoch)
	case t.Previous == nil:
		return nil
	case p != nil:
		return broken("a policy is taken over from another log that is in this one")
	case t.Previous.Origin == h.said.Origin:
		return broken("a policy is taken over from this log as if from another")
	case h.said.First != nil && !h.said.Imported:
		return broken("a policy is taken over from another log, which this one does not continue")
	case t.Epoch == 0:
		return broken("a takeover to epoch 0")
	}
	return nil
}

// Began returns what the first entry says, and whether there is one.
func (h *History) Began() (Common, bool) {
	if h.said.First == nil {
		return Common{}, false
	}
	return *h.said.First, true
}

// Time is that of the newest entry.
func (h *History) Time() time.Time { return h.said.Time }

// Epoch is the largest of all entries.
func (h *History) Epoch() uint64 { return h.said.Epoch }

// Frozen reports whether nothing may follow.
func (h *History) Frozen() bool { return h.said.Frozen }

// Imported reports whether the first entry is a takeover from another log.
func (h *History) Imported() bool { return h.said.Imported }

// Policies returns the keys of all policies, sorted.
func (h *History) Policies() []PolicyKey {
	var keys []PolicyKey
	for k := range h.said.Policies {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b PolicyKey) int { return bytes.Compare(a[:], b[:]) })
	return keys
}

// EpochOf returns the epoch that a policy is in, and whether the log knows the policy.
func (h *History) EpochOf(k PolicyKey) (uint64, bool) {
	if p := h.said.Policies[k]; p != nil {
		return p.Epoch, true
	}
	return 0, false
}

// OpenedAt returns the index of the takeover that opened the epoch that a policy is in; -1
// if there was none.
func (h *History) OpenedAt(k PolicyKey) int64 {
	if p := h.said.Policies[k]; p != nil {
		return p.Opened
	}
	return -1
}

// Last returns the newest save point of a policy; nil if there is none.
func (h *History) Last(k PolicyKey) *Anchored {
	if p := h.said.Policies[k]; p != nil {
		return p.Last
	}
	return nil
}

// High returns the newest save point of a policy's present epoch that has a height; nil
// if there is none.
func (h *History) High(k PolicyKey) *Anchored {
	if p := h.said.Policies[k]; p != nil {
		return p.High
	}
	return nil
}

// TakenFrom returns the log from which a policy was taken over into this one; nil if it
// was not.
func (h *History) TakenFrom(k PolicyKey) *Previous {
	if p := h.said.Policies[k]; p != nil {
		return p.Previous
	}
	return nil
}

// Retired returns the index of a save point's entry, and whether it was retired.
func (h *History) Retired(k PolicyKey, sequence uint64) (index int64, retired bool) {
	if p := h.said.Policies[k]; p != nil {
		at, ok := p.Savepoints[sequence]
		return at.Index, ok && at.Retired
	}
	return 0, false
}

// Erased returns the index of the first entry that says that a document is erased, and
// whether there is one.
func (h *History) Erased(doc cid.Cid) (index int64, erased bool) {
	index, erased = h.said.Erased[document(doc)]
	return index, erased
}

// Keeps reports whether a policy has a save point with that manifest which was not
// retired.
func (h *History) Keeps(k PolicyKey, manifest cid.Cid) bool {
	p := h.said.Policies[k]
	if p == nil {
		return false
	}
	for _, at := range p.Savepoints {
		if at.CID == manifest && !at.Retired {
			return true
		}
	}
	return false
}

// Savepoints counts the save points of all policies, retired ones included.
func (h *History) Savepoints() int64 {
	n := 0
	for _, p := range h.said.Policies {
		n += len(p.Savepoints)
	}
	return int64(n)
}

// Retirements counts those of all policies that are retired.
func (h *History) Retirements() int64 {
	n := int64(0)
	for _, p := range h.said.Policies {
		for _, at := range p.Savepoints {
			if at.Retired {
				n++
			}
		}
	}
	return n
}

// Next is the index of the first entry that it was not given.
func (h *History) Next() int64 { return h.said.Next }

// MarshalJSON returns what [History.UnmarshalJSON] reads, about 130 bytes for a save
// point.
func (h *History) MarshalJSON() ([]byte, error) { return json.Marshal(h.said) }

// UnmarshalJSON takes up where the history was that MarshalJSON was called on.
func (h *History) UnmarshalJSON(data []byte) error {
	var s said
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("history of a log: %w", err)
	}
	if s.Policies == nil {
		return errors.New("history of a log: no policies")
	}
	for key, p := range s.Policies {
		if p == nil || p.Savepoints == nil || p.High != nil && p.High.Entry.Height == nil {
			return fmt.Errorf("history of a log: policy %x is not whole", key)
		}
	}
	if s.Erased == nil {
		s.Erased = map[document]int64{}
	}
	h.said = s
	return nil
}
