package entry_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

func rawCID(s string) cid.Cid { return dag.RawBlock([]byte(s)).CID }

func sortedCIDs(n int) []cid.Cid {
	var out []cid.Cid
	for i := range n {
		out = append(out, rawCID(fmt.Sprint("document ", i)))
	}
	slices.SortFunc(out, func(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
	return out
}

// samples has an entry of each form.
func samples() map[string]entry.Entry {
	s := sample()
	noHeight := s
	noHeight.Height = nil
	return map[string]entry.Entry{
		"savepoint":                &s,
		"savepoint without height": &noHeight,
		"retire":                   &entry.Retire{Common: s.Common, Policy: s.Policy, Sequence: 7, Savepoint: s.Savepoint},
		"takeover":                 &entry.Takeover{Common: s.Common, Policy: s.Policy},
		"takeover from another log": &entry.Takeover{Common: s.Common, Policy: s.Policy, Previous: &entry.Previous{
			Origin: "log.example/before", Checkpoint: []byte("log.example/before\n1\nAAAA\n\n\u2014 log.example/before x\n"),
			Root: cid.NewCidV1(cid.DagProtobuf, s.Savepoint.Hash()),
		}},
		"erase":  &entry.Erase{Common: s.Common, Documents: sortedCIDs(3)},
		"rekey":  &entry.Rekey{Common: s.Common, KeyRing: rawCID("ring")},
		"freeze": &entry.Freeze{Common: s.Common},
		"note":   &entry.Note{Common: s.Common, Text: "moved to another room: Übung"},
	}
}

func TestTypes(t *testing.T) {
	for name, e := range samples() {
		record, err := entry.Encode(e)
		must(t, err)
		got, err := entry.Decode(record)
		must(t, err)
		if !reflect.DeepEqual(got, e) || got.Type() != strings.Fields(name)[0] {
			t.Errorf("%s: %+v became %+v", name, e, got)
		}
		if _, err := entry.DecodeSavepoint(record); errors.Is(err, entry.ErrNotSavepoint) == (e.Type() == entry.TypeSavepoint) {
			t.Errorf("%s as a save point: %v", name, err)
		}
	}
}

// fieldsOf returns the fields of a record in the order of the encoding.
func fieldsOf(t *testing.T, record []byte) ([]string, map[string]datamodel.Node) {
	t.Helper()
	n, err := dag.DecodeCBOR(record, entry.MaxSize)
	must(t, err)
	var keys []string
	values := map[string]datamodel.Node{}
	for it := n.MapIterator(); !it.Done(); {
		k, v, err := it.Next()
		must(t, err)
		key, err := k.AsString()
		must(t, err)
		keys = append(keys, key)
		values[key] = v
	}
	return keys, values
}

func encodeFields(t *testing.T, values map[string]datamodel.Node) []byte {
	t.Helper()
	n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			qp.MapEntry(ma, key, qp.Node(values[key]))
		}
	})
	must(t, err)
	data, err := dag.EncodeCBOR(n)
	must(t, err)
	return data
}

// In every type, a field that is missing, of another kind, or one too many is refused.
func TestFieldsOfTypes(t *testing.T) {
	optional := map[string]bool{"height": true}
	for name, e := range samples() {
		record, err := entry.Encode(e)
		must(t, err)
		keys, values := fieldsOf(t, record)
		for _, key := range keys {
			for what, with := range map[string]datamodel.Node{"missing": nil, "null": datamodel.Null, "a float": basicnode.NewFloat(1)} {
				changed := maps.Clone(values)
				if changed[key] = with; with == nil {
					delete(changed, key)
					if optional[key] {
						continue
					}
				}
				if got, err := entry.Decode(encodeFields(t, changed)); !errors.Is(err, entry.ErrInvalid) {
					t.Errorf("%s, %s %s: %+v, %v", name, key, what, got, err)
				}
			}
		}
		changed := maps.Clone(values)
		changed["added"] = basicnode.NewInt(1)
		if got, err := entry.Decode(encodeFields(t, changed)); !errors.Is(err, entry.ErrInvalid) || !strings.Contains(err.Error(), "added") {
			t.Errorf("%s with another field: %+v, %v", name, got, err)
		}
	}
}

