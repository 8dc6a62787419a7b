package savepoints_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// archived exports what a bank took to a file.
func archived(t *testing.T, b *savepoints.Bank, took savepoints.Taken) string {
	t.Helper()
	s, err := b.Resolve(ctx, savepoints.Ref{CID: took.CID}, "")
	must(t, err)
	path := filepath.Join(t.TempDir(), "archive.car")
	must(t, os.WriteFile(path, export(t, b, s), 0o600))
	return path
}

// demanding is the trust policy of a bank with more lines.
func demanding(t *testing.T, b *savepoints.Bank, format string, args ...any) *anchor.Policy {
	t.Helper()
	text, err := b.TrustPolicy()
	must(t, err)
	p, err := anchor.ParsePolicy(fmt.Appendf(text, format, args...))
	must(t, err)
	return p
}

func floored(t *testing.T, b *savepoints.Bank) *anchor.Policy {
	t.Helper()
	h, err := b.Head(ctx, "")
	must(t, err)
	return demanding(t, b, "# ipfs-savepoint: floor %d %s\n", h.Size, h.RootHash)
}

func nobody(t *testing.T) *savepoints.Bank {
	t.Helper()
	b, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "reader"))
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// keepsNothing requires that nothing of what was refused is listed or pinned.
func keepsNothing(t *testing.T, b *savepoints.Bank) {
	t.Helper()
	pins, err := filepath.Glob(filepath.Join(b.Repo().Dir(), "meta/pins/*"))
	must(t, err)
	if files := receiptFiles(t, b); len(files)+len(pins) > 0 {
		t.Errorf("kept: %q %q", files, pins)
	}
}

// follows has a bank follow another until its copy of the log has so many entries, and it
// all save points of those, that is to say as many, or what is given as held.
func follows(t *testing.T, to *savepoints.Bank, p *anchor.Policy, url string, size int, held ...int) {
	t.Helper()
	following, stop := context.WithCancel(ctx)
	done := make(chan error)
	go func() {
		done <- to.Follow(following, savepoints.FollowOptions{Policy: p, Sources: []string{url}, Interval: 10 * time.Millisecond, Failed: func(err error) { t.Log(err) }})
	}()
	await(t, "the copy", func() bool {
		h, err := to.Head(ctx, p.Origin)
		return err == nil && h.Size == int64(size) && len(receiptFiles(t, to)) == append(held, size)[0]
	})
	stop()
	must(t, <-done)
}

// An archive whose head is older than the floor of the policy is refused, whatever it is
// asked for, and nothing of it is kept. Who has a copy of the log needs no floor to know
// that the archive belongs to it.
func TestArchiveBelowFloor(t *testing.T) {
	b := initBank(t)
	took := take(t, b, smallState(1), "p")
	archive := archived(t, b, took)
	take(t, b, smallState(2), "p")
	p := floored(t, b)
	to := nobody(t)
	for _, ref := range []savepoints.Ref{{Policy: "p"}, {CID: took.CID}} {
		if _, err := fetch(to, ref, p, archive); !errors.Is(err, anchor.ErrRollback) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	f, err := os.Open(archive)
	must(t, err)
	defer f.Close()
	if _, err := to.Import(ctx, f, p, nil); !errors.Is(err, anchor.ErrRollback) {
		t.Errorf("import: %v", err)
	}
	keepsNothing(t, to)

	_, url := countedGateway(t, b)
	to, _ = reader(t, b)
	follows(t, to, p, url, 2)
	if _, err := fetch(to, savepoints.Ref{CID: took.CID}, p, archive); err != nil {
		t.Errorf("with a copy of the log: %v", err)
	}
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, archive); !errors.Is(err, anchor.ErrStale) {
		t.Errorf("the latest, with a copy that has a later one: %v", err)
	}
}

// The age that a policy allows is that of an archive too, where it is asked for the latest.
func TestArchiveAge(t *testing.T) {
	b := initBank(t)
	before := func() time.Time { return time.Now().Add(-time.Hour) }
	took, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Now: before})
	must(t, err)
	archive := archived(t, b, took)
	to := nobody(t)
	old := demanding(t, b, "# ipfs-savepoint: max-age 30m\n")
	o := savepoints.FetchOptions{Policy: old, Sources: []string{archive}}
	if _, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, o); !errors.Is(err, anchor.ErrStale) {
		t.Fatal(err)
	}
	keepsNothing(t, to)
	o.AcceptStale = true
	if got, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, o); err != nil || got.Freshness != savepoints.FreshnessStaleAccepted {
		t.Errorf("%v %v", got.Freshness, err)
	}
	if _, err := fetch(nobody(t), savepoints.Ref{Policy: "p"}, demanding(t, b, "# ipfs-savepoint: max-age 2h\n"), archive); err != nil {
		t.Error(err)
	}
}

// An archive of another history than the floor's, the head's that was seen before, or the
// copy's that is held here is a fork.
func TestArchiveOfFork(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	fork := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	archive := archived(t, fork, take(t, fork, smallState(9), "p"))
	_, url := countedGateway(t, b)
	refused := func(what string, to *savepoints.Bank, p *anchor.Policy) {
		t.Helper()
		if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, archive); !errors.Is(err, anchor.ErrFork) {
			t.Errorf("%s: %v", what, err)
		}
		files, err := filepath.Glob(filepath.Join(to.Repo().Dir(), "evidence", "*.json"))
		must(t, err)
		if len(files) != 1 {
			t.Errorf("%s: evidence %q", what, files)
		}
	}
	to := nobody(t)
	refused("floor", to, floored(t, b))
	keepsNothing(t, to)

	to, p := reader(t, b)
	_, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{url}})
	must(t, err)
	refused("seen", to, p)
	keepsNothing(t, to)

	take(t, b, smallState(3), "p") // the copy is larger than the fork
	to, p = reader(t, b)
	follows(t, to, p, url, 3)
	refused("copy", to, p)
}

// What is refused as stale is not kept: it would be the latest here from then on.
func TestStaleArchiveIsNotKept(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	took, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	archive := archived(t, b, took)
	_, err = b.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	to, p := reader(t, b)
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, archive); !errors.Is(err, anchor.ErrStale) {
		t.Fatal(err)
	}
	keepsNothing(t, to)
	if _, err := to.Resolve(ctx, savepoints.Ref{Policy: "p"}, ""); !errors.Is(err, savepoints.ErrNotFound) {
		t.Error(err)
	}
}

// Two archives that put different save points at one place of the log are a fork, and
// their proofs are the evidence.
func TestArchivesOfOneEntry(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	fork := openBank(t, copyBank(t, b))
	first := archived(t, b, take(t, b, smallState(2), "p"))
	took := take(t, fork, smallState(3), "p")
	take(t, fork, smallState(4), "p")
	// Its proof is to be under another head than that of the first: heads of one size tell.
	must(t, os.Remove(receiptFiles(t, fork)[1]))
	second := archived(t, reopen(t, fork), took)
	to, p := reader(t, b)
	_, err := fetch(to, savepoints.Ref{Policy: "p"}, p, first)
	must(t, err)
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, second); !errors.Is(err, anchor.ErrFork) {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(to.Repo().Dir(), "evidence", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	must(t, err)
	got, err := anchor.CheckEvidence(p, text)
	if err != nil || got.Kind != anchor.EvidenceEntries || got.Index != 1 || !got.Proves() {
		t.Errorf("%+v %v", got, err)
	}
}
