package entry

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// A history that was kept as JSON is the same, in each of its fields. Each must have been
// there, so that none is added which nobody tried.
func TestHistoryAsJSON(t *testing.T) {
	clock := int64(1e9)
	common := func(epoch uint64) Common {
		clock++
		return Common{Origin: "log.example/a", Instance: [16]byte{1}, Epoch: epoch, Time: time.Unix(clock, 0).UTC()}
	}
	raw := dag.RawBlock([]byte("document")).CID
	large := cid.NewCidV1(cid.DagProtobuf, raw.Hash())
	manifest := cid.NewCidV1(cid.DagCBOR, raw.Hash())
	height, p, q := uint64(7), PolicyKey{1}, PolicyKey{2}
	before := &Previous{Origin: "log.example/before", Checkpoint: []byte("log.example/before\n1\nx\n\n\u2014 x y\n"), Root: large}
	h := NewHistory("log.example/a")
	for i, e := range []Entry{
		&Takeover{Common: common(1), Policy: p, Previous: before},
		&Takeover{Common: common(1), Policy: q, Previous: before},
		&Savepoint{Common: common(1), Policy: p, Sequence: 1, Height: &height, Savepoint: manifest},
		&Savepoint{Common: common(1), Policy: p, Sequence: 2, Savepoint: manifest},
		&Retire{Common: common(1), Policy: p, Sequence: 1, Savepoint: manifest},
		&Erase{Common: common(1), Documents: []cid.Cid{raw, large}},
		&Freeze{Common: common(1)},
	} {
		if err := h.Add(int64(i), e); err != nil {
			t.Fatal(err)
		}
	}
	empty := map[string]bool{}
	visit(reflect.ValueOf(h.said), empty)
	for name, never := range empty {
		if never {
			t.Errorf("%s is empty: this test does not try it", name)
		}
	}
	data, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var again History
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	if !reflect.DeepEqual(again.said, h.said) {
		t.Errorf("%+v became %+v", h.said, again.said)
	}
}

// visit notes of each field below a value whether it is empty wherever it is.
func visit(v reflect.Value, empty map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			visit(v.Elem(), empty)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			visit(it.Value(), empty)
		}
	case reflect.Struct:
		if _, ok := v.Interface().(time.Time); ok {
			return
		}
		for i := range v.NumField() {
			field := v.Type().String() + "." + v.Type().Field(i).Name
			never, met := empty[field]
			empty[field] = (never || !met) && v.Field(i).IsZero()
			visit(v.Field(i), empty)
		}
	}
}
