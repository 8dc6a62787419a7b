package dag

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// The files in testdata/golden are what kubo and the JavaScript of IPFS say;
// bench/peers writes them and describes their form.

type goldenState struct {
	Name      string
	Documents map[string]goldenDocument
	CID       string
}

type goldenDocument struct {
	Text    string
	Base64  []byte
	Pattern *struct{ Length int }
}

func (d goldenDocument) bytes() []byte {
	switch {
	case d.Pattern != nil:
		return pattern(d.Pattern.Length)
	case d.Base64 != nil:
		return d.Base64
	}
	return []byte(d.Text)
}

type goldenManifests struct {
	Accepted []struct {
		Name  string
		Value json.RawMessage
		Hex   string
		CID   string
	}
	Refused []struct{ Name, Hex, Error string }
}

func goldenFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("../testdata/golden/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readGolden(t testing.TB, name string, into any) {
	t.Helper()
	if err := json.Unmarshal(goldenFile(t, name), into); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	data, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// buildState writes the documents and their state to sink.
func buildState(t testing.TB, sink Sink, documents map[string][]byte) (Link, Totals) {
	t.Helper()
	ctx := context.Background()
	var tree Editor
	var totals Totals
	for path, data := range documents {
		l, n, err := WriteDocument(ctx, sink, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Put(path, l); err != nil {
			t.Fatal(err)
		}
		totals.Documents++
		totals.Bytes += n
	}
	root, err := tree.Apply(ctx, nil, sink, cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	return root, totals
}

func TestGoldenStates(t *testing.T) {
	ctx := context.Background()
	var states []goldenState
	readGolden(t, "states.json", &states)
	for _, s := range states {
		documents := map[string][]byte{}
		for path, d := range s.Documents {
			documents[path] = d.bytes()
		}
		m := newMemory()
		root, totals := buildState(t, m, documents)
		if root.CID.String() != s.CID {
			t.Errorf("%s: %s, others say %s", s.Name, root.CID, s.CID)
			continue
		}
		if _, err := VerifyState(ctx, m, root.CID, totals); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		for path, want := range documents {
			if got, err := ReadDocument(ctx, m, root.CID, path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %q does not come back: %v", s.Name, path, err)
			}
		}
	}
}

func TestGoldenManifests(t *testing.T) {
	var golden goldenManifests
	readGolden(t, "manifests.json", &golden)
	for _, g := range golden.Accepted {
		data := unhex(t, g.Hex)
		nb := basicnode.Prototype.Any.NewBuilder()
		if err := dagjson.Decode(nb, bytes.NewReader(g.Value)); err != nil {
			t.Fatal(err)
		}
		if encoded, err := EncodeCBOR(nb.Build()); err != nil || !bytes.Equal(encoded, data) {
			t.Errorf("%s: encoded as %x, others say %s (%v)", g.Name, encoded, g.Hex, err)
		}
		m, err := DecodeManifest(data)
		if err != nil {
			t.Errorf("%s: %v", g.Name, err)
			continue
		}
		b, err := m.Block()
		if err != nil || !bytes.Equal(b.Data, data) || b.CID.String() != g.CID {
			t.Errorf("%s: encoded again as %x, %s, not as %s (%v)", g.Name, b.Data, b.CID, g.CID, err)
		}
	}
	sentinels := map[string]error{
		"ErrNotCanonical": ErrNotCanonical, "ErrManifest": ErrManifest, "ErrVersion": ErrVersion,
	}
	for _, g := range golden.Refused {
		_, err := DecodeManifest(unhex(t, g.Hex))
		if want := sentinels[g.Error]; want == nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %s", g.Name, err, g.Error)
		}
	}
}

// A CAR of kubo has the bytes that WriteCAR writes.
func TestGoldenCAR(t *testing.T) {
	ctx := context.Background()
	file := goldenFile(t, "savepoint.car")
	r, err := ReadCAR(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory()
	if _, err := r.CopyDAG(ctx, m, r.Roots, nil); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := WriteCAR(ctx, &out, m, r.Roots...); err != nil || !bytes.Equal(out.Bytes(), file) {
		t.Errorf("another CAR of the same DAG: %x, not %x (%v)", out.Bytes(), file, err)
	}
	manifest, err := ReadManifest(ctx, m, r.Roots[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := VerifyState(ctx, m, manifest.State, manifest.Totals); err != nil || got != manifest.Totals {
		t.Errorf("the state holds %v, its manifest says %v (%v)", got, manifest.Totals, err)
	}
	for _, c := range []cid.Cid{r.Roots[0], manifest.State} {
		if missing, err := Missing(ctx, m, c); err != nil || len(missing) > 0 {
			t.Errorf("missing of %s: %v %v", c, missing, err)
		}
	}
}
