package entry

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// Erase says that documents are gone on purpose, such as personal data: readers report
// them as erased, not as damaged.
type Erase struct {
	Common
	// Documents are the CIDs of the documents' root nodes, rising bytewise; at least
	// one, and as many as fit a record, which is about a hundred.
	Documents []cid.Cid
}

// Type is "erase".
func (*Erase) Type() string { return TypeErase }

func (e *Erase) fields(f *fields) {
	f.cids("documents", &e.Documents, cid.Raw, cid.DagProtobuf)
	if len(e.Documents) == 0 {
		f.fail("documents", errors.New("is empty"))
	}
	for i := 1; i < len(e.Documents); i++ {
		if bytes.Compare(e.Documents[i-1].Bytes(), e.Documents[i].Bytes()) >= 0 {
			f.fail("documents", errors.New("do not rise"))
		}
	}
}

// Rekey says that the data keys are wrapped in another file from now on.
type Rekey struct {
	Common
	KeyRing cid.Cid // of a raw IPFS block
}

// Type is "rekey".
func (*Rekey) Type() string { return TypeRekey }

func (r *Rekey) fields(f *fields) { f.cid("keyRing", &r.KeyRing, cid.Raw) }

// Freeze says that nothing follows in the log.
type Freeze struct{ Common }

// Type is "freeze".
func (*Freeze) Type() string { return TypeFreeze }

func (*Freeze) fields(*fields) {}

// MaxNote is the length in bytes of the longest note.
const MaxNote = 1024

// Note is a remark of the operator.
type Note struct {
	Common
	Text string // UTF-8, 1 to MaxNote bytes
}

// Type is "note".
func (*Note) Type() string { return TypeNote }

func (n *Note) fields(f *fields) {
	f.text("text", &n.Text)
	if len(n.Text) == 0 || len(n.Text) > MaxNote {
		f.fail("text", fmt.Errorf("has %d bytes, not 1 to %d", len(n.Text), MaxNote))
	}
}
