package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/rogpeppe/go-internal/testscript"
)

// forger has a log key of its own, whose policy the reader trusts, and makes
// archives that are sound in every respect but one.
type forger struct {
	memory
	origin   string
	docs     map[string]string
	manifest dag.Manifest
	state    func(ctx context.Context) (dag.Link, error)
	entry    func(*entry.Savepoint)
	record   func(*forger, []byte) ([]byte, error)
	roots    func(manifest, proof cid.Cid) []cid.Cid
	prove    int64 // index of the entry that the proof is of
}

// crafts are the ways to go wrong.
var crafts = map[string]func(*forger){
	"sound":    func(*forger) {},
	"sequence": func(f *forger) { f.entry = func(e *entry.Savepoint) { e.Sequence = 7 } },
	"policy": func(f *forger) {
		f.entry = func(e *entry.Savepoint) { e.Policy = entry.KeyOf(e.Instance, "other") }
	},
	"time":      func(f *forger) { f.entry = func(e *entry.Savepoint) { e.Time = e.Time.Add(time.Second) } },
	"origin":    func(f *forger) { f.entry = func(e *entry.Savepoint) { e.Origin = "log.example/other" } },
	"totals":    func(f *forger) { f.manifest.Totals.Bytes++ },
	"documents": func(f *forger) { f.manifest.Totals.Documents-- },
	"no-proof": func(f *forger) {
		f.roots = func(manifest, _ cid.Cid) []cid.Cid { return []cid.Cid{manifest} }
	},
	"other-proof": func(f *forger) { f.prove = 0 },
	"swapped": func(f *forger) {
		f.roots = func(manifest, proof cid.Cid) []cid.Cid { return []cid.Cid{proof, manifest} }
	},
	"note": func(f *forger) {
		f.record = func(f *forger, _ []byte) ([]byte, error) {
			c := entry.Common{Origin: f.origin, Instance: f.manifest.Instance, Time: f.manifest.Time}
			return entry.Encode(&entry.Note{Common: c, Text: "no save point"})
		}
	},
	"unknown-type": func(f *forger) { f.replace("dtypeisavepoint", "dtypeisafepoint") },
	"invalid":      func(f *forger) { f.replace("hsequence\x01", "hsequence\x00") },
	"twice":        func(f *forger) { f.directory("a", "a") },
	"unsorted":     func(f *forger) { f.directory("b", "a") },
	"dotdot":       func(f *forger) { f.directory("..", "a") },
	"slash":        func(f *forger) { f.directory("../a", "b") },
}

// replace changes the bytes of the record that anchors the save point.
func (f *forger) replace(old, new string) {
	f.record = func(_ *forger, record []byte) ([]byte, error) {
		if n := bytes.Count(record, []byte(old)); n != 1 {
			return nil, fmt.Errorf("record %q has %q %d times", record, old, n)
		}
		return bytes.Replace(record, []byte(old), []byte(new), 1), nil
	}
}

// directory makes the state a basic directory of documents with these names, in
// this order.
func (f *forger) directory(names ...string) {
	f.state = func(ctx context.Context) (dag.Link, error) {
		var node []byte
		for i, name := range names {
			b := dag.RawBlock(fmt.Appendf(nil, "document %d", i))
			if err := f.Put(ctx, b); err != nil {
				return dag.Link{}, err
			}
			l := field(nil, 1, b.CID.Bytes())
			l = field(l, 2, []byte(name))
			l = binary.AppendUvarint(append(l, 3<<3), uint64(len(b.Data)))
			node = field(node, 2, l)
		}
		node = field(node, 1, []byte{1 << 3, 1}) // UnixFS: type directory
		c, err := cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.SHA2_256}.Sum(node)
		if err != nil {
			return dag.Link{}, err
		}
		return dag.Link{CID: c}, f.Put(ctx, dag.Block{CID: c, Data: node})
	}
	f.manifest.Totals = dag.Totals{Documents: uint64(len(names)), Bytes: uint64(10 * len(names))}
}

// field appends a length-delimited field of protobuf.
func field(to []byte, number byte, value []byte) []byte {
	return append(binary.AppendUvarint(append(to, number<<3|2), uint64(len(value))), value...)
}

// cmdCraft makes an archive that is wrong in one way, and the trust policy under
// which its log is to be believed.
func cmdCraft(ts *testscript.TestScript, _ bool, args []string) {
	spoil, ok := crafts[args[0]]
	if !ok {
		ts.Fatalf("no craft %q; there are %v", args[0], slices.Sorted(maps.Keys(crafts)))
	}
	f := &forger{
		memory: memory{blocks: map[cid.Cid][]byte{}, heads: map[string][]byte{}},
		origin: "log.example/forger",
		docs:   map[string]string{"a/1.json": "{}", "a/2.json": "[]", "b.txt": "text"},
		manifest: dag.Manifest{
			Version: dag.ManifestVersion, Profile: dag.Profile, Instance: [16]byte{1}, Policy: dag.Policy{ID: "p"},
			Triggers: []dag.Trigger{{Kind: dag.TriggerManual}}, Sequence: 1, Time: time.Unix(1e9, 0).UTC(),
			Totals:      dag.Totals{Documents: 3, Bytes: 8},
			Consistency: dag.Consistency{Method: "none", Consistent: true},
			Provider:    dag.Provider{Name: "forger", Plugins: []string{}},
			Tool:        dag.Tool{Name: "forger", Version: "1"},
		},
		entry:  func(*entry.Savepoint) {},
		record: func(_ *forger, record []byte) ([]byte, error) { return record, nil },
		roots:  func(manifest, proof cid.Cid) []cid.Cid { return []cid.Cid{manifest, proof} },
		prove:  1,
	}
	f.state = f.honestState
	spoil(f)
	car, policy, err := f.forge(context.Background())
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), car, 0o666))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), policy, 0o666))
}

