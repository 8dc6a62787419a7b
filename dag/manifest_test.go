package dag

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/node/bindnode"
	"github.com/ipld/go-ipld-prime/schema"
	schemadmt "github.com/ipld/go-ipld-prime/schema/dmt"
	schemadsl "github.com/ipld/go-ipld-prime/schema/dsl"
	"pgregory.net/rapid"
)

// fullManifest has every field that there is.
func fullManifest() *Manifest {
	height := uint64(7)
	return &Manifest{
		Version: ManifestVersion, Profile: Profile, Instance: [16]byte{1},
		Policy:   Policy{ID: "p", Name: "n", Version: "1", Topic: "t", Config: RawBlock(nil).CID},
		Triggers: []Trigger{{Kind: TriggerBlock, Tag: "tag"}, {Kind: TriggerInterval, N: 24}},
		Sequence: 2, Epoch: 0, Height: &height, Time: time.Unix(1, 2).UTC(),
		Parent:      &Parent{newBlock(codecDC, nil).CID, 1},
		State:       newBlock(codecPB, nil).CID,
		Totals:      Totals{3, 4},
		Consistency: Consistency{"snapshot", true},
		Provider:    Provider{"p", []string{"files"}},
		Resources:   newBlock(codecDC, nil).CID,
		Partial:     []string{"a"}, Secrets: []string{"b"},
		Encryption: &Encryption{"age", "key", true},
		Labels:     map[string]string{"k": "v"},
		Tool:       Tool{"ipfs-savepoint", "1"},
	}
}

func manifestSchema(t *testing.T) *schema.TypeSystem {
	t.Helper()
	file, err := schemadsl.ParseFile("savepoint.ipldsch")
	if err != nil {
		t.Fatal(err)
	}
	ts := new(schema.TypeSystem)
	ts.Init()
	if err := schemadmt.Compile(ts, file); err != nil {
		t.Fatal(err)
	}
	return ts
}

// bySchema returns what the schema has against a node.
func bySchema(t *testing.T, ts *schema.TypeSystem, n datamodel.Node) error {
	t.Helper()
	data, err := EncodeCBOR(n)
	if err != nil {
		t.Fatal(err)
	}
	nb := bindnode.Prototype(nil, ts.TypeByName("Manifest")).Representation().NewBuilder()
	return dagcbor.Decode(nb, bytes.NewReader(data))
}

func byCode(n datamodel.Node) error {
	_, err := manifestOf(n)
	return err
}

// The schema accepts what the code accepts, and each leaves out what the other
// lets it leave out.
func TestSchemaEqualsCode(t *testing.T) {
	ts := manifestSchema(t)
	full, err := fullManifest().node()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bySchema(t, ts, full), byCode(full)); err != nil {
		t.Fatal(err)
	}
	encoded := map[string]map[string]bool{} // keys by struct
	eachStructField(ts.TypeByName("Manifest"), full, nil, func(parent string, path []string, f schema.StructField) {
		if encoded[parent] == nil {
			encoded[parent] = map[string]bool{}
		}
		encoded[parent][f.Name()] = true
		cut := without(full, path)
		if err := bySchema(t, ts, cut); (err == nil) != f.IsOptional() {
			t.Errorf("schema without %v: %v", path, err)
		}
		err := byCode(cut)
		if (err == nil) != f.IsOptional() || err != nil && !errors.Is(err, ErrManifest) {
			t.Errorf("code without %v: %v", path, err)
		}
	})
	for name, typ := range ts.GetTypes() {
		if s, ok := typ.(*schema.TypeStruct); ok {
			var fields []string
			for _, f := range s.Fields() {
				fields = append(fields, f.Name())
			}
			slices.Sort(fields)
			if keys := slices.Sorted(maps.Keys(encoded[name])); !slices.Equal(fields, keys) {
				t.Errorf("%s has the fields %v, the code writes %v", name, fields, keys)
			}
		}
	}
}

