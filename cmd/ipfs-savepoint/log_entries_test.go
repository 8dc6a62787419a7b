package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// All that entries of each type say is printed, for a person and as JSON.
func TestPrintEntry(t *testing.T) {
	c := entry.Common{Origin: "log.example/a", Epoch: 3, Time: time.Unix(1e9, 0).UTC()}
	raw := dag.RawBlock([]byte("document")).CID
	directory, manifest := cid.NewCidV1(cid.DagProtobuf, raw.Hash()), cid.NewCidV1(cid.DagCBOR, raw.Hash())
	key, height := entry.PolicyKey{0xab, 0xcd}, uint64(77)
	for _, said := range []entry.Entry{
		&entry.Savepoint{Common: c, Policy: key, Sequence: 5, Height: &height, Savepoint: manifest},
		&entry.Retire{Common: c, Policy: key, Sequence: 5, Savepoint: manifest},
		&entry.Takeover{Common: c, Policy: key, Previous: &entry.Previous{Origin: "log.example/before", Checkpoint: []byte("signed"), Root: directory}},
		&entry.Erase{Common: c, Documents: []cid.Cid{raw, directory}},
		&entry.Rekey{Common: c, KeyRing: raw},
		&entry.Freeze{Common: c},
		&entry.Note{Common: c, Text: "a remark\x1b[2J"},
	} {
		var texts [2]string
		for i := range texts {
			var out bytes.Buffer
			e := &env{out: &out, json: i == 1}
			if err := e.printEntry(savepoints.LogEntry{Index: 12, Entry: said}); err != nil {
				t.Fatal(err)
			}
			texts[i] = out.String()
		}
		var read map[string]any
		if err := json.Unmarshal([]byte(texts[1]), &read); err != nil {
			t.Fatal(err)
		}
		var values []string
		leaves(read, &values)
		for _, want := range append(contents(reflect.ValueOf(said).Elem()), said.Type(), "12", c.Time.Format(dag.TimeFormat)) {
			if !slices.Contains(values, want) {
				t.Errorf("%s: %q is not in %s", said.Type(), want, texts[1])
			}
			quoted := strings.Trim(fmt.Sprintf("%q", want), `"`)
			if want == fmt.Sprintf("%x", key) {
				quoted = want[:16]
			}
			if !strings.Contains(texts[0], quoted) {
				t.Errorf("%s: %q is not in %s", said.Type(), want, texts[0])
			}
		}
		if strings.Count(texts[0], "\n") != 1 || strings.Contains(texts[0], "\x1b") {
			t.Errorf("%s: %q", said.Type(), texts[0])
		}
	}
}

// contents returns the values of the fields that entries of a type have besides those of all.
func contents(v reflect.Value) (out []string) {
	for i := range v.NumField() {
		switch x := v.Field(i).Interface().(type) {
		case entry.Common:
		case *entry.Previous:
			out = append(out, contents(reflect.ValueOf(x).Elem())...)
		case entry.PolicyKey:
			out = append(out, fmt.Sprintf("%x", x))
		case *uint64:
			out = append(out, fmt.Sprint(*x))
		case []cid.Cid:
			for _, c := range x {
				out = append(out, c.String())
			}
		case []byte:
			out = append(out, string(x))
		default:
			out = append(out, fmt.Sprint(x))
		}
	}
	return out
}

// leaves collects the texts and numbers in a JSON value.
func leaves(v any, out *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			leaves(x, out)
		}
	case []any:
		for _, x := range v {
			leaves(x, out)
		}
	default:
		*out = append(*out, fmt.Sprint(v))
	}
}
