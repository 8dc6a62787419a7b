package savepoints_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

func proofOf(t testing.TB, b *savepoints.Bank, s savepoints.Savepoint, path string) []byte {
	t.Helper()
	var car bytes.Buffer
	must(t, b.Prove(ctx, s, path, &car))
	return car.Bytes()
}

func TestProve(t *testing.T) {
	b := initBank(t)
	want := state{"a/1": "one", "a/2": "two", "b": string(bytes.Repeat([]byte("long "), 500_000))}
	s := take(t, b, want, "p").Savepoint
	p := policyOf(t, b)
	for path, text := range want {
		var got bytes.Buffer
		proven, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(proofOf(t, b, s, path)), path, &got)
		must(t, err)
		if got.String() != text || proven.CID != s.CID || proven.Absent || proven.Manifest.Policy.ID != "p" || proven.Head.Size != 1 {
			t.Errorf("%s: %d bytes of %s", path, got.Len(), proven.CID)
		}
	}
	car := proofOf(t, b, s, "a/3")
	proven, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(car), "a/3", nil)
	if err != nil || !proven.Absent {
		t.Errorf("absence: %v %v", proven.Absent, err)
	}
	if _, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(car), "b", nil); !errors.Is(err, dag.ErrTruncated) {
		t.Errorf("what it has no nodes of: %v", err)
	}
	if _, err := savepoints.VerifyProofFile(ctx, policyOf(t, initBank(t)), bytes.NewReader(car), "a/3", nil); !errors.Is(err, anchor.ErrUntrusted) {
		t.Errorf("another log's policy: %v", err)
	}
	// Another save point's proof beside this one's nodes.
	other := take(t, b, smallState(1), "p").Savepoint
	proof, _, err := b.RawProof(ctx, other)
	must(t, err)
	var mixed bytes.Buffer
	must(t, dag.WriteProof(ctx, &mixed, b.Repo().Blocks, s.CID, "a/1", dag.RawBlock(proof)))
	if _, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(mixed.Bytes()), "a/1", nil); !errors.Is(err, entry.ErrContradiction) {
		t.Errorf("two save points in one: %v", err)
	}
	var one bytes.Buffer
	must(t, dag.WriteProof(ctx, &one, b.Repo().Blocks, s.CID, "a/1"))
	if _, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(one.Bytes()), "a/1", nil); !errors.Is(err, savepoints.ErrArchive) {
		t.Errorf("no anchor: %v", err)
	}
	for i := int(car[0]) + 1; i < len(car); i++ { // the header says nothing that is believed
		bad := bytes.Clone(car)
		bad[i] ^= 1
		if _, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(bad), "a/3", nil); err == nil {
			t.Fatalf("byte %d may be another", i)
		}
		if _, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(car[:i]), "a/3", nil); err == nil {
			t.Fatalf("%d bytes are as good as all", i)
		}
	}
}

// A receipt from before witnesses had seen the entry proves nothing to others; the
// published head does, once there is one.
func TestProveBeforeWitnesses(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	w.down.Store(true)
	s := take(t, b, smallState(1), "p").Savepoint
	if err := b.Prove(ctx, s, "", new(bytes.Buffer)); !errors.Is(err, anchor.ErrNoQuorum) {
		t.Fatal(err)
	}
	w.down.Store(false)
	_, err := b.Publish(ctx)
	must(t, err)
	_, err = savepoints.VerifyProofFile(ctx, policyOf(t, b), bytes.NewReader(proofOf(t, b, s, "")), "", nil)
	must(t, err)
}

// An archive is as good as a proof where the receipt, which nobody brought up to the
// published head, is of no use.
func TestExportBeforeWitnesses(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	w.down.Store(true)
	s := take(t, b, smallState(1), "p").Savepoint
	w.down.Store(false)
	b = reopen(t, b)
	newest := take(t, b, smallState(2), "p").Savepoint // asks the witness before, and not after
	must(t, exportTo(t, b, s, fresh(t, b)))
	item, err := b.Item(ctx, s)
	must(t, err)
	if item.NotYet != nil || len(item.Roots) != 2 {
		t.Errorf("to be replicated: %+v", item)
	}
	if err := b.Export(ctx, newest, io.Discard); !errors.Is(err, anchor.ErrNoQuorum) {
		t.Errorf("the newest: %v", err)
	}
	item, err = b.Item(ctx, newest)
	must(t, err)
	if !errors.Is(item.NotYet, anchor.ErrNoQuorum) || item.Root != newest.CID {
		t.Errorf("the newest is to be replicated: %+v", item)
	}
}

// Whatever the bytes, only what is in the log is proven, and documents are those of the
// state.
func FuzzVerifyProofFile(f *testing.F) {
	b, err := savepoints.Init(ctx, f.TempDir()+"/bank", savepoints.InitOptions{})
	must(f, err)
	defer b.Close()
	taken, err := b.Take(ctx, state{"a/1": "one", "a/2": "two"}, savepoints.TakeOptions{Policy: "p"})
	must(f, err)
	text, err := b.TrustPolicy()
	must(f, err)
	p, err := anchor.ParsePolicy(text)
	must(f, err)
	raw, _, err := b.RawProof(ctx, taken.Savepoint)
	must(f, err)
	f.Add(raw, "")
	for _, path := range []string{"", "a/1", "a/3"} {
		f.Add(proofOf(f, b, taken.Savepoint, path), path)
	}
	f.Fuzz(func(t *testing.T, data []byte, path string) {
		var got bytes.Buffer
		proven, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(data), path, &got)
		if err != nil {
			return
		}
		want, there := map[string]string{"a/1": "one", "a/2": "two"}[path]
		if proven.CID != taken.CID || path != "" && proven.Absent == there || there && got.String() != want {
			t.Fatalf("%q: %+v %q", path, proven, got.String())
		}
	})
}