// eachStructField calls visit for every field that n has of struct type typ and of the
// structs in it. A key that the schema lacks is refused by bySchema.
func eachStructField(typ schema.Type, n datamodel.Node, path []string, visit func(parent string, path []string, f schema.StructField)) {
	switch typ := typ.(type) {
	case *schema.TypeStruct:
		for _, f := range typ.Fields() {
			v, err := n.LookupByString(f.Name())
			if err != nil {
				continue
			}
			below := append(slices.Clip(path), f.Name())
			visit(typ.Name(), below, f)
			eachStructField(f.Type(), v, below, visit)
		}
	case *schema.TypeList:
		for it := n.ListIterator(); !it.Done(); {
			i, v, _ := it.Next()
			eachStructField(typ.ValueType(), v, append(slices.Clip(path), datamodel.PathSegmentOfInt(i).String()), visit)
		}
	}
}

// without returns n without the value at path.
func without(n datamodel.Node, path []string) datamodel.Node {
	out, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		for it := n.MapIterator(); !it.Done(); {
			k, v, _ := it.Next()
			key, _ := k.AsString()
			switch {
			case key != path[0]:
			case len(path) == 1:
				continue
			case v.Kind() == datamodel.Kind_List:
				v = listWithout(v, path[1:])
			default:
				v = without(v, path[1:])
			}
			qp.MapEntry(ma, key, qp.Node(v))
		}
	})
	if err != nil {
		panic(err)
	}
	return out
}

func listWithout(n datamodel.Node, path []string) datamodel.Node {
	out, err := qp.BuildList(basicnode.Prototype.Any, -1, func(la datamodel.ListAssembler) {
		for it := n.ListIterator(); !it.Done(); {
			i, v, _ := it.Next()
			if datamodel.PathSegmentOfInt(i).String() == path[0] {
				v = without(v, path[1:])
			}
			qp.ListEntry(la, qp.Node(v))
		}
	})
	if err != nil {
		panic(err)
	}
	return out
}

func TestSchemaTriggerKinds(t *testing.T) {
	enum := manifestSchema(t).TypeByName("TriggerKind").(*schema.TypeEnum)
	represented := enum.RepresentationStrategy().(schema.EnumRepresentation_String)
	var kinds []string
	for _, member := range enum.Members() {
		if kind, ok := represented[member]; ok {
			member = kind
		}
		kinds = append(kinds, member)
	}
	want := []string{TriggerBlock, TriggerInterval, TriggerManual, TriggerImport, TriggerCatchUp}
	if !slices.Equal(kinds, want) {
		t.Errorf("the schema has the kinds %v, the code %v", kinds, want)
	}
}

func TestSchemaAcceptsGolden(t *testing.T) {
	ts := manifestSchema(t)
	var golden goldenManifests
	readGolden(t, "manifests.json", &golden)
	for _, g := range golden.Accepted {
		n, err := DecodeCBOR(unhex(t, g.Hex), MaxManifestSize)
		if err != nil {
			t.Fatal(err)
		}
		err = bySchema(t, ts, n)
		if known := !strings.Contains(g.Name, "unknown"); known != (err == nil) {
			t.Errorf("%s: %v", g.Name, err)
		}
	}
}