func (f *forger) honestState(ctx context.Context) (dag.Link, error) {
	var tree dag.Editor
	for path, text := range f.docs {
		l, _, err := dag.WriteDocument(ctx, f, bytes.NewReader([]byte(text)))
		if err != nil {
			return dag.Link{}, err
		}
		if err := tree.Put(path, l); err != nil {
			return dag.Link{}, err
		}
	}
	return tree.Apply(ctx, nil, f, cid.Undef)
}

// forge makes a log of two entries, of which the second anchors the save point.
func (f *forger) forge(ctx context.Context) (car, policy []byte, err error) {
	state, err := f.state(ctx)
	if err != nil {
		return nil, nil, err
	}
	f.manifest.State = state.CID
	manifest, err := f.manifest.Block()
	if err != nil {
		return nil, nil, err
	}
	another := cid.NewCidV1(cid.DagCBOR, dag.RawBlock([]byte("another save point")).CID.Hash())
	first := entry.Of(f.origin, &f.manifest, another, entry.Naming{})
	second := entry.Of(f.origin, &f.manifest, manifest.CID, entry.Naming{})
	f.entry(&second)
	other, err := first.Encode()
	if err != nil {
		return nil, nil, err
	}
	record, err := second.Encode()
	if err == nil {
		record, err = f.record(f, record)
	}
	if err != nil {
		return nil, nil, err
	}
	proof, policy, err := f.anchor(ctx, other, record)
	if err != nil {
		return nil, nil, err
	}
	if err := f.Put(ctx, manifest, proof); err != nil {
		return nil, nil, err
	}
	var out bytes.Buffer
	err = dag.WriteCAR(ctx, &out, f, f.roots(manifest.CID, proof.CID)...)
	return out.Bytes(), policy, err
}

// anchor appends the records to a new log and proves one of them.
func (f *forger) anchor(ctx context.Context, records ...[]byte) (dag.Block, []byte, error) {
	fail := func(err error) (dag.Block, []byte, error) { return dag.Block{}, nil, err }
	skey, vkey, err := anchor.GenerateKey(f.origin)
	if err != nil {
		return fail(err)
	}
	signer, err := anchor.NewSigner(skey)
	if err != nil {
		return fail(err)
	}
	log, err := anchor.Open(ctx, f, signer, anchor.Options{Create: true})
	if err != nil {
		return fail(err)
	}
	for _, record := range records {
		if _, _, err := log.Append(ctx, record); err != nil {
			return fail(err)
		}
	}
	text := anchor.FormatPolicy(vkey)
	policy, err := anchor.ParsePolicy(text)
	if err != nil {
		return fail(err)
	}
	view, err := anchor.OpenView(ctx, anchor.LocalFetcher(f, log.Head().Root), policy)
	if err != nil {
		return fail(err)
	}
	proof, err := view.Prove(ctx, f.prove, records[f.prove])
	return dag.RawBlock(proof), text, err
}

// memory is a store for a log.
type memory struct {
	mu     sync.Mutex
	blocks map[cid.Cid][]byte
	heads  map[string][]byte
}

func (m *memory) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blocks[c]
	if !ok {
		return nil, fmt.Errorf("%s: %w", c, dag.ErrNotFound)
	}
	return data, nil
}

func (m *memory) Put(_ context.Context, blocks ...dag.Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range blocks {
		m.blocks[b.CID] = b.Data
	}
	return nil
}

func (m *memory) Sync(context.Context) error { return nil }

func (m *memory) Head(_ context.Context, name string) ([]byte, error) { return m.heads[name], nil }

func (m *memory) SwapHead(_ context.Context, name string, _, new []byte) error {
	m.heads[name] = new
	return nil
}

// cmdBadNames makes a folder of files whose names are unusual: "utf8" is a name
// that is not UTF-8, "collision" two names with the same place in a HAMT, "long" a
// name of 255 bytes, the most that common file systems have.
func cmdBadNames(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(dir, 0o777))
	var names []string
	switch args[0] {
	case "utf8":
		names = []string{"\xff\xfe"}
	case "long":
		names = []string{string(bytes.Repeat([]byte("x"), 255))}
	case "collision":
		data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "colliding-names.json"))
		ts.Check(err)
		ts.Check(json.Unmarshal(data, &names))
	default:
		ts.Fatalf("no such names")
	}
	for _, name := range names {
		ts.Check(os.WriteFile(filepath.Join(dir, name), []byte(name), 0o666))
	}
}
