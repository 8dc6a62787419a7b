package replication

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

// recordKind is that of the queue's records, each of which has the name
// <target>@<root>.
const recordKind = "replication"

// State says how far an item is at a target.
type State string

const (
	// Waiting: it is not there, as far as is known.
	Waiting State = "waiting"
	// Done: the target said that it has it.
	Done State = "done"
)

// record is what is known of an item at a target.
type record struct {
	V     int   `json:"v"`
	State State `json:"state"`
	// At is the place that the target was: a record of another says nothing.
	At string `json:"at"`
	// Attempts counts those that failed since it was last done.
	Attempts int `json:"attempts,omitempty"`
	// Time is when the last attempt ended.
	Time time.Time `json:"time"`
	// Next is when the next one is due.
	Next  time.Time `json:"next,omitzero"`
	Error string    `json:"error,omitempty"`
}

// recordVersion is the only version of records.
const recordVersion = 1

// key names a record.
type key struct {
	target string
	root   cid.Cid
}

func (k key) String() string { return k.target + "@" + k.root.String() }

// place is what a target is, as records have it.
func place(r node.Replica) string {
	return strings.TrimSpace(r.Kind + " " + placeURL(r.Endpoint) + r.Path)
}

func (r record) encode() ([]byte, error) { return json.Marshal(r) }

func decodeRecord(data []byte) (record, error) {
	var r record
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return record{}, err
	}
	switch {
	case dec.More():
		return record{}, errors.New("more than one object")
	case r.V != recordVersion:
		return record{}, fmt.Errorf("version %d", r.V)
	case r.State != Waiting && r.State != Done, r.Attempts < 0:
		return record{}, errors.New("state or attempts out of range")
	}
	return r, nil
}

// maxReason is how long a reason may be, in bytes.
const maxReason = 500

// Reason is the text of an error on one line, without what could move a terminal, and not
// long: much of it came from outside.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	text := strings.ToValidUTF8(err.Error(), "?")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") // without half a character
	}
	return text
}