// Each rule of check, on writing. What is refused there is refused on reading
// too, unless it cannot be written at all.
func TestManifestRules(t *testing.T) {
	v0 := cid.NewCidV0(RawBlock(nil).CID.Hash())
	for name, breakRule := range map[string]func(m *Manifest){
		"another profile":             func(m *Manifest) { m.Profile = "unixfs-v1-2025" },
		"no policy id":                func(m *Manifest) { m.Policy.ID = "" },
		"a policy id not in UTF-8":    func(m *Manifest) { m.Policy.ID = "\xff" },
		"a name not in UTF-8":         func(m *Manifest) { m.Policy.Name = "\xff" },
		"a label not in UTF-8":        func(m *Manifest) { m.Labels = map[string]string{"\xff": ""} },
		"sequence 0":                  func(m *Manifest) { m.Sequence, m.Parent = 0, nil },
		"no trigger":                  func(m *Manifest) { m.Triggers = nil },
		"a trigger of no kind":        func(m *Manifest) { m.Triggers[0] = Trigger{} },
		"a block without its tag":     func(m *Manifest) { m.Triggers[0].Tag = "" },
		"an interval without n":       func(m *Manifest) { m.Triggers[1].N = 0 },
		"a tag that is not a block's": func(m *Manifest) { m.Triggers[1].Tag = "t" },
		"n that is not an interval's": func(m *Manifest) { m.Triggers[0].N = 1 },
		"no time":                     func(m *Manifest) { m.Time = time.Time{} },
		"a time in another zone":      func(m *Manifest) { m.Time = m.Time.In(time.FixedZone("", 3600)) },
		"a year of five digits":       func(m *Manifest) { m.Time = m.Time.AddDate(9000, 0, 0) },
		"a year before 0":             func(m *Manifest) { m.Time = m.Time.AddDate(-3000, 0, 0) },
		"a parent of equal sequence":  func(m *Manifest) { m.Parent.Sequence = m.Sequence },
		"a parent of sequence 0":      func(m *Manifest) { m.Parent.Sequence = 0 },
		"a parent without CID":        func(m *Manifest) { m.Parent.Savepoint = cid.Undef },
		"a parent with CIDv0":         func(m *Manifest) { m.Parent.Savepoint = v0 },
		"no parent":                   func(m *Manifest) { m.Parent = nil },
		"no state":                    func(m *Manifest) { m.State = cid.Undef },
		"a state with CIDv0":          func(m *Manifest) { m.State = v0 },
		"a state that is raw":         func(m *Manifest) { m.State = RawBlock(nil).CID },
		"a config with CIDv0":         func(m *Manifest) { m.Policy.Config = v0 },
		"resources with CIDv0":        func(m *Manifest) { m.Resources = v0 },
		"a sequence of 64 bits":       func(m *Manifest) { m.Sequence = math.MaxInt64 + 1 },
		"an epoch of 64 bits":         func(m *Manifest) { m.Epoch = math.MaxInt64 + 1 },
		"a height of 64 bits":         func(m *Manifest) { *m.Height = math.MaxInt64 + 1 },
		"documents of 64 bits":        func(m *Manifest) { m.Totals.Documents = math.MaxInt64 + 1 },
		"bytes of 64 bits":            func(m *Manifest) { m.Totals.Bytes = math.MaxInt64 + 1 },
		"n of 64 bits":                func(m *Manifest) { m.Triggers[1].N = math.MaxInt64 + 1 },
		"more than 64 KiB":            func(m *Manifest) { m.Secrets = []string{strings.Repeat("x", MaxManifestSize)} },
	} {
		m := fullManifest()
		breakRule(m)
		if _, err := m.Block(); !errors.Is(err, ErrManifest) {
			t.Errorf("%s is written: %v", name, err)
		}
		n, err := m.node()
		if err != nil {
			continue
		}
		data, err := EncodeCBOR(n)
		if err != nil {
			continue
		}
		// A zone is written as if it were UTC.
		if _, err := DecodeManifest(data); err == nil && name != "a time in another zone" {
			t.Errorf("%s is read", name)
		}
	}
	m := fullManifest()
	m.Version = 2
	if _, err := m.Block(); !errors.Is(err, ErrVersion) {
		t.Errorf("version 2 is written: %v", err)
	}
	m = fullManifest()
	m.Parent, m.Epoch = nil, 1
	if _, err := m.Block(); err != nil {
		t.Errorf("the first save point after a takeover: %v", err)
	}
}

func TestReadManifest(t *testing.T) {
	ctx := context.Background()
	want := fullManifest()
	b, err := want.Block()
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory()
	if _, err := ReadManifest(ctx, m, b.CID); !errors.Is(err, ErrNotFound) {
		t.Errorf("before it is there: %v", err)
	}
	if err := m.Put(ctx, b); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadManifest(ctx, m, b.CID); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, not %+v: %v", got, want, err)
	}
	if _, err := ReadManifest(ctx, m, RawBlock(nil).CID); !errors.Is(err, ErrManifest) {
		t.Errorf("a raw block: %v", err)
	}
	if _, err := ReadManifest(ctx, m, cid.Undef); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no CID: %v", err)
	}
	links, err := Links(b)
	if want := []cid.Cid{want.State, want.Policy.Config, want.Resources}; err != nil || !slices.Equal(links, want) {
		t.Errorf("links %v, not %v: %v", links, want, err)
	}
}

func TestManifestProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawManifest(t)
		b, err := want.Block()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeManifest(b.Data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v came back as %+v", want, got)
		}
		if again, err := got.Block(); err != nil || again.CID != b.CID || !bytes.Equal(again.Data, b.Data) {
			t.Fatalf("%x encoded again as %x: %v", b.Data, again.Data, err)
		}
	})
}

func drawManifest(t *rapid.T) *Manifest {
	text := rapid.String()
	id := rapid.StringMatching(`([A-Za-z0-9._-]|%[0-9A-F]{2}){1,40}`)
	number := rapid.Uint64Range(0, math.MaxInt64)
	someCID := func(codec uint64) cid.Cid { return newBlock(codec, []byte(text.Draw(t, "block"))).CID }
	m := &Manifest{
		Version: ManifestVersion, Profile: Profile,
		Instance: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "instance")),
		Policy: Policy{
			ID: id.Draw(t, "id"), Name: text.Draw(t, "name"),
			Version: text.Draw(t, "version"), Topic: text.Draw(t, "topic"),
		},
		Sequence: rapid.Uint64Range(1, math.MaxInt64).Draw(t, "sequence"),
		Epoch:    number.Draw(t, "epoch"),
		Time:     time.Unix(rapid.Int64Range(0, 253402300799).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC(),
		State:    someCID(codecPB),
		Totals:   Totals{number.Draw(t, "documents"), number.Draw(t, "bytes")},
		Consistency: Consistency{
			text.Draw(t, "method"), rapid.Bool().Draw(t, "consistent"),
		},
		Provider: Provider{text.Draw(t, "provider"), rapid.SliceOfN(text, 0, 3).Draw(t, "plugins")},
		Tool:     Tool{text.Draw(t, "tool"), text.Draw(t, "tool version")},
	}
	for _, kind := range rapid.SliceOfN(rapid.SampledFrom([]string{
		TriggerBlock, TriggerInterval, TriggerManual, TriggerImport, TriggerCatchUp,
	}), 1, 4).Draw(t, "kinds") {
		trigger := Trigger{Kind: kind}
		switch kind {
		case TriggerBlock:
			trigger.Tag = id.Draw(t, "tag")
		case TriggerInterval:
			trigger.N = rapid.Uint64Range(1, math.MaxInt64).Draw(t, "n")
		}
		m.Triggers = append(m.Triggers, trigger)
	}
	if m.Sequence > 1 && (m.Epoch == 0 || rapid.Bool().Draw(t, "has a parent")) {
		m.Parent = &Parent{someCID(codecDC), rapid.Uint64Range(1, m.Sequence-1).Draw(t, "parent")}
	}
	maybe := func(field string, set func()) {
		if rapid.Bool().Draw(t, "has "+field) {
			set()
		}
	}
	maybe("height", func() { h := number.Draw(t, "height"); m.Height = &h })
	maybe("config", func() { m.Policy.Config = someCID(codecDC) })
	maybe("resources", func() { m.Resources = someCID(codecDC) })
	maybe("partial", func() { m.Partial = rapid.SliceOfN(text, 1, 3).Draw(t, "partial") })
	maybe("secrets", func() { m.Secrets = rapid.SliceOfN(text, 1, 3).Draw(t, "secrets") })
	maybe("encryption", func() {
		m.Encryption = &Encryption{text.Draw(t, "scheme"), text.Draw(t, "key"), rapid.Bool().Draw(t, "names")}
	})
	maybe("labels", func() { m.Labels = rapid.MapOfN(text, text, 1, 4).Draw(t, "labels") })
	return m
}
