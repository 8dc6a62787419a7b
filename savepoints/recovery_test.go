package savepoints_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// Receipts of the own log that are gone, or damaged, are made again from the log.
func TestLostReceipts(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, []string){
		"last":    func(t *testing.T, r []string) { must(t, os.Remove(r[3])) },
		"first":   func(t *testing.T, r []string) { must(t, os.Remove(r[0])) },
		"middle":  func(t *testing.T, r []string) { must(t, os.Remove(r[1])); must(t, os.Remove(r[2])) },
		"all":     func(t *testing.T, r []string) { must(t, os.RemoveAll(filepath.Dir(r[0]))) },
		"damaged": func(t *testing.T, r []string) { damage(t, r[1], 100) },
		"empty":   func(t *testing.T, r []string) { must(t, os.WriteFile(r[3], nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := initBank(t)
			for i := range 4 {
				take(t, b, smallState(i), []string{"p", "q"}[i%2])
			}
			before := list(t, b)
			must(t, b.Close())
			lose(t, receiptFiles(t, b))
			b = openBank(t, b.Repo().Dir())
			after := checkHistory(t, b)
			for i := range before {
				if after[i].CID != before[i].CID {
					t.Errorf("%d: %s became %s", i, before[i].CID, after[i].CID)
				}
			}
			if s := take(t, b, smallState(9), "q"); s.Entry.Sequence != 3 {
				t.Errorf("sequence %d follows", s.Entry.Sequence)
			}
			checkHistory(t, b)
		})
	}
}

// files is a copy of the small files of a bank, as they were at a moment.
type files map[string][]byte

func snapshot(t *testing.T, b *savepoints.Bank) files {
	t.Helper()
	out := files{}
	meta := filepath.Join(b.Repo().Dir(), "meta")
	must(t, filepath.WalkDir(meta, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = data
		return err
	}))
	return out
}

func (f files) restore(t *testing.T, b *savepoints.Bank) {
	t.Helper()
	must(t, os.RemoveAll(filepath.Join(b.Repo().Dir(), "meta")))
	must(t, os.MkdirAll(filepath.Join(b.Repo().Dir(), "meta"), 0o700))
	for path, data := range f {
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, data, 0o600))
	}
}

// pendingOf makes what a crash between the pin and the log's new head leaves:
// IPFS blocks are there, the manifest is pinned and noted as pending, and the
// head is the old one.
func pendingOf(t *testing.T, b *savepoints.Bank, s state, policy string) (*savepoints.Bank, savepoints.Taken) {
	t.Helper()
	before := snapshot(t, b)
	lost := take(t, b, s, policy)
	must(t, b.Close())
	key := lost.Entry.Policy
	meta := filepath.Join(b.Repo().Dir(), "meta")
	before[filepath.Join(meta, "pins", lost.CID.String())] = []byte(policy)
	before[filepath.Join(meta, "pending", hexOf(key[:]))] = []byte(lost.CID.String())
	before.restore(t, b)
	return openBank(t, b.Repo().Dir()), lost
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, x := range b {
		out = append(out, digits[x>>4], digits[x&15])
	}
	return string(out)
}

func pinned(t *testing.T, b *savepoints.Bank, s savepoints.Savepoint) bool {
	t.Helper()
	ok, err := b.Repo().Pinned(s.CID)
	must(t, err)
	return ok
}

// A save point that a crash left pending keeps its CID if the state is the same.
func TestPendingIsUsedAgain(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	b, lost := pendingOf(t, b, smallState(1), "p")
	if n := len(list(t, b)); n != 1 {
		t.Fatalf("%d save points after the crash", n)
	}
	again := take(t, b, smallState(1), "p")
	if again.CID != lost.CID {
		t.Errorf("%s became %s", lost.CID, again.CID)
	}
	if next := take(t, b, smallState(1), "p"); next.CID == lost.CID || next.Entry.Sequence != 3 {
		t.Errorf("the next one is %+v", next.Entry)
	}
	checkHistory(t, reopen(t, b))
}

// If the state is another one by then, it is forgotten.
func TestPendingIsForgotten(t *testing.T) {
	b := initBank(t)
	b, lost := pendingOf(t, b, smallState(1), "p")
	if s := take(t, b, smallState(2), "p"); s.CID == lost.CID || s.Entry.Sequence != 1 {
		t.Errorf("%+v", s.Entry)
	}
	if pinned(t, b, lost.Savepoint) {
		t.Error("what was forgotten is still pinned")
	}
	checkHistory(t, reopen(t, b))
}