// What the types demand beyond kinds.
func TestTypesRefuse(t *testing.T) {
	c := sample().Common
	first := c
	first.Epoch = 0
	key := sample().Policy
	prev := func(change func(*entry.Previous)) entry.Entry {
		p := *samples()["takeover from another log"].(*entry.Takeover).Previous
		change(&p)
		return &entry.Takeover{Common: c, Policy: key, Previous: &p}
	}
	docs := sortedCIDs(3)
	for name, e := range map[string]entry.Entry{
		"takeover to epoch 0":       &entry.Takeover{Common: first, Policy: key},
		"previous root raw":         prev(func(p *entry.Previous) { p.Root = rawCID("x") }),
		"previous root missing":     prev(func(p *entry.Previous) { p.Root = cid.Undef }),
		"previous origin empty":     prev(func(p *entry.Previous) { p.Origin = "" }),
		"previous origin another":   prev(func(p *entry.Previous) { p.Origin = "log.example/other" }),
		"previous checkpoint empty": prev(func(p *entry.Previous) { p.Checkpoint = nil }),
		"previous not a note":       prev(func(p *entry.Previous) { p.Checkpoint = []byte("log.example/before\n1\nAAAA\n") }),
		"previous not signed":       prev(func(p *entry.Previous) { p.Checkpoint = []byte("log.example/before\n1\nAAAA\n\n") }),
		"previous cut short":        prev(func(p *entry.Previous) { p.Checkpoint = p.Checkpoint[:len(p.Checkpoint)-1] }),
		"previous signed otherwise": prev(func(p *entry.Previous) { p.Checkpoint = append(p.Checkpoint, "no signature\n"...) }),
		"previous signed by nobody": prev(func(p *entry.Previous) { p.Checkpoint = append(p.Checkpoint, "\u2014  x\n"...) }),
		"previous not UTF-8":        prev(func(p *entry.Previous) { p.Checkpoint = append(p.Checkpoint, "\u2014 \xff x\n"...) }),
		"previous checkpoint long": prev(func(p *entry.Previous) {
			p.Checkpoint = append(p.Checkpoint, "\u2014 w "+strings.Repeat("x", entry.MaxSize)+"\n"...)
		}),
		"retire of sequence 0":       &entry.Retire{Common: c, Policy: key, Savepoint: sample().Savepoint},
		"retire of a document":       &entry.Retire{Common: c, Policy: key, Sequence: 1, Savepoint: rawCID("x")},
		"erase of nothing":           &entry.Erase{Common: c},
		"erase of a manifest":        &entry.Erase{Common: c, Documents: []cid.Cid{sample().Savepoint}},
		"erase in another order":     &entry.Erase{Common: c, Documents: []cid.Cid{docs[1], docs[0]}},
		"erase of one twice":         &entry.Erase{Common: c, Documents: []cid.Cid{docs[0], docs[0]}},
		"erase of more than fits":    &entry.Erase{Common: c, Documents: sortedCIDs(110)},
		"rekey to a directory":       &entry.Rekey{Common: c, KeyRing: cid.NewCidV1(cid.DagProtobuf, docs[0].Hash())},
		"rekey to nothing":           &entry.Rekey{Common: c},
		"note without a word":        &entry.Note{Common: c},
		"note that is too long":      &entry.Note{Common: c, Text: strings.Repeat("x", entry.MaxNote+1)},
		"note that is not UTF-8":     &entry.Note{Common: c, Text: "\xff"},
		"freeze with a long origin":  &entry.Freeze{Common: entry.Common{Origin: strings.Repeat("x", entry.MaxSize), Time: c.Time}},
		"freeze with a large number": &entry.Freeze{Common: entry.Common{Origin: "a", Epoch: 1 << 63, Time: c.Time}},
	} {
		if record, err := entry.Encode(e); !errors.Is(err, entry.ErrInvalid) {
			t.Errorf("%s: %x, %v", name, record, err)
		}
	}
	if _, err := entry.Encode(&entry.Erase{Common: c, Documents: sortedCIDs(90)}); err != nil {
		t.Errorf("90 documents: %v", err)
	}
}
