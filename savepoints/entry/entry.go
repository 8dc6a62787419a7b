// Package entry says what the records of a log mean, and the rules that they follow.
//
// A record is canonical DAG-CBOR. It holds no names and no links: a log is public
// for ever, and must not make anybody hold what it speaks of. docs/formats.md has
// the fields. [Decode] reads a record of any type, [History] judges the entries of a log
// one after the other: whoever writes the log asks it before, whoever audits it after.
//
// This package touches memory only.
package entry

import (
	"errors"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

const (
	// Version is the only version of records there is.
	Version = 1
	// MaxSize is the length in bytes of the longest record.
	MaxSize = 4094
)

// Types of entries.
const (
	TypeSavepoint = "savepoint"
	TypeRetire    = "retire"
	TypeTakeover  = "takeover"
	TypeErase     = "erase"
	TypeRekey     = "rekey"
	TypeFreeze    = "freeze"
	TypeNote      = "note"
)

var (
	// ErrInvalid: a record of a known type that breaks a rule.
	ErrInvalid = errors.New("invalid log entry")
	// ErrUnknownType: a record of another type or version. Readers skip and
	// count such records.
	ErrUnknownType = errors.New("unknown type of log entry")
	// ErrNotSavepoint: a record that anchors no save point, of a known type or not.
	ErrNotSavepoint = errors.New("log entry of no save point")
	// ErrContradiction: an entry and a manifest that do not agree.
	ErrContradiction = errors.New("log entry and manifest contradict each other")
)

// Entry is what a record says: a *[Savepoint], *[Retire], *[Takeover], *[Erase],
// *[Rekey], *[Freeze] or *[Note].
type Entry interface {
	// Type is the type as the record names it.
	Type() string
	// Base returns what entries of all types have.
	Base() Common
	// fields names the fields that entries of its type have besides, to read or to
	// write them.
	fields(*fields)
	common() *Common
}

// Common is what every entry has.
type Common struct {
	Origin   string // of the log that holds it; read without its log it still says where it belongs
	Instance [16]byte
	// Epoch counts the takeovers of the policy, the entry included; in an entry of no
	// policy it is the largest in the log so far.
	Epoch uint64
	Time  time.Time
}

// Base returns c.
func (c *Common) Base() Common { return *c }

func (c *Common) common() *Common { return c }

// blank returns an entry of a type without its fields, or nil if the type is not known.
func blank(typ string) Entry {
	switch typ {
	case TypeSavepoint:
		return new(Savepoint)
	case TypeRetire:
		return new(Retire)
	case TypeTakeover:
		return new(Takeover)
	case TypeErase:
		return new(Erase)
	case TypeRekey:
		return new(Rekey)
	case TypeFreeze:
		return new(Freeze)
	case TypeNote:
		return new(Note)
	}
	return nil
}

// Encode returns the record of an entry. The error wraps ErrInvalid.
func Encode(e Entry) ([]byte, error) {
	v, typ := uint64(Version), e.Type()
	w := &fields{}
	w.integer("v", &v)
	w.text("type", &typ)
	w.common(e)
	e.fields(w)
	record, err := w.record()
	if err != nil {
		return nil, err
	}
	// What this package would not read it does not write.
	if _, err := Decode(record); err != nil {
		return nil, err
	}
	return record, nil
}

// Decode reads a record of any known type. The error wraps ErrUnknownType for what is to
// be skipped, and otherwise ErrInvalid or dag.ErrNotCanonical.
func Decode(record []byte) (Entry, error) {
	n, err := dag.DecodeCBOR(record, MaxSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var v uint64
	var typ string
	r := &fields{in: n}
	r.integer("v", &v)
	r.text("type", &typ)
	if r.err != nil {
		return nil, r.err
	}
	e := blank(typ)
	if v != Version || e == nil {
		return nil, fmt.Errorf("%w: %.40q, version %d", ErrUnknownType, typ, v)
	}
	r.common(e)
	e.fields(r)
	r.noMore()
	if r.err != nil {
		return nil, r.err
	}
	return e, nil
}

// DecodeSavepoint reads a record that anchors a save point. The error wraps
// ErrNotSavepoint if it is of another type, and is otherwise as at [Decode].
func DecodeSavepoint(record []byte) (Savepoint, error) {
	e, err := Decode(record)
	if errors.Is(err, ErrUnknownType) {
		return Savepoint{}, fmt.Errorf("%w: %w", ErrNotSavepoint, err)
	}
	if err != nil {
		return Savepoint{}, err
	}
	s, ok := e.(*Savepoint)
	if !ok {
		return Savepoint{}, fmt.Errorf("%w: a %s", ErrNotSavepoint, e.Type())
	}
	return *s, nil
}