// The time of a pending save point may be over: the log has newer entries.
func TestPendingIsOlderThanTheLog(t *testing.T) {
	b := initBank(t)
	b, lost := pendingOf(t, b, smallState(1), "p")
	take(t, b, smallState(5), "q")
	s, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p"})
	must(t, err)
	if s.CID == lost.CID {
		t.Error("an older time followed a newer one")
	}
	checkHistory(t, reopen(t, b))
}

// A crash after the receipt and before the note is removed: the save point is
// anchored, and its pin must stay.
func TestNoteOfAnchoredSavepoint(t *testing.T) {
	b := initBank(t)
	s := take(t, b, smallState(1), "p")
	must(t, b.Repo().PutRecord("pending", hexOf(s.Entry.Policy[:]), []byte(s.CID.String())))
	b = reopen(t, b)
	take(t, b, smallState(2), "p")
	if !pinned(t, b, s.Savepoint) {
		t.Error("an anchored save point has lost its pin")
	}
	checkHistory(t, b)
}

// A crash after the note and before the pin is synced.
func TestNoteOfNothing(t *testing.T) {
	b := initBank(t)
	s := take(t, b, smallState(1), "p")
	missing := dag.RawBlock([]byte("never written")).CID
	manifest := s.CID.Prefix()
	c, err := manifest.Sum([]byte("never written either"))
	must(t, err)
	must(t, b.Repo().PutRecord("pending", hexOf(s.Entry.Policy[:]), []byte(c.String())))
	b = reopen(t, b)
	if next := take(t, b, smallState(2), "p"); next.Entry.Sequence != 2 || next.CID == missing {
		t.Errorf("%+v", next.Entry)
	}
	checkHistory(t, b)
}

// The receipt cannot be written although the entry is in the log. That take says
// so; the next one follows it.
func TestReceiptCannotBeWritten(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	first := receiptFiles(t, b)[0]
	next := first[:len(first)-1] + "1"
	must(t, os.Mkdir(next, 0o700)) // in the way
	if _, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p"}); err == nil {
		t.Fatal("a take without receipt returned")
	}
	if _, err := b.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "p"}); err == nil {
		t.Fatal("another take without receipt returned")
	}
	must(t, os.Remove(next))
	if s := take(t, b, smallState(2), "p"); s.Entry.Sequence != 3 || s.LogIndex != 2 {
		t.Errorf("the one after is %+v, log index %d", s.Entry, s.LogIndex)
	}
	checkHistory(t, b)
	checkHistory(t, reopen(t, b))
}

// A receipt of another log that is damaged does not keep the bank from opening
// and taking; List says what is wrong.
func TestDamagedReceiptOfAnotherLog(t *testing.T) {
	other := initBank(t)
	take(t, other, smallState(1), "p")
	n := serve(t, other)
	b := initBank(t)
	take(t, b, smallState(2), "q")
	with, p := trusting(t, b, other)
	got, err := with.Fetch(ctx, savepoints.Ref{Policy: "p"}, savepoints.FetchOptions{Policy: p, Sources: []string{n.GatewayURL()}})
	must(t, err)
	must(t, b.Close())
	for _, path := range receiptFiles(t, b) {
		if filepath.Base(path)[:16] == savepoints.LogID(other.Origin())[:16] {
			damage(t, path, 200)
		}
	}
	b = openBank(t, b.Repo().Dir())
	take(t, b, smallState(3), "q")
	if _, err := b.List(ctx, ""); !errors.Is(err, savepoints.ErrDamaged) {
		t.Errorf("list: %v", err)
	}
	if _, err := b.Resolve(ctx, savepoints.Ref{CID: got.CID}, ""); !errors.Is(err, savepoints.ErrDamaged) {
		t.Errorf("resolve: %v", err)
	}
	// Fetched again it is whole again.
	_, err = b.Fetch(ctx, savepoints.Ref{CID: got.CID}, savepoints.FetchOptions{Policy: p, Sources: []string{n.GatewayURL()}})
	must(t, err)
	if l := list(t, b); len(l) != 3 {
		t.Errorf("%d save points", len(l))
	}
}

// A repository copied back from a backup of meta/ alone, with a pack that went
// on: the log goes on from the old head.
func TestOlderHead(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	before := snapshot(t, b)
	take(t, b, smallState(1), "p")
	must(t, b.Close())
	before.restore(t, b)
	b = openBank(t, b.Repo().Dir())
	if s := take(t, b, smallState(2), "p"); s.Entry.Sequence != 2 {
		t.Errorf("sequence %d", s.Entry.Sequence)
	}
	checkHistory(t, b)
}
