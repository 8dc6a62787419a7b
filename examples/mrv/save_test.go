package mrv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/examples/mrv"
)

// recordSaves lists the saves of a run as "height tag tag".
func recordSaves(r *mrv.Runner) *[]string {
	var got []string
	r.SetHooks(mrv.Hooks{Save: func(_ context.Context, s mrv.SavePoint) error {
		got = append(got, fmt.Sprintf("%d %s", s.Height, strings.Join(s.Blocks, " ")))
		return nil
	}})
	return &got
}

func TestSaveHeights(t *testing.T) {
	for seed := range int64(3) {
		r := bundledRun(t, seed, 3)
		saves := recordSaves(r)
		runTo(t, r, 0)
		want := []string{"6 registered", "32 report_submitted", "59 report_submitted", "86 report_submitted"}
		if !slices.Equal(*saves, want) {
			t.Errorf("seed %d: saves %v, want %v", seed, *saves, want)
		}
	}
}

func TestSaveHoldsTheStateOfItsHeight(t *testing.T) {
	type saved struct {
		point mrv.SavePoint
		docs  []mrv.Document
	}
	var all []saved
	r := bundledRun(t, 1, 3)
	r.SetHooks(mrv.Hooks{Save: func(_ context.Context, s mrv.SavePoint) error {
		if r.Height() != s.Height {
			t.Errorf("save of height %d at height %d", s.Height, r.Height())
		}
		all = append(all, saved{s, slices.Collect(s.Documents)})
		return nil
	}})
	runTo(t, r, 0)
	final := documents(r)
	p := parse(t, string(mrv.Bundled()))
	for _, s := range all {
		replay := bundledRun(t, 1, 3)
		runTo(t, replay, s.point.Height)
		wantSame(t, s.docs, documents(replay))
		wantSame(t, slices.Collect(s.point.Documents), s.docs) // the view has not moved
		restored := load(t, p, s.docs)
		later := recordSaves(restored)
		runTo(t, restored, 0)
		wantSame(t, documents(restored), final)
		if slices.ContainsFunc(*later, func(s2 string) bool { return strings.HasPrefix(s2, fmt.Sprint(s.point.Height, " ")) }) {
			t.Errorf("a run restored at %d saved that height again: %v", s.point.Height, *later)
		}
	}
	if len(all) != 4 {
		t.Errorf("%d saves", len(all))
	}
}

const anotherSave = `{"id": "another-save", "blockType": "saveStateBlock", "tag": "%s", "title": "one more", "when": "%s", "permissions": [], "events": []},
              {
                "id": "0b5f2c31-7a10-4e0c-8d55-000000000020",`

// withSave puts a save-state block ahead of report_submitted.
func withSave(t testing.TB, tag, when string) string {
	t.Helper()
	return replaced(t, `{
                "id": "0b5f2c31-7a10-4e0c-8d55-000000000020",`, fmt.Sprintf(anotherSave, tag, when))
}

func TestTwoSavesInOneStepAreOneCall(t *testing.T) {
	r := start(t, parse(t, withSave(t, "z_before", "exit")), mrv.Script(1, 1))
	saves := recordSaves(r)
	runTo(t, r, 31)
	res, err := r.Step(context.Background())
	if err != nil || !slices.Equal(res.Saved, []string{"report_submitted", "z_before"}) {
		t.Errorf("saved %v: %v", res.Saved, err)
	}
	if want := []string{"6 registered", "32 report_submitted z_before"}; !slices.Equal(*saves, want) {
		t.Errorf("saves %v, want %v", *saves, want)
	}
}

func TestEnterHoldsTheStateBeforeTheStep(t *testing.T) {
	p := parse(t, withSave(t, "ahead", "enter"))
	r := start(t, p, mrv.Script(1, 1))
	runTo(t, r, 31)
	before := documents(r)
	var seen []string
	r.SetHooks(mrv.Hooks{Save: func(_ context.Context, s mrv.SavePoint) error {
		seen = append(seen, fmt.Sprint(s.Height, s.Blocks))
		if s.Height == 31 {
			wantSame(t, slices.Collect(s.Documents), before)
		}
		return nil
	}})
	runTo(t, r, 32)
	if want := []string{"31 [ahead]", "32 [report_submitted]"}; !slices.Equal(seen, want) {
		t.Errorf("saves %v, want %v", seen, want)
	}
}

