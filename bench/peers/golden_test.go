package peers

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/golden anew")

// TestGolden computes what is in testdata/golden with every peer.
func TestGolden(t *testing.T) {
	k := newKubo(t)
	var stateCID string
	t.Run("states", func(t *testing.T) { stateCID = goldenStates(t, k) })
	if t.Failed() {
		return
	}
	var manifestCID string
	t.Run("manifests", func(t *testing.T) { manifestCID = goldenManifests(t, k, stateCID) })
	if t.Failed() {
		return
	}
	t.Run("entries", func(t *testing.T) { goldenEntries(t, k) })
	t.Run("car", func(t *testing.T) { goldenCAR(t, k, manifestCID) })
}

// goldenStates returns the CID of the state that manifests link to.
func goldenStates(t *testing.T, k kubo) (stateCID string) {
	list := states()
	for i := range list {
		s := &list[i]
		s.CID, s.By = k.add(t, s.Documents), []string{"kubo"}
		if s.NotJS == "" {
			s.By = append(s.By, "js")
		}
		if s.Name == nested {
			stateCID = s.CID
		}
	}
	file := marshal(t, list)
	golden(t, "states.json", file)
	var js []state
	if javaScript(t, "states", file, &js) {
		for i, s := range list {
			if equal := js[i].CID == s.CID; equal != slices.Contains(s.By, "js") {
				t.Errorf("%s: kubo says %s, JavaScript says %s", s.Name, s.CID, js[i].CID)
			}
		}
	}
	return stateCID
}

// goldenManifests returns the CID of the smallest manifest.
func goldenManifests(t *testing.T, k kubo, stateCID string) (manifestCID string) {
	all := manifests{Accepted: accepted(stateCID)}
	for i := range all.Accepted {
		m := &all.Accepted[i]
		cid, data := k.putManifest(t, m.Value)
		m.CID, m.Hex = cid, hex.EncodeToString(data)
		if i == 0 {
			manifestCID = cid
			all.Refused = refusals(t, data)
		}
	}
	file := marshal(t, all)
	golden(t, "manifests.json", file)
	var js []manifest
	if javaScript(t, "manifests", file, &js) {
		for i, m := range all.Accepted {
			if js[i].CID != m.CID || js[i].Hex != m.Hex {
				t.Errorf("%s: kubo says %s %s, JavaScript says %s %s", m.Name, m.CID, m.Hex, js[i].CID, js[i].Hex)
			}
		}
	}
	return manifestCID
}

// goldenCAR is the export of one save point.
func goldenCAR(t *testing.T, k kubo, manifestCID string) {
	file := k.run(t, nil, "dag", "export", "--progress=false", manifestCID)
	golden(t, "savepoint.car", file)
	var js struct{ Roots, Blocks []string }
	if javaScript(t, "car", file, &js) {
		if !slices.Equal(js.Roots, []string{manifestCID}) || js.Blocks[0] != manifestCID {
			t.Errorf("JavaScript reads the roots %v and the IPFS blocks %v", js.Roots, js.Blocks)
		}
	}
}

// golden compares with a file of testdata/golden, or writes it.
func golden(t *testing.T, name string, want []byte) {
	t.Helper()
	path := filepath.Join("..", "..", "testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what kubo and the cases of this test say; write it anew with -update and compare", name)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
