package entry

import (
	"errors"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// Savepoint is the anchor of a save point.
type Savepoint struct {
	Common
	Policy    PolicyKey
	Sequence  uint64
	Height    *uint64 // as in the manifest
	Savepoint cid.Cid // of the manifest
}

// Type is "savepoint".
func (*Savepoint) Type() string { return TypeSavepoint }

func (s *Savepoint) fields(f *fields) {
	f.exact("policy", s.Policy[:])
	f.positive("sequence", &s.Sequence)
	f.optional("height", &s.Height)
	f.manifest("savepoint", &s.Savepoint)
}

// Encode returns the record. The error wraps ErrInvalid.
func (s Savepoint) Encode() ([]byte, error) { return Encode(&s) }

// Of returns the anchor that belongs to a manifest. The naming must be able to tell the
// policy's key.
func Of(origin string, m *dag.Manifest, savepoint cid.Cid, n Naming) Savepoint {
	key, _ := n.Key(m.Instance, m.Policy.ID)
	return Savepoint{
		Common: Common{Origin: origin, Instance: m.Instance, Epoch: m.Epoch, Time: m.Time},
		Policy: key, Sequence: m.Sequence, Height: m.Height, Savepoint: savepoint,
	}
}

// Agrees reports whether the manifest with CID savepoint is the one that the
// entry anchors, field by field; the policy's key only where the naming can tell it.
// Where it cannot, the CID alone binds the policy's id, which the manifest has, to the
// entry. The error wraps ErrContradiction.
func (s Savepoint) Agrees(m *dag.Manifest, savepoint cid.Cid, n Naming) error {
	want := Of(s.Origin, m, savepoint, n)
	if _, told := n.Key(m.Instance, m.Policy.ID); !told {
		want.Policy = s.Policy
	}
	differ := func(field string, entry, manifest any) error {
		return fmt.Errorf("%w: %s is %v in the entry and %v in the manifest", ErrContradiction, field, entry, manifest)
	}
	switch {
	case s.Savepoint != want.Savepoint:
		return differ("savepoint", s.Savepoint, want.Savepoint)
	case s.Instance != want.Instance:
		return differ("instance", fmt.Sprintf("%x", s.Instance), fmt.Sprintf("%x", want.Instance))
	case s.Policy != want.Policy:
		return differ("policy", fmt.Sprintf("%x", s.Policy), fmt.Sprintf("%x (of %q)", want.Policy, m.Policy.ID))
	case s.Epoch != want.Epoch:
		return differ("epoch", s.Epoch, want.Epoch)
	case s.Sequence != want.Sequence:
		return differ("sequence", s.Sequence, want.Sequence)
	case (s.Height == nil) != (want.Height == nil) || s.Height != nil && *s.Height != *want.Height:
		return differ("height", heightText(s.Height), heightText(want.Height))
	case !s.Time.Equal(want.Time):
		return differ("time", s.Time, want.Time)
	}
	return nil
}

func heightText(h *uint64) string {
	if h == nil {
		return "absent"
	}
	return fmt.Sprint(*h)
}

// Retire says that a save point is no longer kept by who took it. Nobody else has to do
// anything about it.
type Retire struct {
	Common
	Policy    PolicyKey
	Sequence  uint64
	Savepoint cid.Cid
}

// Type is "retire".
func (*Retire) Type() string { return TypeRetire }

func (r *Retire) fields(f *fields) {
	f.exact("policy", r.Policy[:])
	f.positive("sequence", &r.Sequence)
	f.manifest("savepoint", &r.Savepoint)
}

// Takeover says that a policy runs elsewhere from here on. It opens an epoch.
type Takeover struct {
	Common
	Policy PolicyKey
	// Previous is the log in which the policy was before; nil if it is this one.
	Previous *Previous
}

// Previous is another log as it was when a policy was taken over from it.
type Previous struct {
	Origin     string
	Checkpoint []byte  // the signed note
	Root       cid.Cid // the log root
}

// Type is "takeover".
func (*Takeover) Type() string { return TypeTakeover }

func (t *Takeover) fields(f *fields) {
	f.exact("policy", t.Policy[:])
	if f.has("prevOrigin", t.Previous != nil) {
		if t.Previous == nil {
			t.Previous = new(Previous)
		}
		f.text("prevOrigin", &t.Previous.Origin)
		f.bytes("prevCheckpoint", &t.Previous.Checkpoint)
		f.cid("prevRoot", &t.Previous.Root, cid.DagProtobuf)
	}
	if t.Epoch == 0 {
		f.fail("epoch", errors.New("is 0"))
	}
}