func TestSaveErrorStopsTheRun(t *testing.T) {
	full := errors.New("disk full")
	calls, broken := 0, true
	r := bundledRun(t, 1, 1)
	r.SetHooks(mrv.Hooks{Save: func(context.Context, mrv.SavePoint) error {
		calls++
		if broken {
			return full
		}
		return nil
	}})
	err := r.Run(context.Background(), 0)
	var stopped *mrv.SaveError
	if !errors.As(err, &stopped) || !errors.Is(err, full) || stopped.Height != 6 || !slices.Equal(stopped.Blocks, []string{"registered"}) {
		t.Fatalf("got %v", err)
	}
	if r.Height() != 6 || calls != 1 {
		t.Errorf("height %d after %d calls", r.Height(), calls)
	}
	if _, err := r.Step(context.Background()); !errors.Is(err, full) || r.Height() != 6 || calls != 2 {
		t.Errorf("the run went on without its save: %v, height %d, %d calls", err, r.Height(), calls)
	}
	broken = false
	runTo(t, r, 0)
	if calls != 4 { // the third try of height 6, and the report
		t.Errorf("%d calls", calls)
	}
	undisturbed := bundledRun(t, 1, 1)
	runTo(t, undisturbed, 0)
	wantSame(t, documents(r), documents(undisturbed))
}

func TestEnterErrorCommitsNothing(t *testing.T) {
	r := start(t, parse(t, withSave(t, "ahead", "enter")), mrv.Script(1, 1))
	runTo(t, r, 31)
	before := documents(r)
	r.SetHooks(mrv.Hooks{Save: func(context.Context, mrv.SavePoint) error { return errors.New("no") }})
	if _, err := r.Step(context.Background()); err == nil {
		t.Error("no error")
	}
	wantSame(t, documents(r), before)
}

func TestStepCutInTheMiddle(t *testing.T) {
	whole := bundledRun(t, 1, 1)
	runTo(t, whole, 0)
	r := bundledRun(t, 1, 1)
	for !r.Done() {
		before, height := documents(r), r.Height()
		calls := 0
		ctx, cancel := context.WithCancel(context.Background())
		r.SetHooks(mrv.Hooks{
			Mid: func(h uint64, tag string) {
				if calls++; h != height+1 || tag == "" {
					t.Errorf("mid of step %d: height %d, tag %q", height+1, h, tag)
				}
				panic("killed")
			},
			Save: func(context.Context, mrv.SavePoint) error { t.Error("saved a cut step"); return nil },
		})
		stepUntilKilled(t, ctx, r)
		wantSame(t, documents(r), before)
		cancel()
		if _, err := r.Step(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("a cancelled step: %v", err)
		}
		wantSame(t, documents(r), before)
		if calls != 1 || r.Height() != height {
			t.Fatalf("%d calls, height %d", calls, r.Height())
		}
		r.SetHooks(mrv.Hooks{})
		runTo(t, r, height+1)
	}
	wantSame(t, documents(r), documents(whole))
}

func stepUntilKilled(t *testing.T, ctx context.Context, r *mrv.Runner) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("the step was not cut")
		}
	}()
	_, err := r.Step(ctx)
	t.Errorf("the step ended with %v", err)
}

func TestCancelInTheMiddle(t *testing.T) {
	r := bundledRun(t, 1, 1)
	runTo(t, r, 2)
	before := documents(r)
	ctx, cancel := context.WithCancel(context.Background())
	r.SetHooks(mrv.Hooks{Mid: func(uint64, string) { cancel() }})
	if _, err := r.Step(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantSame(t, documents(r), before)
}

func TestEndlessChainCommitsNothing(t *testing.T) {
	const loop = `"entityType": "project",
            "options": [{"name": "status", "value": "Waiting for approval"}],
            "events": [`
	definition := replaced(t, loop[:len(loop)-1]+"[]", loop+`{"source": "project_save", "target": "project_save", "output": "RunEvent", "input": "RunEvent"}]`)
	r := start(t, parse(t, definition), mrv.Script(1, 1))
	runTo(t, r, 2)
	before := documents(r)
	var in *mrv.BlockError
	_, err := r.Step(context.Background())
	if !errors.Is(err, mrv.ErrChainTooLong) || !errors.As(err, &in) {
		t.Fatalf("got %v", err)
	}
	wantSame(t, documents(r), before)
}

func TestStepsFromHooksAndReaders(t *testing.T) {
	r := bundledRun(t, 1, 1)
	r.SetHooks(mrv.Hooks{Step: func(res mrv.StepResult) {
		if _, err := r.Step(context.Background()); !errors.Is(err, mrv.ErrBusy) {
			t.Errorf("a step from a hook: %v", err)
		}
		if r.Height() != res.Height {
			t.Errorf("height %d in the hook of step %d", r.Height(), res.Height)
		}
	}})
	readers := make(chan int)
	go func() { // for the race detector
		n := 0
		for !r.Done() {
			for range r.Documents() {
				n++
			}
		}
		readers <- n
	}()
	runTo(t, r, 0)
	if <-readers == 0 && r.Height() == 0 {
		t.Error("nothing was read")
	}
}

func TestDocumentsAreCopies(t *testing.T) {
	r := bundledRun(t, 1, 1)
	before := documents(r)
	for d := range r.Documents() {
		clear(d.Bytes)
	}
	wantSame(t, documents(r), before)
}
