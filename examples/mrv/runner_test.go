package mrv_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/examples/mrv"
)

func TestTwoRunsAreEqual(t *testing.T) {
	a, b := bundledRun(t, 1, 3), bundledRun(t, 1, 3)
	wantSame(t, documents(a), documents(b))
	for !a.Done() {
		res, err := a.Step(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if other, err := b.Step(context.Background()); err != nil || other.What != res.What {
			t.Fatalf("step %d: %q and %q (%v)", res.Height, res.What, other.What, err)
		}
		wantSame(t, documents(b), documents(a))
	}
	other := bundledRun(t, 2, 3)
	runTo(t, other, 0)
	if slices.EqualFunc(documents(a), documents(other), func(x, y mrv.Document) bool { return x.Path == y.Path }) {
		t.Error("another seed gives the same ids")
	}
}

func TestHeightsHaveNoGaps(t *testing.T) {
	r := bundledRun(t, 1, 2)
	for want := uint64(1); !r.Done(); want++ {
		res, err := r.Step(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if res.Height != want || r.Height() != want || res.What == "" || strings.Contains(res.What, "\n") {
			t.Fatalf("step %d gave %+v, height %d", want, res, r.Height())
		}
	}
	if r.Height() != 6+27*2 {
		t.Errorf("2 years took %d steps", r.Height())
	}
	if _, err := r.Step(context.Background()); !errors.Is(err, mrv.ErrDone) {
		t.Errorf("a step after the end: %v", err)
	}
	if r.Height() != 60 {
		t.Errorf("a step after the end moved the height to %d", r.Height())
	}
}

func TestFinalState(t *testing.T) {
	r := bundledRun(t, 1, 3)
	runTo(t, r, 0)
	docs := documents(r)
	if len(docs) < 100 || len(docs) > 200 {
		t.Errorf("%d documents", len(docs))
	}
	if !slices.IsSortedFunc(docs, func(a, b mrv.Document) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("documents are not sorted by path")
	}
	count := map[string]int{}
	for _, d := range docs {
		collection, _, _ := strings.Cut(d.Path, "/")
		count[collection]++
		if !json.Valid(d.Bytes) {
			t.Errorf("%s is no JSON", d.Path)
		}
		if collection == "vc_document" && (len(d.Bytes) < 512 || len(d.Bytes) > 3072) {
			t.Errorf("%s has %d bytes", d.Path, len(d.Bytes))
		}
	}
	for collection, want := range map[string]int{"vc_document": 2 + 3*25, "vp_document": 3, "mint_request": 3, "inputs": 0, "aggregate_vc": 0, "policy_roles": 2, "timers": 1} {
		if count[collection] != want {
			t.Errorf("%d documents in %s, want %d", count[collection], collection, want)
		}
	}
}

func TestEveryHeightGoesOn(t *testing.T) {
	whole := bundledRun(t, 1, 3)
	p := parse(t, string(mrv.Bundled()))
	var states [][]mrv.Document
	for states = append(states, documents(whole)); !whole.Done(); states = append(states, documents(whole)) {
		if _, err := whole.Step(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	final := documents(whole)
	for h, state := range states {
		r := load(t, p, state)
		if r.Height() != uint64(h) {
			t.Fatalf("state of height %d loads as %d", h, r.Height())
		}
		wantSame(t, documents(r), state)
		runTo(t, r, 0)
		wantSame(t, documents(r), final)
	}
}

func TestSeedsRestoreAndMint(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	p := parse(t, string(mrv.Bundled()))
	for range 12 {
		seed, years := rng.Int64(), 1+rng.IntN(4)
		script := mrv.Script(seed, years)
		whole := start(t, p, script)
		stop := 1 + rng.Uint64N(uint64(6+27*years))
		runTo(t, whole, stop)
		restored := documents(whole)
		rng.Shuffle(len(restored), func(i, j int) { restored[i], restored[j] = restored[j], restored[i] })
		again := load(t, p, restored)
		runTo(t, whole, 0)
		runTo(t, again, 0)
		wantSame(t, documents(again), documents(whole))
		amounts, rest := expectedMints(t, script)
		if got := minted(t, documents(again)); !slices.Equal(got, amounts) {
			t.Errorf("seed %d, stop %d: minted %v, want %v", seed, stop, got, amounts)
		}
		if got := residue(t, documents(again)); got != rest {
			t.Errorf("seed %d: residue %d, want %d", seed, got, rest)
		}
	}
}

func TestResidueChangesAMint(t *testing.T) {
	// Without the carry each year would be rounded down by itself.
	script := mrv.Script(1, 3)
	r := bundledRun(t, 1, 3)
	runTo(t, r, 0)
	var yearly, alone int64
	for _, in := range script {
		switch in.Block {
		case "monitoring_form":
			rec := decode[map[string]any](t, in.Data)
			yearly += int64(rec["energyKwh"].(float64))*gridGramsPerKwh - int64(rec["fuelLitres"].(float64))*fuelGramsPerLitre
		case "report_decision":
			alone += yearly / gramsPerUnit
			yearly = 0
		}
	}
	var total int64
	for _, n := range minted(t, documents(r)) {
		total += n
	}
	if total <= alone {
		t.Errorf("minted %d, and %d without a carry: the residue has no effect", total, alone)
	}
}

func TestYearBelowOneUnit(t *testing.T) {
	script := mrv.Script(3, 2)
	for i, in := range script {
		if in.Block == "monitoring_form" && in.At.Before(time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)) {
			rec := decode[map[string]any](t, in.Data)
			rec["energyKwh"], rec["fuelLitres"] = 70, 1
			script[i].Data = encode(t, rec)
		}
	}
	r := start(t, parse(t, string(mrv.Bundled())), script)
	runTo(t, r, 33) // the first report is approved
	if got := minted(t, documents(r)); got != nil {
		t.Errorf("minted %v", got)
	}
	if got := residue(t, documents(r)); got != 24*(70*gridGramsPerKwh-fuelGramsPerLitre) {
		t.Errorf("residue %d", got)
	}
	runTo(t, r, 0)
	amounts, _ := expectedMints(t, script)
	if got := minted(t, documents(r)); len(amounts) != 1 || !slices.Equal(got, amounts) {
		t.Errorf("minted %v, want %v", got, amounts)
	}
}

func TestLateDecisionOpensThePeriodAtOnce(t *testing.T) {
	script := mrv.Script(6, 2)
	late := time.Date(2028, 1, 10, 0, 0, 0, 0, time.UTC) // after the second tick was due
	i := slices.IndexFunc(script, func(in mrv.Input) bool { return in.Block == "report_decision" })
	script[i].At = late
	r := start(t, parse(t, string(mrv.Bundled())), script)
	runTo(t, r, 33)
	res, err := r.Step(context.Background())
	if err != nil || res.What != "2028-01-10 timer open_period: tick 2" {
		t.Errorf("after a late decision: %q (%v)", res.What, err)
	}
	runTo(t, r, 0)
	if r.Height() != 60 {
		t.Errorf("height %d", r.Height())
	}
}

func TestTimerComesBeforeAnInputOfTheSameTime(t *testing.T) {
	script := mrv.Script(6, 1)
	script[6].At = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) // the first record, as the period opens
	r := start(t, parse(t, string(mrv.Bundled())), script)
	runTo(t, r, 6)
	if res, err := r.Step(context.Background()); err != nil || res.What != "2027-01-01 timer open_period: tick 1" {
		t.Errorf("%q (%v)", res.What, err)
	}
	runTo(t, r, 8)
}

func TestSumThatLeaves64Bits(t *testing.T) {
	definition := replaced(t, `"gridGramsPerKwh": 540`, `"gridGramsPerKwh": 9000000000000000000`)
	r := start(t, parse(t, definition), mrv.Script(1, 1))
	var in *mrv.BlockError
	if err := r.Run(context.Background(), 0); !errors.As(err, &in) || in.Tag != "emission_reduction" {
		t.Errorf("got %v", err)
	}
	if r.Height() != 30 {
		t.Errorf("height %d", r.Height())
	}
}

func TestReturnedReportIsSubmittedAgain(t *testing.T) {
	script := mrv.Script(4, 1)
	i := slices.IndexFunc(script, func(in mrv.Input) bool { return in.Block == "report_decision" })
	back := script[i]
	back.Data = json.RawMessage(`{"button":"Button_1","comment":"The narrative is too short."}`)
	script = slices.Insert(script, i, back, script[i-1])
	script[i+1].At = back.At
	r := start(t, parse(t, string(mrv.Bundled())), script)
	saves := recordSaves(r)
	runTo(t, r, 0)
	if want := []string{"6 registered", "32 report_submitted", "34 report_submitted"}; !slices.Equal(*saves, want) {
		t.Errorf("saves %v, want %v", *saves, want)
	}
	amounts, _ := expectedMints(t, script)
	if got := minted(t, documents(r)); len(got) != 1 || !slices.Equal(got, amounts) {
		t.Errorf("minted %v, want %v", got, amounts)
	}
}

func TestInputsThatAreRefused(t *testing.T) {
	script := mrv.Script(5, 1)
	developer, verifier, later := script[0].User, script[1].User, script[5].At
	project := string(script[2].Data)
	for name, c := range map[string]struct {
		place int // how many inputs of the script come first
		input mrv.Input
	}{
		"form before a role":   {0, mrv.Input{At: script[0].At, User: developer, Block: "project_form", Data: script[2].Data}},
		"wrong role":           {2, mrv.Input{At: later, User: verifier, Block: "project_form", Data: script[2].Data}},
		"second role":          {2, mrv.Input{At: later, User: verifier, Block: "choose_role", Data: json.RawMessage(`{"role":"PROJECT_DEVELOPER"}`)}},
		"no such role":         {0, mrv.Input{At: script[0].At, User: developer, Block: "choose_role", Data: json.RawMessage(`{"role":"ADMIN"}`)}},
		"missing field":        {2, mrv.Input{At: later, User: developer, Block: "project_form", Data: json.RawMessage(`{"projectId":"PRJ-1"}`)}},
		"unknown field":        {2, mrv.Input{At: later, User: developer, Block: "project_form", Data: json.RawMessage(strings.Replace(project, "{", `{"extra":1,`, 1))}},
		"text for an integer":  {2, mrv.Input{At: later, User: developer, Block: "project_form", Data: json.RawMessage(strings.Replace(project, `"creditingYears":1`, `"creditingYears":"1"`, 1))}},
		"out of range":         {2, mrv.Input{At: later, User: developer, Block: "project_form", Data: json.RawMessage(strings.Replace(project, `"creditingYears":1`, `"creditingYears":101`, 1))}},
		"not active":           {2, mrv.Input{At: later, User: verifier, Block: "project_decision", Data: script[5].Data}},
		"no such button":       {3, mrv.Input{At: later, User: verifier, Block: "project_decision", Data: json.RawMessage(`{"button":"Button_9"}`)}},
		"period not open":      {6, mrv.Input{At: later, User: developer, Block: "monitoring_form", Data: script[6].Data}},
		"read-only field":      {30, mrv.Input{At: script[29].At, User: developer, Block: "report_form", Data: json.RawMessage(`{"preparedBy":"x","narrative":"x","deviations":"x","reductionGrams":9000000}`)}},
		"report before its 24": {20, mrv.Input{At: script[19].At, User: developer, Block: "report_form", Data: script[30].Data}},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, parse(t, string(mrv.Bundled())), append(slices.Clone(script[:c.place]), c.input))
			var refused *mrv.InputError
			err := r.Run(context.Background(), 0)
			if !errors.As(err, &refused) || !errors.Is(err, mrv.ErrInputRefused) || refused.Index != c.place+1 || refused.Block != c.input.Block {
				t.Fatalf("got %v", err)
			}
			before, height := documents(r), r.Height()
			if _, again := r.Step(context.Background()); again == nil || again.Error() != err.Error() {
				t.Errorf("a second try gives %v", again)
			}
			wantSame(t, documents(r), before)
			if r.Height() != height || r.Done() {
				t.Errorf("height %d, done %t", r.Height(), r.Done())
			}
		})
	}
}

