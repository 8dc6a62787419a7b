package savepoints_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new/bank")
	b, err := savepoints.Init(ctx, dir, savepoints.InitOptions{Origin: "log.example/mine"})
	must(t, err)
	if b.Origin() != "log.example/mine" {
		t.Errorf("origin %q", b.Origin())
	}
	head, err := b.Head(ctx, "")
	if err != nil || head.Size != 0 || head.Origin != b.Origin() {
		t.Errorf("head %+v, %v", head, err)
	}
	if _, ok := b.LogRoot(ctx, savepoints.LogID(b.Origin())); !ok {
		t.Error("the log is not found by its id")
	}
	if _, ok := b.LogRoot(ctx, savepoints.LogID("other")); ok {
		t.Error("another log is found")
	}
	must(t, b.Close())
	if _, err := savepoints.Init(ctx, dir, savepoints.InitOptions{}); !errors.Is(err, savepoints.ErrLogExists) {
		t.Errorf("init of a bank: %v", err)
	}
	for _, origin := range []string{"with space", "a+b", "new\nline", strings.Repeat("x", 256)} {
		if _, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "x"), savepoints.InitOptions{Origin: origin}); !errors.Is(err, savepoints.ErrUsage) || !errors.Is(err, anchor.ErrOrigin) {
			t.Errorf("origin %q: %v", origin, err)
		}
	}
	if _, err := savepoints.Open(ctx, t.TempDir()); !errors.Is(err, node.ErrNoRepo) {
		t.Errorf("open of an empty folder: %v", err)
	}
}

// A bank without a log reads, and does not take.
func TestReaderBank(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reader")
	b, err := savepoints.OpenReader(ctx, dir)
	must(t, err)
	defer b.Close()
	if _, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, savepoints.ErrNoLogKey) {
		t.Errorf("take: %v", err)
	}
	if _, err := b.TrustPolicy(); !errors.Is(err, savepoints.ErrNoLogKey) || b.Origin() != "" {
		t.Errorf("policy of its own: %v", err)
	}
	if _, err := b.Head(ctx, ""); !errors.Is(err, savepoints.ErrNoLogKey) {
		t.Errorf("head: %v", err)
	}
	if _, err := b.Head(ctx, "x"); !errors.Is(err, savepoints.ErrNoTrust) {
		t.Errorf("head of an unknown log: %v", err)
	}
	if len(list(t, b)) != 0 {
		t.Error("it holds something")
	}
	must(t, b.Close())
	b, err = savepoints.OpenReader(ctx, dir)
	must(t, err)
	must(t, b.Close())
}

