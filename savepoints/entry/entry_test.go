package entry_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"pgregory.net/rapid"
)

func must(t interface {
	Helper()
	Fatal(...any)
}, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func height(n uint64) *uint64 { return &n }

// sample is the entry of the golden record.
func sample() entry.Savepoint {
	var instance [16]byte
	for i := range instance {
		instance[i] = byte(i)
	}
	return entry.Savepoint{
		Common: entry.Common{Origin: "log.example/a", Instance: instance, Epoch: 1, Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)},
		Policy: entry.KeyOf(instance, "policy-1"), Sequence: 7, Height: height(1000),
		Savepoint: cid.NewCidV1(cid.DagCBOR, dag.RawBlock([]byte("manifest")).CID.Hash()),
	}
}

func equal(a, b entry.Savepoint) bool {
	if (a.Height == nil) != (b.Height == nil) || a.Height != nil && *a.Height != *b.Height {
		return false
	}
	same := a.Time.Equal(b.Time)
	a.Height, b.Height, a.Time, b.Time = nil, nil, time.Time{}, time.Time{}
	return same && a == b
}

// golden is the record of sample, computed once by a CBOR encoder of thirty lines of
// Python that shares nothing with this package: keys by length, then bytewise, heads
// of the shortest form (RFC 8949, section 3); hashes by Python's hashlib.
const golden = "aa6176016474696d65781e323032362d30312d30325430333a30343a30352e3030303030303030365a64747970656973" +
	"617665706f696e746565706f636801666865696768741903e8666f726967696e6d6c6f672e6578616d706c652f616670" +
	"6f6c69637958207b3d6ea947a0a3ddd2f16e7d4725ec631430901eaaa36bccf6e8f4f0a46abcaa68696e7374616e6365" +
	"50000102030405060708090a0b0c0d0e0f6873657175656e6365076973617665706f696e7458240171122005b3abf257" +
	"9a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f"

func TestGolden(t *testing.T) {
	want, err := hex.DecodeString(golden)
	must(t, err)
	got, err := sample().Encode()
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("encoded\n%x, not\n%x", got, want)
	}
	s, err := entry.DecodeSavepoint(want)
	must(t, err)
	if !equal(s, sample()) {
		t.Errorf("decoded %+v", s)
	}
}

func TestDecodeOfEncode(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		number := rapid.OneOf(rapid.Uint64Range(1, 30), rapid.Uint64Range(1, math.MaxInt64))
		s := entry.Savepoint{
			Common: entry.Common{
				Origin: rapid.String().Draw(rt, "origin"), Epoch: number.Draw(rt, "epoch") - 1,
				Time: time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(rt, "seconds"), rapid.Int64Range(0, 999999999).Draw(rt, "ns")).UTC(),
			},
			Sequence: number.Draw(rt, "sequence"),
		}
		copy(s.Instance[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "instance"))
		copy(s.Policy[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "policy"))
		s.Savepoint = cid.NewCidV1(cid.DagCBOR, dag.RawBlock(s.Policy[:]).CID.Hash())
		if rapid.Bool().Draw(rt, "with height") {
			s.Height = height(number.Draw(rt, "height") - 1)
		}
		record, err := s.Encode()
		must(rt, err)
		got, err := entry.DecodeSavepoint(record)
		must(rt, err)
		if !equal(got, s) {
			rt.Fatalf("%+v became %+v", s, got)
		}
		if _, err := entry.DecodeSavepoint(append(record, 0)); !errors.Is(err, entry.ErrInvalid) {
			rt.Fatalf("with a byte more: %v", err)
		}
		if _, err := entry.DecodeSavepoint(record[:len(record)-1]); !errors.Is(err, entry.ErrInvalid) {
			rt.Fatalf("with a byte less: %v", err)
		}
	})
}

