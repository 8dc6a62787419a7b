package savepoints_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

func export(t *testing.T, b *savepoints.Bank, s savepoints.Savepoint) []byte {
	t.Helper()
	var buf bytes.Buffer
	must(t, b.Export(ctx, s, &buf))
	return buf.Bytes()
}

func policyOf(t *testing.T, b *savepoints.Bank) *anchor.Policy {
	t.Helper()
	data, err := b.TrustPolicy()
	must(t, err)
	p, err := anchor.ParsePolicy(data)
	must(t, err)
	return p
}

// exportTo brings a save point into another bank.
func exportTo(t *testing.T, b *savepoints.Bank, s savepoints.Savepoint, to *savepoints.Bank) error {
	t.Helper()
	_, err := to.Import(ctx, bytes.NewReader(export(t, b, s)), policyOf(t, b), nil)
	return err
}

func TestExportAndImport(t *testing.T) {
	b := initBank(t)
	s := someState()
	take(t, b, smallState(0), "p")
	taken := take(t, b, s, "p")
	archive := export(t, b, taken.Savepoint)
	if !bytes.Equal(archive, export(t, b, taken.Savepoint)) {
		t.Error("two exports differ")
	}
	car, err := dag.ReadCAR(bytes.NewReader(archive))
	must(t, err)
	if len(car.Roots) != 2 || car.Roots[0] != taken.CID || car.Roots[1] != dag.RawBlock(taken.Proof).CID {
		t.Errorf("roots %v", car.Roots)
	}

	to, p := reader(t, b)
	var last dag.Received
	got, err := to.Import(ctx, bytes.NewReader(archive), p, func(r dag.Received) { last = r })
	must(t, err)
	if got.CID != taken.CID || got.LogIndex != 1 || got.Origin != b.Origin() || last.Blocks == 0 {
		t.Errorf("imported %+v, progress %+v", got, last)
	}
	checkDocuments(t, to, got, s)
	if h, err := to.Head(ctx, b.Origin()); err != nil || h.Root.Defined() {
		t.Errorf("the log came along: root %s, %v", h.Root, err)
	}
	must(t, to.Close())
	to = openBank(t, to.Repo().Dir())
	l := list(t, to)
	if len(l) != 1 {
		t.Fatalf("%d listed", len(l))
	}
	checkDocuments(t, to, l[0], s)
	if !bytes.Equal(export(t, to, l[0]), archive) {
		t.Error("the export of an import differs")
	}
	// Again, and under the policies in force.
	_, err = to.Import(ctx, bytes.NewReader(archive), nil, nil)
	must(t, err)
	if len(list(t, to)) != 1 {
		t.Error("a second import made a second save point")
	}
}

func TestImportRefuses(t *testing.T) {
	b, other := initBank(t), initBank(t)
	taken, foreign := take(t, b, smallState(1), "p"), take(t, other, smallState(2), "p")
	archive := export(t, b, taken.Savepoint)
	to, p := reader(t, b)
	imp := func(data []byte, p *anchor.Policy) error {
		_, err := to.Import(ctx, bytes.NewReader(data), p, nil)
		return err
	}
	car := func(roots ...cid.Cid) []byte {
		var buf bytes.Buffer
		must(t, dag.WriteCAR(ctx, &buf, withProof{b.Repo().Blocks, dag.RawBlock(taken.Proof), dag.RawBlock(foreign.Proof)}, roots...))
		return buf.Bytes()
	}
	proof := dag.RawBlock(taken.Proof).CID
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"of another log":              {imp(export(t, other, foreign.Savepoint), p), anchor.ErrUntrusted},
		"of another log, no policy":   {imp(export(t, other, foreign.Savepoint), nil), anchor.ErrUntrusted},
		"under another's policy":      {imp(archive, policyOf(t, other)), anchor.ErrUntrusted},
		"one root":                    {imp(car(taken.CID), p), savepoints.ErrArchive},
		"three roots":                 {imp(car(taken.CID, proof, proof), p), savepoints.ErrArchive},
		"roots the other way round":   {imp(car(proof, taken.CID), p), anchor.ErrCorrupt},
		"the proof is of another log": {imp(car(taken.CID, dag.RawBlock(foreign.Proof).CID), p), anchor.ErrUntrusted},
		"the state for the manifest":  {imp(car(taken.Manifest.State, proof), p), entry.ErrContradiction},
		"not a CAR":                   {imp([]byte("hello, this is not an archive"), p), nil},
		"empty":                       {imp(nil, p), dag.ErrTruncated},
	} {
		if c.err == nil || c.want != nil && !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	nobody, err := savepoints.OpenReader(ctx, t.TempDir())
	must(t, err)
	defer nobody.Close()
	if _, err := nobody.Import(ctx, bytes.NewReader(archive), nil, nil); !errors.Is(err, savepoints.ErrNoTrust) {
		t.Errorf("without any policy: %v", err)
	}
	if len(receiptFiles(t, to)) != 0 {
		t.Error("a receipt was kept")
	}
	// The rest of a good save point of the same log does not make a bad one good.
	second := take(t, b, smallState(9), "p")
	must(t, exportTo(t, b, taken.Savepoint, to))
	if err := imp(car(second.CID, proof), p); !errors.Is(err, entry.ErrContradiction) {
		t.Errorf("another save point's proof: %v", err)
	}
}

// withProof is a source of a bank's IPFS blocks and of proofs.
type withProof struct {
	dag.Source
	a, b dag.Block
}

func (w withProof) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	for _, x := range []dag.Block{w.a, w.b} {
		if x.CID == c {
			return x.Data, nil
		}
	}
	return w.Source.Get(ctx, c)
}

// An archive cut at any byte is refused and leaves no receipt.
func TestTruncatedArchive(t *testing.T) {
	b := initBank(t)
	taken := take(t, b, smallState(1), "p")
	archive := export(t, b, taken.Savepoint)
	to, p := reader(t, b)
	for n := range archive {
		_, err := to.Import(ctx, bytes.NewReader(archive[:n]), p, nil)
		// Between two sections a CAR may end; then what follows is missing.
		if !errors.Is(err, dag.ErrTruncated) {
			t.Fatalf("%d of %d bytes: %v", n, len(archive), err)
		}
	}
	if len(receiptFiles(t, to)) != 0 || len(list(t, to)) != 0 {
		t.Error("something is kept of archives that were cut")
	}
}

// An archive with any byte changed is refused and leaves no receipt. The one
// exception is the tag before a CID in the header, which readers of CARs ignore:
// what is kept then is the same to the byte.
func TestEveryFlippedByteOfAnArchive(t *testing.T) {
	b := initBank(t)
	taken := take(t, b, smallState(1), "p")
	archive := export(t, b, taken.Savepoint)
	to, p := reader(t, b)
	for i := range archive {
		for _, xor := range []byte{0x01, 0x80} {
			bad := bytes.Clone(archive)
			bad[i] ^= xor
			s, err := to.Import(ctx, bytes.NewReader(bad), p, nil)
			if err == nil && (i > int(archive[0]) || !bytes.Equal(export(t, to, s), archive)) {
				t.Fatalf("byte %d xor %#x is accepted as %s", i, xor, s.CID)
			}
			for _, path := range receiptFiles(t, to) {
				if err != nil {
					t.Fatalf("byte %d xor %#x: %v, and a receipt was kept", i, xor, err)
				}
				must(t, os.Remove(path))
			}
		}
	}
	must(t, exportTo(t, b, taken.Savepoint, to))
	checkDocuments(t, to, list(t, to)[0], smallState(1))
}
