package savepoints_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// imports has a bank import an archive.
func imports(t *testing.T, to *savepoints.Bank, p *anchor.Policy, archive string) {
	t.Helper()
	f, err := os.Open(archive)
	must(t, err)
	defer f.Close()
	_, err = to.Import(ctx, f, p, nil)
	must(t, err)
}

// evidenceFiles returns what a bank kept as evidence.
func evidenceFiles(t *testing.T, b *savepoints.Bank) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.Repo().Dir(), "evidence", "*.json"))
	must(t, err)
	return files
}

// A log must extend the head that came with an archive, whatever was imported after it:
// archives may come in any order.
func TestRollbackBehindArchive(t *testing.T) {
	b := initBank(t)
	took := take(t, b, smallState(1), "p")
	first := archived(t, b, took)
	old := openBank(t, copyBank(t, b))
	second := archived(t, b, take(t, b, smallState(2), "p"))
	_, url := countedGateway(t, old)
	latest := savepoints.Ref{Policy: "p"}

	to, p := reader(t, b)
	imports(t, to, p, second)
	imports(t, to, p, first)
	if h, err := to.Head(ctx, p.Origin); err != nil || h.Size != 2 {
		t.Errorf("head of size %d, %v", h.Size, err)
	}
	o := savepoints.FetchOptions{Policy: p, Sources: []string{url}}
	if _, err := to.Audit(ctx, savepoints.AuditOptions{FetchOptions: o}); !errors.Is(err, anchor.ErrRollback) {
		t.Errorf("audit: %v", err)
	}
	if _, err := fetch(to, latest, p, url); !errors.Is(err, anchor.ErrRollback) {
		t.Errorf("fetch: %v", err)
	}
	f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{url}})
	await(t, "a failure", func() bool { _, failed := f.counts(); return failed > 0 })
	f.stop(t)
	if !errors.Is(f.failed[0], anchor.ErrRollback) {
		t.Errorf("follow: %v", f.failed)
	}
	files := evidenceFiles(t, to)
	if len(files) != 1 {
		t.Fatalf("evidence %q", files)
	}
	text, err := os.ReadFile(files[0])
	must(t, err)
	if got, err := anchor.CheckEvidence(p, text); err != nil || got.Kind != anchor.EvidenceObservation || got.Source != url || got.Old.Size != 2 {
		t.Errorf("%+v, %v", got, err)
	}

	to, p = reader(t, b)
	_, err = fetch(to, latest, p, second)
	must(t, err)
	if _, err := fetch(to, latest, p, first); !errors.Is(err, anchor.ErrStale) {
		t.Errorf("an older archive as the latest: %v", err)
	}
	_, err = fetch(to, savepoints.Ref{CID: took.CID}, p, first)
	must(t, err)

	// A log that has grown from it takes its place.
	take(t, b, smallState(3), "p")
	_, url = countedGateway(t, b)
	_, err = fetch(to, latest, p, url)
	must(t, err)
	if h, err := to.Head(ctx, p.Origin); err != nil || h.Size != 3 {
		t.Errorf("head of size %d, %v", h.Size, err)
	}
	if data, err := to.Repo().Record("archived", savepoints.LogID(p.Origin)); err != nil || data != nil {
		t.Errorf("still there: %q, %v", data, err)
	}
}

// The head of an archive does not make the one forgotten that was seen before, with which it
// could not be compared.
func TestArchiveBesideSeen(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	fork := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	take(t, fork, smallState(3), "p")
	archive := archived(t, fork, take(t, fork, smallState(4), "p"))
	_, url := countedGateway(t, b)
	_, forkURL := countedGateway(t, fork)
	to, p := reader(t, b)
	_, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{url}})
	must(t, err)
	imports(t, to, p, archive)
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, forkURL); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("the archive's log: %v", err)
	}
	take(t, b, smallState(5), "p")
	take(t, b, smallState(6), "p")
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("the log seen before: %v", err)
	}
}

// What an archive proves to be erased has a head too, which may be newer than that of the
// save point.
func TestRollbackBehindErasure(t *testing.T) {
	b := initBank(t)
	s := take(t, b, personal(1), "p")
	_, url := countedGateway(t, openBank(t, copyBank(t, b)))
	erase(t, b, s.Savepoint, "people/ada.json")
	archive := archived(t, b, s)
	to, p := reader(t, b)
	imports(t, to, p, archive)
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url); !errors.Is(err, anchor.ErrRollback) {
		t.Error(err)
	}
}
