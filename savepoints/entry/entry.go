// Package entry says what an anchor is: the record that a log holds for a save
// point, and its rules.
//
// A record is canonical DAG-CBOR. It holds no names and no links: a log is public
// for ever, and must not make anybody hold what it speaks of. docs/formats.md has
// the fields.
//
// This package touches memory only.
package entry

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

const (
	// Version is the only version of records there is.
	Version = 1
	// MaxSize is the length in bytes of the longest record.
	MaxSize = 4094
	// TypeSavepoint is the type of the record that anchors a save point.
	TypeSavepoint = "savepoint"
)

var (
	// ErrInvalid: a record of a known type that breaks a rule.
	ErrInvalid = errors.New("invalid log entry")
	// ErrUnknownType: a record of another type or version. Readers skip and
	// count such records.
	ErrUnknownType = errors.New("unknown type of log entry")
	// ErrContradiction: an entry and a manifest that do not agree.
	ErrContradiction = errors.New("log entry and manifest contradict each other")
)

// PolicyKey stands for a policy in the log: it can be computed by who knows the
// policy's id, and tells nobody else what the id is unless it can be guessed.
type PolicyKey [sha256.Size]byte

// KeyOf returns the key of a policy of an instance.
func KeyOf(instance [16]byte, policyID string) PolicyKey {
	h := sha256.New()
	h.Write([]byte("ipfs-savepoint/v1 policy\x00"))
	h.Write(instance[:])
	h.Write([]byte(policyID))
	return PolicyKey(h.Sum(nil))
}

// Savepoint is the anchor of a save point.
type Savepoint struct {
	Origin    string // of the log that holds it; read without its log it still says where it belongs
	Instance  [16]byte
	Epoch     uint64
	Policy    PolicyKey
	Sequence  uint64
	Height    *uint64 // as in the manifest
	Time      time.Time
	Savepoint cid.Cid // of the manifest
}

// Of returns the anchor that belongs to a manifest.
func Of(origin string, m *dag.Manifest, savepoint cid.Cid) Savepoint {
	return Savepoint{
		Origin: origin, Instance: m.Instance, Epoch: m.Epoch, Policy: KeyOf(m.Instance, m.Policy.ID),
		Sequence: m.Sequence, Height: m.Height, Time: m.Time, Savepoint: savepoint,
	}
}

// Agrees reports whether the manifest with CID savepoint is the one that the
// entry anchors, field by field. The error wraps ErrContradiction.
func (s Savepoint) Agrees(m *dag.Manifest, savepoint cid.Cid) error {
	want := Of(s.Origin, m, savepoint)
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

// Encode returns the record. The error wraps ErrInvalid.
func (s Savepoint) Encode() ([]byte, error) {
	n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "v", qp.Int(Version))
		qp.MapEntry(ma, "type", qp.String(TypeSavepoint))
		qp.MapEntry(ma, "origin", qp.String(s.Origin))
		qp.MapEntry(ma, "instance", qp.Bytes(s.Instance[:]))
		qp.MapEntry(ma, "epoch", qp.Int(int64(s.Epoch)))
		qp.MapEntry(ma, "policy", qp.Bytes(s.Policy[:]))
		qp.MapEntry(ma, "sequence", qp.Int(int64(s.Sequence)))
		if s.Height != nil {
			qp.MapEntry(ma, "height", qp.Int(int64(*s.Height)))
		}
		qp.MapEntry(ma, "time", qp.String(s.Time.UTC().Format(dag.TimeFormat)))
		qp.MapEntry(ma, "savepoint", qp.Bytes(s.Savepoint.Bytes()))
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	record, err := dag.EncodeCBOR(n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	// What this package would not read it does not write.
	if _, err := Decode(record); err != nil {
		return nil, err
	}
	return record, nil
}

// Decode reads a record. The error wraps ErrUnknownType for what is to be
// skipped, and otherwise ErrInvalid or dag.ErrNotCanonical.
func Decode(record []byte) (Savepoint, error) {
	n, err := dag.DecodeCBOR(record, MaxSize)
	if err != nil {
		return Savepoint{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	f := fields{n: n}
	if v, typ := f.integer("v"), f.text("type"); f.err == nil && (v != Version || typ != TypeSavepoint) {
		return Savepoint{}, fmt.Errorf("%w: %q, version %d", ErrUnknownType, typ, v)
	}
	f.onlyKnown()
	s := Savepoint{Origin: f.text("origin"), Epoch: f.integer("epoch"), Sequence: f.integer("sequence")}
	f.exact("instance", s.Instance[:])
	f.exact("policy", s.Policy[:])
	if h, err := n.LookupByString("height"); err == nil && h != nil {
		height := f.integer("height")
		s.Height = &height
	}
	text := f.text("time")
	t, err := time.Parse(dag.TimeFormat, text)
	if err != nil || t.Format(dag.TimeFormat) != text {
		f.fail("time", errors.New("is not RFC 3339 in UTC with nanoseconds"))
	}
	s.Time = t.UTC()
	if s.Savepoint, err = cid.Cast(f.bytes("savepoint")); err != nil {
		f.fail("savepoint", err)
	} else if err := dag.CheckCID(s.Savepoint); err != nil {
		f.fail("savepoint", err)
	} else if s.Savepoint.Type() != cid.DagCBOR {
		f.fail("savepoint", errors.New("is not the CID of a manifest"))
	}
	if f.err == nil && s.Sequence == 0 {
		f.fail("sequence", errors.New("is 0"))
	}
	return s, f.err
}

// fields reads the fields of a record and remembers the first error.
type fields struct {
	n   datamodel.Node
	err error
}

func (f *fields) fail(key string, err error) {
	if f.err == nil {
		f.err = fmt.Errorf("%w: %s: %w", ErrInvalid, key, err)
	}
}

// onlyKnown refuses fields that version 1 does not have: a reader that overlooked
// one would believe less than was signed.
func (f *fields) onlyKnown() {
	if f.err != nil {
		return
	}
	for it := f.n.MapIterator(); !it.Done(); {
		k, _, err := it.Next()
		key := ""
		if err == nil {
			key, err = k.AsString()
		}
		if err != nil {
			f.fail("a key", err)
			return
		}
		switch key {
		case "v", "type", "origin", "instance", "epoch", "policy", "sequence", "height", "time", "savepoint":
		default:
			f.fail(key, errors.New("is not a field of it"))
		}
	}
}

func field[T any](f *fields, key string, as func(datamodel.Node) (T, error)) T {
	var v T
	n, err := f.n.LookupByString(key)
	if err == nil {
		v, err = as(n)
	}
	if err != nil {
		f.fail(key, err)
	}
	return v
}

func (f *fields) text(key string) string  { return field(f, key, datamodel.Node.AsString) }
func (f *fields) bytes(key string) []byte { return field(f, key, datamodel.Node.AsBytes) }

func (f *fields) integer(key string) uint64 {
	v := field(f, key, datamodel.Node.AsInt)
	if v < 0 {
		f.fail(key, errors.New("is negative"))
	}
	return uint64(v)
}

func (f *fields) exact(key string, to []byte) {
	if b := f.bytes(key); len(b) == len(to) {
		copy(to, b)
	} else {
		f.fail(key, fmt.Errorf("has %d bytes, not %d", len(b), len(to)))
	}
}
