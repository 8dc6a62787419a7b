package savepoints_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// What one source lacks because it was erased is taken from any other that was given, in
// whatever order they are; where none has it the save point comes without.
func TestFetchErasedFromAnother(t *testing.T) {
	b := initBank(t)
	took := take(t, b, personal(1), "p")
	whole := archived(t, b, took)
	erase(t, b, took.Savepoint, erasedPaths...)
	gap := archived(t, b, took)
	_, url := countedGateway(t, b)
	nonsense := filepath.Join(t.TempDir(), "nonsense.car")
	must(t, os.WriteFile(nonsense, []byte("nonsense"), 0o600))
	for name, c := range map[string]struct {
		sources []string
		erased  uint64
	}{
		"archive and archive":            {[]string{gap, whole}, 0},
		"the other way":                  {[]string{whole, gap}, 0},
		"gateway and archive":            {[]string{url, whole}, 0},
		"gateway and archives":           {[]string{url, gap, nonsense, whole}, 0},
		"none has it":                    {[]string{url, gap}, 2},
		"none has it, and one is broken": {[]string{gap, nonsense}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			to, p := reader(t, b)
			got, err := to.Fetch(ctx, savepoints.Ref{Policy: "p", Sequence: 1}, savepoints.FetchOptions{Policy: p, Sources: c.sources})
			must(t, err)
			if got.CID != took.CID || got.Erased.Documents != c.erased {
				t.Errorf("%s, %+v", got.CID, got.Erased)
			}
			if c.erased == 0 {
				checkDocuments(t, to, got.Savepoint, personal(1))
			}
		})
	}
}

// The newest save point, found without what was erased, is not exchanged for an older one.
func TestFetchErasedLatest(t *testing.T) {
	b := initBank(t)
	old := archived(t, b, take(t, b, state{"step": "0"}, "p"))
	took := take(t, b, personal(1), "p")
	erase(t, b, took.Savepoint, erasedPaths...)
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	got, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, savepoints.FetchOptions{Policy: p, Sources: []string{url, old}, AcceptStale: true})
	must(t, err)
	if got.CID != took.CID || got.Erased.Documents != 2 || got.Freshness != savepoints.FreshnessUnknown {
		t.Errorf("%s, %+v, %s", got.CID, got.Erased, got.Freshness)
	}
}