func TestTake(t *testing.T) {
	b := initBank(t)
	s := someState()
	first := take(t, b, s, "p")
	if first.Changed != uint64(len(s)) || first.NewBlocks == 0 || first.NewBytes < s.totals().Bytes || first.Existing || first.LogIndex != 0 {
		t.Errorf("first: %+v", first)
	}
	m := first.Manifest
	if m.Sequence != 1 || m.Parent != nil || m.Epoch != 0 || m.Height != nil || m.Provider.Name != "folder" ||
		len(m.Triggers) != 1 || m.Triggers[0].Kind != dag.TriggerManual || m.Policy.ID != "p" || m.Consistency.Method != "memory" {
		t.Errorf("manifest: %+v", m)
	}
	checkDocuments(t, b, first.Savepoint, s)

	// One replaced, one added, one removed.
	next := s.with("credentials/007.json", "new").with("added.json", "added")
	delete(next, "credentials/099.json")
	second, err := b.Take(ctx, next, savepoints.TakeOptions{Policy: "p", Blocks: []string{"z", "a", "z"}, Height: uintPtr(5), Provider: "x", Version: "v1"})
	must(t, err)
	if second.Changed != 3 || second.NewBlocks > 12 || second.LogIndex != 1 {
		t.Errorf("second: changed %d, new %d", second.Changed, second.NewBlocks)
	}
	m = second.Manifest
	if m.Sequence != 2 || m.Parent == nil || m.Parent.Savepoint != first.CID || m.Parent.Sequence != 1 || *m.Height != 5 ||
		!slices.Equal(second.Blocks(), []string{"a", "z"}) || m.Provider.Name != "x" || m.Tool.Version != "v1" {
		t.Errorf("manifest: %+v", m)
	}
	checkDocuments(t, b, second.Savepoint, next)

	// Nothing changed: only the manifest is new.
	third := take(t, b, next, "p")
	if third.Changed != 0 || third.NewBlocks != 1 || third.Manifest.State != second.Manifest.State || third.CID == second.CID {
		t.Errorf("third: %+v", third)
	}
	checkDocuments(t, b, first.Savepoint, s) // the past stays
	if err := b.VerifyLog(ctx, b.Origin()); err != nil {
		t.Error(err)
	}

	b = reopen(t, b)
	got := list(t, b)
	if len(got) != 3 || got[0].CID != first.CID || got[1].CID != second.CID || got[2].CID != third.CID {
		t.Fatalf("%d are listed", len(got))
	}
	checkDocuments(t, b, got[1], next)
	if fourth := take(t, b, smallState(1), "p"); fourth.Entry.Sequence != 4 {
		t.Errorf("sequence %d after a reopen", fourth.Entry.Sequence)
	}
}

// An empty state is a state.
func TestTakeNothing(t *testing.T) {
	b := initBank(t)
	taken := take(t, b, state{}, "p")
	checkDocuments(t, b, taken.Savepoint, state{})
}

// The state's CID depends on nothing but paths and bytes.
func TestStateCIDIsAFunction(t *testing.T) {
	one, other := initBank(t), initBank(t)
	s := someState()
	take(t, other, smallState(0), "first")
	take(t, other, s.with("extra", "x"), "p")
	a, b := take(t, one, s, "p"), take(t, other, s, "p")
	if a.Manifest.State != b.Manifest.State {
		t.Errorf("%s and %s", a.Manifest.State, b.Manifest.State)
	}
	if a.CID == b.CID {
		t.Error("two instances made one manifest")
	}
}

// Time in the log never goes back, whatever the clock does.
func TestClockGoesBack(t *testing.T) {
	b := initBank(t)
	start := time.Date(2026, 5, 6, 7, 8, 9, 10, time.FixedZone("", 7200))
	var last time.Time
	for i, shift := range []time.Duration{0, time.Hour, -24 * time.Hour, 0, 2 * time.Hour, -1} {
		if i == 4 {
			b = reopen(t, b)
		}
		policy := []string{"p", "q"}[i%2]
		taken, err := b.Take(ctx, smallState(i), savepoints.TakeOptions{Policy: policy, Now: func() time.Time { return start.Add(shift) }})
		must(t, err)
		now := taken.Manifest.Time
		if now.Before(last) || now.Location() != time.UTC || shift > 0 && !now.Equal(start.Add(shift)) {
			t.Errorf("take %d at %v after %v", i, now, last)
		}
		last = now
	}
}

