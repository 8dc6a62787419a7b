package mrv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/examples/mrv"
)

// The units of the bundled policy, written down a second time on purpose.
const (
	gridGramsPerKwh   = 540
	fuelGramsPerLitre = 2680
	gramsPerUnit      = 1_000_000
)

func parse(t testing.TB, definition string) *mrv.Policy {
	t.Helper()
	p, err := mrv.ParsePolicy([]byte(definition))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func start(t testing.TB, p *mrv.Policy, script []mrv.Input) *mrv.Runner {
	t.Helper()
	r, err := mrv.New(p, script)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func bundledRun(t testing.TB, seed int64, years int) *mrv.Runner {
	t.Helper()
	return start(t, parse(t, string(mrv.Bundled())), mrv.Script(seed, years))
}

func runTo(t testing.TB, r *mrv.Runner, height uint64) {
	t.Helper()
	if err := r.Run(context.Background(), height); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, p *mrv.Policy, docs []mrv.Document) *mrv.Runner {
	t.Helper()
	r, err := mrv.Load(p, sequence(docs))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sequence(docs []mrv.Document) iter.Seq2[mrv.Document, error] {
	return func(yield func(mrv.Document, error) bool) {
		for _, d := range docs {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func documents(r *mrv.Runner) []mrv.Document { return slices.Collect(r.Documents()) }

// wantSame fails at the first difference of two states.
func wantSame(t testing.TB, got, want []mrv.Document) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i].Path != want[i].Path {
			t.Fatalf("document %d is %s, want %s", i, got[i].Path, want[i].Path)
		}
		if !bytes.Equal(got[i].Bytes, want[i].Bytes) {
			t.Fatalf("%s\n got %s\nwant %s", got[i].Path, got[i].Bytes, want[i].Bytes)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d documents, want %d", len(got), len(want))
	}
}

// replaced edits the bundled definition; the text must be there.
func replaced(t testing.TB, pairs ...string) string {
	t.Helper()
	s := string(mrv.Bundled())
	for i := 0; i+1 < len(pairs); i += 2 {
		if !strings.Contains(s, pairs[i]) {
			t.Fatalf("the bundled policy has no %q", pairs[i])
		}
		s = strings.Replace(s, pairs[i], pairs[i+1], 1)
	}
	return s
}

// mint is what the test reads of a mint_request.
type mint struct {
	Amount     int64  `json:"amount"`
	CreateDate string `json:"createDate"`
}

// minted lists the amounts of all mint requests by date.
func minted(t testing.TB, docs []mrv.Document) []int64 {
	t.Helper()
	var all []mint
	for _, d := range docs {
		if strings.HasPrefix(d.Path, "mint_request/") {
			all = append(all, decode[mint](t, d.Bytes))
		}
	}
	slices.SortFunc(all, func(a, b mint) int { return strings.Compare(a.CreateDate, b.CreateDate) })
	var out []int64
	for _, m := range all {
		out = append(out, m.Amount)
	}
	return out
}

// residue is what is kept below one unit.
func residue(t testing.TB, docs []mrv.Document) int64 {
	t.Helper()
	for _, d := range docs {
		if strings.HasPrefix(d.Path, "split_documents/") {
			return decode[struct {
				Value int64 `json:"value"`
			}](t, d.Bytes).Value
		}
	}
	t.Fatal("no residue in the state")
	return 0
}

// expectedMints works the amounts out from the script alone.
func expectedMints(t testing.TB, script []mrv.Input) (amounts []int64, rest int64) {
	t.Helper()
	var grams int64
	for _, in := range script {
		if in.Block == "monitoring_form" {
			rec := decode[map[string]any](t, in.Data)
			grams += int64(rec["energyKwh"].(float64))*gridGramsPerKwh - int64(rec["fuelLitres"].(float64))*fuelGramsPerLitre
		}
		if in.Block == "report_decision" && strings.Contains(string(in.Data), "Button_0") {
			if grams >= gramsPerUnit {
				amounts = append(amounts, grams/gramsPerUnit)
			}
			grams %= gramsPerUnit
		}
	}
	return amounts, grams
}

func decode[T any](t testing.TB, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}
