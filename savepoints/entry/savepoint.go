package entry

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

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
	Checkpoint []byte  // the signed note, whose form alone is checked
	Root       cid.Cid // the log root
}

// checkNote requires the form of a signed note (c2sp.org/signed-note) whose text begins with
// the origin of a log. Whether that log signed it only those can tell who have its key.
func checkNote(origin string, signed []byte) error {
	i := bytes.LastIndex(signed, []byte("\n\n"))
	if i < 0 || !utf8.Valid(signed) {
		return errors.New("is not a signed note")
	}
	if first, _, _ := strings.Cut(string(signed[:i]), "\n"); origin == "" || first != origin {
		return fmt.Errorf("is of log %q, not %q", first, origin)
	}
	signatures := strings.SplitAfter(string(signed[i+2:]), "\n")
	last := len(signatures) - 1
	for _, line := range signatures[:last] {
		if f := strings.Split(line, " "); len(f) != 3 || f[0] != "\u2014" || f[1] == "" || f[2] == "\n" {
			return fmt.Errorf("has a signature %.80q", line)
		}
	}
	if last == 0 || signatures[last] != "" {
		return errors.New("is a note without a signature")
	}
	return nil
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
		if err := checkNote(t.Previous.Origin, t.Previous.Checkpoint); err != nil {
			f.fail("prevCheckpoint", err)
		}
		f.cid("prevRoot", &t.Previous.Root, cid.DagProtobuf)
	}
	if t.Epoch == 0 {
		f.fail("epoch", errors.New("is 0"))
	}
}