func TestScriptsThatNoRunCouldTake(t *testing.T) {
	good := mrv.Script(1, 1)
	for name, change := range map[string]func(in *mrv.Input){
		"unknown block":       func(in *mrv.Input) { in.Block = "nowhere" },
		"block without users": func(in *mrv.Input) { in.Block = "project_save" },
		"back in time":        func(in *mrv.Input) { in.At = good[0].At.Add(-time.Hour) },
		"no DID":              func(in *mrv.Input) { in.User = "somebody" },
		"no object":           func(in *mrv.Input) { in.Data = json.RawMessage(`[1]`) },
		"null":                func(in *mrv.Input) { in.Data = json.RawMessage(`null`) },
		"no JSON":             func(in *mrv.Input) { in.Data = json.RawMessage(`{`) },
	} {
		script := slices.Clone(good)
		change(&script[3])
		var bad *mrv.InputError
		_, err := mrv.New(parse(t, string(mrv.Bundled())), script)
		if !errors.As(err, &bad) || !errors.Is(err, mrv.ErrInvalidInput) || bad.Index != 4 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestScriptBounds(t *testing.T) {
	if n := len(mrv.Script(1, 0)); n != len(mrv.Script(1, 1)) {
		t.Errorf("0 years give %d inputs", n)
	}
	if n := len(mrv.Script(1, 5000)); n != 6+26*100 {
		t.Errorf("5000 years give %d inputs", n)
	}
}

func encode(t testing.TB, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