func TestHeights(t *testing.T) {
	b := initBank(t)
	at := func(s state, h *uint64) (savepoints.Taken, error) {
		return b.Take(ctx, s, savepoints.TakeOptions{Policy: "p", Height: h})
	}
	one, two := smallState(1), smallState(2)
	first, err := at(one, uintPtr(10))
	must(t, err)
	again, err := at(one, uintPtr(10))
	if err != nil || !again.Existing || again.CID != first.CID {
		t.Errorf("same height, same state: %+v, %v", again, err)
	}
	if _, err := at(two, uintPtr(10)); !errors.Is(err, savepoints.ErrConflict) {
		t.Errorf("same height, other state: %v", err)
	}
	if _, err := at(one, uintPtr(9)); !errors.Is(err, savepoints.ErrConflict) {
		t.Errorf("lower height: %v", err)
	}
	if _, err := at(one, nil); err != nil {
		t.Errorf("without height: %v", err)
	}
	b = reopen(t, b)
	// A save point without height between does not make heights fall.
	if _, err := at(two, uintPtr(9)); !errors.Is(err, savepoints.ErrConflict) {
		t.Errorf("lower height after one without: %v", err)
	}
	again, err = at(one, uintPtr(10))
	if err != nil || !again.Existing || again.CID != first.CID {
		t.Errorf("same height, same state, after one without: %+v, %v", again.CID, err)
	}
	if _, err := at(two, uintPtr(10)); !errors.Is(err, savepoints.ErrConflict) {
		t.Errorf("same height, other state, after one without: %v", err)
	}
	if next, err := at(two, uintPtr(11)); err != nil || next.Entry.Sequence != 3 {
		t.Errorf("higher: %v", err)
	}
	// Heights are each policy's own.
	if _, err := b.Take(ctx, one, savepoints.TakeOptions{Policy: "q", Height: uintPtr(0)}); err != nil {
		t.Errorf("another policy: %v", err)
	}
	if n := len(list(t, b)); n != 4 {
		t.Errorf("%d save points", n)
	}
	if _, err := at(two, uintPtr(1<<63)); err == nil {
		t.Error("a height of 64 bits")
	}
}

func TestTakeRefuses(t *testing.T) {
	b := initBank(t)
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		source savepoints.Source
		o      savepoints.TakeOptions
		want   error
	}{
		"no policy":        {state{}, savepoints.TakeOptions{}, savepoints.ErrUsage},
		"policy with /":    {state{}, savepoints.TakeOptions{Policy: "a/b"}, savepoints.ErrUsage},
		"bad block":        {state{}, savepoints.TakeOptions{Policy: "p", Blocks: []string{"ok", ""}}, savepoints.ErrUsage},
		"bad name":         {state{"a": "x", "../b": "x"}, savepoints.TakeOptions{Policy: "p"}, dag.ErrName},
		"below a document": {state{"a": "x", "a/b": "x"}, savepoints.TakeOptions{Policy: "p"}, dag.ErrName},
		"listing fails":    {failing{list: boom}, savepoints.TakeOptions{Policy: "p"}, boom},
		"open fails":       {failing{open: boom}, savepoints.TakeOptions{Policy: "p"}, boom},
		"read fails":       {failing{read: boom}, savepoints.TakeOptions{Policy: "p"}, boom},
		"cut":              {failing{consistency: boom}, savepoints.TakeOptions{Policy: "p"}, boom},
	} {
		before := b.Repo().Blocks.Len()
		if _, err := b.Take(ctx, c.source, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if errors.Is(c.want, dag.ErrName) && b.Repo().Blocks.Len() != before {
			t.Errorf("%s: something was written", name)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Take(ended, smallState(1), savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	if len(list(t, b)) != 0 {
		t.Error("something was taken")
	}
	if taken := take(t, b, smallState(1), "p"); taken.Entry.Sequence != 1 || taken.LogIndex != 0 {
		t.Errorf("afterwards: %+v", taken.Entry)
	}
}

// failing is a source of which one part fails.
type failing struct{ list, open, read, consistency error }

func (f failing) Documents(context.Context) iter.Seq2[savepoints.Document, error] {
	return func(yield func(savepoints.Document, error) bool) {
		open := func() (io.ReadCloser, error) {
			if f.open != nil {
				return nil, f.open
			}
			return io.NopCloser(readerFunc(func([]byte) (int, error) {
				if f.read != nil {
					return 0, f.read
				}
				return 0, io.EOF
			})), nil
		}
		if yield(savepoints.Document{Path: "a", Open: open}, nil) && f.list != nil {
			yield(savepoints.Document{}, f.list)
		}
	}
}

func (f failing) Consistency(context.Context) (dag.Consistency, error) {
	return dag.Consistency{Method: "x"}, f.consistency
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