// Encode does not write what Decode would not read.
func TestEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*entry.Savepoint){
		"no sequence":       func(s *entry.Savepoint) { s.Sequence = 0 },
		"sequence too high": func(s *entry.Savepoint) { s.Sequence = 1 << 63 },
		"epoch too high":    func(s *entry.Savepoint) { s.Epoch = math.MaxUint64 },
		"height too high":   func(s *entry.Savepoint) { s.Height = height(1 << 63) },
		"no save point":     func(s *entry.Savepoint) { s.Savepoint = cid.Undef },
		"raw CID":           func(s *entry.Savepoint) { s.Savepoint = cid.NewCidV1(cid.Raw, s.Savepoint.Hash()) },
		"dag-pb CID":        func(s *entry.Savepoint) { s.Savepoint = cid.NewCidV1(cid.DagProtobuf, s.Savepoint.Hash()) },
		"foreign CID":       func(s *entry.Savepoint) { s.Savepoint = cid.NewCidV0(s.Savepoint.Hash()) },
		"year 10000":        func(s *entry.Savepoint) { s.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"origin not UTF-8":  func(s *entry.Savepoint) { s.Origin = "\xff" },
		"origin too long":   func(s *entry.Savepoint) { s.Origin = strings.Repeat("x", entry.MaxSize) },
	} {
		s := sample()
		change(&s)
		if _, err := s.Encode(); !errors.Is(err, entry.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var fieldNames = []string{"v", "type", "origin", "instance", "epoch", "policy", "sequence", "height", "time", "savepoint"}

// altered is the record of sample with some fields replaced; nil leaves one out.
func altered(t *testing.T, change map[string]datamodel.Node) []byte {
	t.Helper()
	record, err := sample().Encode()
	must(t, err)
	n, err := dag.DecodeCBOR(record, entry.MaxSize)
	must(t, err)
	out, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		for _, key := range fieldNames {
			v, err := n.LookupByString(key)
			must(t, err)
			if with, ok := change[key]; ok {
				if v = with; v == nil {
					continue
				}
			}
			qp.MapEntry(ma, key, qp.Node(v))
		}
	})
	must(t, err)
	data, err := dag.EncodeCBOR(out)
	must(t, err)
	return data
}

// Every field must be there, of its type, and in its bounds.
func TestDecodeRefuses(t *testing.T) {
	texts, ints, raw := basicnode.NewString, basicnode.NewInt, basicnode.NewBytes
	s := sample()
	wrong := map[string][]datamodel.Node{
		"v":        {texts("1"), raw([]byte{1}), ints(-1), basicnode.NewFloat(1)},
		"type":     {ints(1), raw([]byte("savepoint")), datamodel.Null},
		"origin":   {ints(1), raw([]byte("log.example/a"))},
		"instance": {raw(make([]byte, 15)), raw(make([]byte, 17)), raw(nil), texts("0123456789abcdef")},
		"epoch":    {ints(-1), texts("1"), basicnode.NewBool(true)},
		"policy":   {raw(make([]byte, 31)), raw(make([]byte, 33)), texts(strings.Repeat("x", 32))},
		"sequence": {ints(0), ints(-1), ints(math.MinInt64), texts("1"), basicnode.NewFloat(2)},
		"height":   {ints(-1), texts("1"), datamodel.Null},
		"time": {ints(1), texts(""), texts("2026-01-02T03:04:05Z"), texts("2026-01-02T03:04:05.0Z"), texts("2026-01-02T03:04:05.000000006+00:00"),
			texts("2026-01-02t03:04:05.000000006z"), texts("2026-02-30T03:04:05.000000006Z"), texts("2026-01-02T03:04:60.000000006Z"),
			texts("2026-01-02T03:04:05,000000006Z"), texts(" 2026-01-02T03:04:05.000000006Z")},
		"savepoint": {texts(s.Savepoint.String()), raw(nil), raw(s.Savepoint.Bytes()[1:]), raw(append(s.Savepoint.Bytes(), 0)),
			raw(cid.NewCidV0(s.Savepoint.Hash()).Bytes()), raw(cid.NewCidV1(cid.DagJSON, s.Savepoint.Hash()).Bytes())},
	}
	for _, key := range fieldNames {
		if key != "height" {
			wrong[key] = append(wrong[key], nil)
		}
		for i, v := range wrong[key] {
			if got, err := entry.DecodeSavepoint(altered(t, map[string]datamodel.Node{key: v})); !errors.Is(err, entry.ErrInvalid) || errors.Is(err, entry.ErrUnknownType) {
				t.Errorf("%s, case %d: %+v, %v", key, i, got, err)
			}
		}
	}
	got, err := entry.DecodeSavepoint(altered(t, map[string]datamodel.Node{"height": nil}))
	if err != nil || got.Height != nil {
		t.Errorf("without height: %v, %v", got.Height, err)
	}
}

// Only one encoding of an entry is accepted.
func TestDecodeRefusesOtherEncodings(t *testing.T) {
	record, err := sample().Encode()
	must(t, err)
	head := record[0] // a map of ten
	if head != 0xaa {
		t.Fatalf("the record begins with %#x", head)
	}
	for name, other := range map[string][]byte{
		"empty":             {},
		"not a map":         {0x01},
		"a list":            {0x80},
		"empty map":         {0xa0},
		"too long":          make([]byte, entry.MaxSize+1),
		"long length":       append([]byte{0xb8, 10}, record[1:]...),
		"indefinite length": append(append([]byte{0xbf}, record[1:]...), 0xff),
		"tagged":            append([]byte{0xd9, 0xd9, 0xf7}, record...),
		"unknown field":     append([]byte{0xab, 0x61, 'u', 0x01}, record[1:]...),
		"duplicate v":       append([]byte{0xab, 0x61, 'v', 0x01}, record[1:]...),
		"keys unsorted":     append(append([]byte{0xaa}, record[4:]...), record[1:4]...),
		"long integer":      append([]byte{0xaa, 0x61, 'v', 0x18, 0x01}, record[4:]...),
		"negative zero":     append([]byte{0xaa, 0x61, 'v', 0xf9, 0x80, 0x00}, record[4:]...),
	} {
		if got, err := entry.DecodeSavepoint(other); !errors.Is(err, entry.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// Each field once more.
	n, err := dag.DecodeCBOR(record, entry.MaxSize)
	must(t, err)
	for _, key := range fieldNames {
		v, err := n.LookupByString(key)
		must(t, err)
		value, err := dag.EncodeCBOR(v)
		must(t, err)
		pair := append([]byte{0x60 + byte(len(key))}, key...)
		pair = append(pair, value...)
		i := bytes.Index(record, pair)
		if i < 0 {
			t.Fatalf("%s is not found in the record", key)
		}
		twice := bytes.Join([][]byte{{0xab}, record[1 : i+len(pair)], pair, record[i+len(pair):]}, nil)
		if got, err := entry.DecodeSavepoint(twice); !errors.Is(err, entry.ErrInvalid) {
			t.Errorf("%s twice: %+v, %v", key, got, err)
		}
	}
}

// What a later version may write is skipped, whatever else it says.
func TestUnknownType(t *testing.T) {
	for name, change := range map[string]map[string]datamodel.Node{
		"type":              {"type": basicnode.NewString("Savepoint")},
		"version":           {"v": basicnode.NewInt(2)},
		"other fields gone": {"type": basicnode.NewString("later"), "policy": nil, "sequence": nil, "savepoint": nil, "time": nil},
		"other kinds":       {"v": basicnode.NewInt(9), "sequence": basicnode.NewString("x"), "instance": basicnode.NewInt(0)},
	} {
		if _, err := entry.DecodeSavepoint(altered(t, change)); !errors.Is(err, entry.ErrUnknownType) || !errors.Is(err, entry.ErrNotSavepoint) || errors.Is(err, entry.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyOf(t *testing.T) {
	var a, b [16]byte
	b[0] = 1
	keys := map[entry.PolicyKey]bool{entry.KeyOf(a, "p"): true, entry.KeyOf(b, "p"): true, entry.KeyOf(a, "q"): true, entry.KeyOf(a, ""): true}
	if len(keys) != 4 || !keys[entry.KeyOf(a, "p")] {
		t.Errorf("%d keys", len(keys))
	}
}
