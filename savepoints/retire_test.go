package savepoints_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

func retired(t *testing.T, b *savepoints.Bank) []savepoints.Savepoint {
	t.Helper()
	l, err := b.Retired(ctx)
	must(t, err)
	return l
}

// A crash anywhere while a save point is retired: the entry decides, and what it says is
// done when the repository is opened.
func TestRetireIsFinished(t *testing.T) {
	for name, undo := range map[string]func(t *testing.T, b *savepoints.Bank, before files, receipt string, s savepoints.Savepoint){
		"before the receipt was put aside": func(t *testing.T, b *savepoints.Bank, before files, receipt string, s savepoints.Savepoint) {
			must(t, os.Remove(strings.Replace(receipt, "/receipts/", "/retired/", 1)))
			must(t, os.WriteFile(receipt, before[receipt], 0o600))
			must(t, os.WriteFile(filepath.Join(b.Repo().Dir(), "meta/pins", s.CID.String()), []byte("p"), 0o600))
		},
		"before it was unpinned": func(t *testing.T, b *savepoints.Bank, before files, receipt string, s savepoints.Savepoint) {
			must(t, os.WriteFile(receipt, before[receipt], 0o600))
			must(t, os.WriteFile(filepath.Join(b.Repo().Dir(), "meta/pins", s.CID.String()), []byte("p"), 0o600))
		},
		"before the receipt was deleted": func(t *testing.T, _ *savepoints.Bank, before files, receipt string, _ savepoints.Savepoint) {
			must(t, os.WriteFile(receipt, before[receipt], 0o600))
		},
		"the records are lost": func(t *testing.T, b *savepoints.Bank, _ files, _ string, _ savepoints.Savepoint) {
			must(t, os.RemoveAll(filepath.Join(b.Repo().Dir(), "meta/retired")))
			must(t, os.RemoveAll(filepath.Join(b.Repo().Dir(), "meta/receipts")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := initBank(t)
			var taken []savepoints.Taken
			for i := range 3 {
				taken = append(taken, take(t, b, smallState(i), "p"))
			}
			before, receipt := snapshot(t, b), receiptFiles(t, b)[1]
			must(t, b.Retire(ctx, taken[1].Savepoint))
			must(t, b.Close())
			undo(t, b, before, receipt, taken[1].Savepoint)
			b = openBank(t, b.Repo().Dir())
			if l := retired(t, b); len(l) != 1 || l[0].CID != taken[1].CID {
				t.Errorf("retired: %v", l)
			}
			if pinned(t, b, taken[1].Savepoint) || !pinned(t, b, taken[0].Savepoint) || len(list(t, b)) != 2 {
				t.Error("what is pinned and listed is not what is kept")
			}
			_, err := b.Collect(ctx, segments.CollectOptions{All: true})
			must(t, err)
			if s := take(t, b, smallState(9), "p"); s.Entry.Sequence != 4 || s.Manifest.Parent.Savepoint != taken[2].CID {
				t.Errorf("the one after: %+v", s.Entry)
			}
			for _, s := range list(t, b) {
				_, err := b.Verify(ctx, s)
				must(t, err)
			}
		})
	}
}

// The newest one is retired and its blocks are gone: the next one still follows it.
func TestTakeAfterTheLastIsRetired(t *testing.T) {
	b := initBank(t)
	last, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Height: uintPtr(7)})
	must(t, err)
	must(t, b.Retire(ctx, last.Savepoint))
	_, err = b.Collect(ctx, segments.CollectOptions{All: true})
	must(t, err)
	b = reopen(t, b)
	for _, h := range []uint64{6, 7} {
		if _, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Height: uintPtr(h)}); !errors.Is(err, savepoints.ErrConflict) {
			t.Errorf("height %d: %v", h, err)
		}
	}
	s, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Height: uintPtr(8)})
	must(t, err)
	if s.Entry.Sequence != 2 || s.Manifest.Parent.Savepoint != last.CID || s.Changed != 3 {
		t.Errorf("%+v, %d changed", s.Entry, s.Changed)
	}
	if err := b.Retire(ctx, last.Savepoint); !errors.Is(err, savepoints.ErrConflict) || !errors.Is(err, entry.ErrRule) {
		t.Errorf("retired twice: %v", err)
	}
	checkAppends(t, b)
}

// A refused entry leaves the log as it was.
func checkAppends(t *testing.T, b *savepoints.Bank) {
	t.Helper()
	before, err := b.Head(ctx, "")
	must(t, err)
	index, err := b.Note(ctx, "still here")
	must(t, err)
	if index != before.Size {
		t.Errorf("entry %d in a log of %d", index, before.Size)
	}
	if _, err := b.Note(ctx, strings.Repeat("x", entry.MaxNote+1)); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("a long note: %v", err)
	}
}

// Save points of other logs are not retired here.
func TestRetireOfAnotherLog(t *testing.T) {
	other := initBank(t)
	s := take(t, other, smallState(1), "p")
	b := initBank(t)
	if err := b.Retire(ctx, s.Savepoint); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("in a log of its own: %v", err)
	}
	r, _ := reader(t, other)
	if err := r.Retire(ctx, s.Savepoint); !errors.Is(err, savepoints.ErrNoLogKey) {
		t.Errorf("by a reader: %v", err)
	}
}

// After a freeze nothing is taken, nor pinned; what was taken before is still found.
func TestFreeze(t *testing.T) {
	b := initBank(t)
	last := savepoints.TakeOptions{Policy: "p", Height: uintPtr(7)}
	first, err := b.Take(ctx, smallState(1), last)
	must(t, err)
	_, err = b.Freeze(ctx)
	must(t, err)
	for range 2 {
		if _, err := b.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "p", Height: uintPtr(8)}); !errors.Is(err, entry.ErrFrozen) {
			t.Errorf("take: %v", err)
		} else if text := err.Error(); !strings.Contains(text, b.Origin()+" is frozen") || !strings.Contains(text, "--new-log") || strings.Contains(text, "conflict") {
			t.Errorf("it does not say what follows: %v", err)
		}
		again, err := b.Take(ctx, smallState(1), last)
		must(t, err)
		if !again.Existing || again.CID != first.CID {
			t.Errorf("taken again: %+v", again)
		}
		if _, err := b.Take(ctx, smallState(2), last); !errors.Is(err, savepoints.ErrConflict) {
			t.Errorf("another state at the height: %v", err)
		}
		b = reopen(t, b)
	}
	if l := list(t, b); len(l) != 1 {
		t.Errorf("%d save points", len(l))
	}
	pins, err := b.Repo().Pins()
	must(t, err)
	for _, p := range pins {
		if p.Name == "p" && p.CID != first.CID {
			t.Errorf("%s is pinned", p.CID)
		}
	}
}
