package savepoints_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
	"github.com/klauspost/compress/zstd"
)

// filler makes a chunk of a large document that begins with a text.
func filler(text string) string { return text + strings.Repeat(".", dag.ChunkSize-len(text)) }

const (
	person  = "Ada's address"
	picture = "Ada's picture"
)

// personal is a state with documents to be erased, and some that share parts with them.
func personal(i int) state {
	return state{
		"people/ada.json": person, "people/ada.png": filler("png header") + picture,
		"people/bob.json": "Bob's address", "people/bob.png": filler("png header") + "Bob's picture",
		"step": fmt.Sprint("step ", i),
	}
}

var erasedPaths = []string{"people/ada.json", "people/ada.png"}

// holdsBytes reports whether some bytes are in a file of a repository, sealed or not.
func holdsBytes(t *testing.T, b *savepoints.Bank, text string) bool {
	t.Helper()
	found := false
	must(t, filepath.WalkDir(b.Repo().Dir(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && strings.HasSuffix(path, ".zst") {
			var d *zstd.Decoder
			if d, err = zstd.NewReader(nil); err == nil {
				defer d.Close()
				data, err = d.DecodeAll(data, nil)
			}
		}
		found = found || bytes.Contains(data, []byte(text))
		return err
	}))
	return found
}

// checkErased verifies all save points of a bank, each without the personal documents.
func checkErased(t *testing.T, b *savepoints.Bank) {
	t.Helper()
	for _, s := range list(t, b) {
		v, err := b.Verify(ctx, s)
		must(t, err)
		want := dag.Totals{Documents: 2, Bytes: uint64(len(person) + dag.ChunkSize + len(picture))}
		if v.Erased != want || v.Totals != s.Manifest.Totals || len(v.Without) != 2 {
			t.Errorf("%s: %+v, want %+v erased", s.CID, v, want)
		}
		for _, path := range []string{"people/bob.json", "people/bob.png"} {
			if _, err := dag.ReadDocument(ctx, b.Repo().Blocks, s.Manifest.State, path); err != nil {
				t.Errorf("a document that stays: %v", err)
			}
		}
	}
	for _, text := range []string{person, picture} {
		if holdsBytes(t, b, text) {
			t.Errorf("%q is in a file", text)
		}
	}
}

func erase(t *testing.T, b *savepoints.Bank, s savepoints.Savepoint, paths ...string) savepoints.Erased {
	t.Helper()
	done, err := b.Erase(ctx, s, paths...)
	must(t, err)
	return done
}

// erasedBank is one with two save points, sealed, from which the personal documents were
// erased.
func erasedBank(t *testing.T) *savepoints.Bank {
	t.Helper()
	b := initBank(t)
	first := take(t, b, personal(1), "p")
	take(t, b, personal(2), "p")
	must(t, b.Repo().Blocks.Seal(ctx))
	if !holdsBytes(t, b, person) || !holdsBytes(t, b, picture) {
		t.Fatal("the documents are in no file before")
	}
	done := erase(t, b, first.Savepoint, erasedPaths...)
	if len(done.Documents) != 2 || len(done.Savepoints) != 2 || len(done.Entries) != 1 || done.Blocks != 2 || done.Kept != 1 {
		t.Errorf("erased %+v", done)
	}
	return b
}

func TestErase(t *testing.T) {
	b := erasedBank(t)
	checkErased(t, b)
	if n, err := b.CountErased(ctx, list(t, b)); err != nil || !slices.Equal(n, []uint64{2, 2}) {
		t.Errorf("erased: %d, %v", n, err)
	}
	// Once more, also by another save point's path: nothing is said twice.
	b = reopen(t, b)
	if done := erase(t, b, list(t, b)[1], append(erasedPaths, "people/ada.json")...); len(done.Entries) != 0 || len(done.Documents) != 2 {
		t.Errorf("the second time: %+v", done)
	}
	checkErased(t, b)
	got, err := b.Collect(ctx, segments.CollectOptions{All: true})
	must(t, err)
	if len(got.Missing) > 0 || got.Damaged > 0 {
		t.Errorf("collected: %+v", got)
	}
	checkErased(t, b)
	wantHealth(t, health(t, b, savepoints.HealthOptions{Blocks: 100}), savepoints.Fragile, true)

	// It does not come back by a take, which says which file it is.
	for _, path := range erasedPaths {
		_, err := b.Take(ctx, personal(3).with("copy", personal(1)[path]).with(erasedPaths[0], "x").with(erasedPaths[1], "y"), savepoints.TakeOptions{Policy: "p"})
		if !errors.Is(err, savepoints.ErrErased) || !strings.Contains(err.Error(), `"copy"`) {
			t.Errorf("take of %s: %v", path, err)
		}
		checkErased(t, b)
	}
	// A document that shares a part with an erased one is none.
	s3 := take(t, b, state{"ada.png": filler("png header") + "nobody"}, "p")
	if v, err := b.Verify(ctx, s3.Savepoint); err != nil || v.Erased.Documents > 0 {
		t.Errorf("a save point without: %+v, %v", v, err)
	}
	o, p := savepoints.AuditOptions{}, b.Policies()[0]
	o.Policy = p
	if r, err := b.Audit(ctx, o); err != nil || r.Others != 1 || r.Savepoints != 3 {
		t.Errorf("audit: %+v, %v", r, err)
	}
}

// What is missing and was not erased is damage, also beside what was.
func TestEraseHidesNoDamage(t *testing.T) {
	b := erasedBank(t)
	s := list(t, b)[0]
	must(t, b.Repo().Blocks.Delete(ctx, dag.RawBlock([]byte("Bob's address")).CID))
	if _, err := b.Verify(ctx, s); !errors.Is(err, savepoints.ErrDamaged) || !strings.Contains(err.Error(), "bob.json") {
		t.Errorf("verify: %v", err)
	}
	if err := b.Export(ctx, s, new(bytes.Buffer)); !errors.Is(err, dag.ErrNotFound) {
		t.Errorf("export: %v", err)
	}
	// The part that a document which stays has with an erased one.
	b = erasedBank(t)
	must(t, b.Repo().Blocks.Delete(ctx, dag.RawBlock([]byte(filler("png header"))).CID))
	if _, err := b.Verify(ctx, list(t, b)[0]); !errors.Is(err, savepoints.ErrDamaged) || !strings.Contains(err.Error(), "bob.png") {
		t.Errorf("verify: %v", err)
	}
}

func mustVerify(t *testing.T, b *savepoints.Bank) savepoints.Verified {
	t.Helper()
	v, err := b.Verify(ctx, list(t, b)[0])
	must(t, err)
	return v
}

// Many documents take several entries, none of them too long.
func TestEraseManyDocuments(t *testing.T) {
	b := initBank(t)
	s := state{}
	var paths []string
	for i := range 250 {
		path := fmt.Sprintf("d/%03d", i)
		s[path] = path
		paths = append(paths, path)
	}
	taken := take(t, b, s, "p")
	done := erase(t, b, taken.Savepoint, paths...)
	if len(done.Entries) != 3 || len(done.Documents) != 250 || done.Blocks != 250 {
		t.Errorf("%d entries for %d documents of %d IPFS blocks", len(done.Entries), len(done.Documents), done.Blocks)
	}
	b = reopen(t, b)
	if v := mustVerify(t, b); v.Erased.Documents != 250 {
		t.Errorf("%+v", v)
	}
	if done := erase(t, b, taken.Savepoint, paths...); len(done.Entries) != 0 {
		t.Errorf("once more: %d entries", len(done.Entries))
	}
}

func TestEraseRefuses(t *testing.T) {
	b := initBank(t)
	s := take(t, b, personal(1).with("empty", ""), "p").Savepoint
	for _, c := range []struct {
		paths []string
		want  error
	}{
		{nil, savepoints.ErrUsage},
		{[]string{"people/ada.json", "empty"}, savepoints.ErrUsage},
		{[]string{"people/ada.json", "people/eve.json"}, dag.ErrNoDocument},
		{[]string{"people"}, dag.ErrNoDocument},
		{[]string{"../people"}, dag.ErrName},
	} {
		if _, err := b.Erase(ctx, s, c.paths...); !errors.Is(err, c.want) {
			t.Errorf("%q: %v", c.paths, err)
		}
	}
	r, _ := reader(t, b)
	if _, err := r.Erase(ctx, s, "step"); !errors.Is(err, savepoints.ErrNoLogKey) {
		t.Errorf("by a reader: %v", err)
	}
	if _, err := initBank(t).Erase(ctx, s, "step"); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("in a log of its own: %v", err)
	}
	// While a directory is damaged nobody knows what is shared.
	other := take(t, b, state{"q/1": "1"}, "q")
	must(t, b.Repo().Blocks.Delete(ctx, other.Manifest.State))
	if _, err := b.Erase(ctx, s, "step"); !errors.Is(err, savepoints.ErrDamaged) {
		t.Errorf("beside damage: %v", err)
	}
	h, err := b.Head(ctx, "")
	must(t, err)
	if h.Size != 2 || !holdsBytes(t, b, person) {
		t.Errorf("the log has %d entries", h.Size)
	}
	checkDocuments(t, b, s, personal(1).with("empty", ""))
	take(t, b, state{"q/1": "1"}, "q") // heals it
	_, err = b.Freeze(ctx)
	must(t, err)
	if _, err := b.Erase(ctx, s, "step"); !errors.Is(err, entry.ErrFrozen) || errors.Is(err, savepoints.ErrConflict) {
		t.Errorf("in a frozen log: %v", err)
	}
	checkDocuments(t, b, s, personal(1).with("empty", ""))
}

// Who comes later gets all else, and knows why; who was there keeps what it has.
func TestErasedElsewhere(t *testing.T) {
	b := initBank(t)
	s := take(t, b, personal(1), "p").Savepoint
	n := serve(t, b)
	early, p := reader(t, b)
	o := savepoints.FollowOptions{Policy: p, Sources: []string{n.GatewayURL()}}
	f := follow(t, early, o)
	f.await(t, 1)
	erase(t, b, s, erasedPaths...)
	last := take(t, b, state{"step": "2"}, "p")
	f.await(t, 2)
	checkDocuments(t, early, s, personal(1))
	f.stop(t)

	late, _ := reader(t, b)
	f = follow(t, late, o)
	f.await(t, 2)
	f.stop(t)
	if _, failed := f.counts(); failed > 0 {
		t.Errorf("following failed: %v", f.failed)
	}
	if v := mustVerify(t, late); v.Erased.Documents != 2 {
		t.Errorf("the late follower: %+v", v)
	}
	must(t, b.Export(ctx, s, new(bytes.Buffer)))
	archive := filepath.Join(t.TempDir(), "a.car")
	must(t, os.WriteFile(archive, export(t, b, s), 0o600))
	for name, source := range map[string]string{"gateway": n.GatewayURL(), "peer": n.Addresses()[0], "archive": archive, "folder": copyBank(t, late)} {
		r, p := reader(t, b)
		got, err := r.Fetch(ctx, savepoints.Ref{CID: s.CID}, savepoints.FetchOptions{Policy: p, Sources: []string{source}})
		if err != nil || got.Erased.Documents != 2 {
			t.Errorf("%s: %+v, %v", name, got.Erased, err)
			continue
		}
		if v := mustVerify(t, r); v.Erased.Documents != 2 {
			t.Errorf("%s: %+v", name, v)
		}
		wantHealth(t, health(t, r, savepoints.HealthOptions{Blocks: 100, Sources: []string{n.GatewayURL()}}), savepoints.Healthy, true, true)
	}
	if v, err := b.Verify(ctx, last.Savepoint); err != nil || v.Erased.Documents != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	// The source that has everything gives everything.
	r, p := reader(t, b)
	_, err := fetch(r, savepoints.Ref{CID: s.CID}, p, n.GatewayURL(), serve(t, early).GatewayURL())
	must(t, err)
	checkDocuments(t, r, s, personal(1))
}

// An archive with a gap that the log does not explain is refused.
func TestImportOfUnexplainedGap(t *testing.T) {
	b := erasedBank(t)
	s := list(t, b)[0]
	car, err := dag.ReadCAR(bytes.NewReader(export(t, b, s)))
	must(t, err)
	if len(car.Roots) != 3 {
		t.Fatalf("roots: %v", car.Roots)
	}
	for name, roots := range map[string]int{"no entry": 2, "the proof of something else": 3} {
		var out bytes.Buffer
		other := dag.RawBlock(s.Proof)
		named := append(car.Roots[:2:2], other.CID)[:roots]
		must(t, dag.WritePartialCAR(ctx, &out, withProof{b.Repo().Blocks, other, other}, gapsOf(t, b, s), named...))
		r, p := reader(t, b)
		if _, err := r.Import(ctx, &out, p, nil); !errors.Is(err, dag.ErrTruncated) && !errors.Is(err, entry.ErrContradiction) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func gapsOf(t *testing.T, b *savepoints.Bank, s savepoints.Savepoint) []cid.Cid {
	t.Helper()
	gaps, err := dag.Missing(ctx, b.Repo().Blocks, s.CID)
	must(t, err)
	var out []cid.Cid
	for _, g := range gaps {
		out = append(out, g.CID)
	}
	if len(out) != 2 {
		t.Fatalf("gaps: %v", gaps)
	}
	return out
}

// A document that was erased is still proven to have been there.
func TestProveErased(t *testing.T) {
	b := erasedBank(t)
	s, p := list(t, b)[0], policyOf(t, b)
	for _, path := range erasedPaths {
		doc, err := dag.Lookup(ctx, b.Repo().Blocks, s.Manifest.State, path)
		must(t, err)
		car := proofOf(t, b, s, path)
		got, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(car), path, nil)
		if err != nil || !got.Erased || got.ErasedBy != 2 || got.Document.Link.CID != doc.Link.CID || got.Document.Bytes != uint64(len(personal(1)[path])) {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
		// Without the entry it is merely not whole, with another one not a proof.
		proof, _, err := b.RawProof(ctx, s)
		must(t, err)
		var other bytes.Buffer
		proof2, _, err := b.RawProof(ctx, list(t, b)[1])
		must(t, err)
		must(t, dag.WriteProofWithout(ctx, &other, b.Repo().Blocks, s.CID, path, func(cid.Cid) bool { return true }, dag.RawBlock(proof), dag.RawBlock(proof2)))
		if _, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(other.Bytes()), path, nil); !errors.Is(err, savepoints.ErrArchive) {
			t.Errorf("%s with another entry: %v", path, err)
		}
		var without bytes.Buffer
		must(t, dag.WriteProofWithout(ctx, &without, b.Repo().Blocks, s.CID, path, func(cid.Cid) bool { return true }, dag.RawBlock(proof)))
		if _, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(without.Bytes()), path, nil); !errors.Is(err, dag.ErrTruncated) {
			t.Errorf("%s without the entry: %v", path, err)
		}
	}
	got, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(proofOf(t, b, s, "people/bob.png")), "people/bob.png", nil)
	if err != nil || got.Erased || len(got.Manifest.Policy.ID) == 0 {
		t.Errorf("one that is there: %+v, %v", got, err)
	}
}

// Replicated to a folder, a save point is an archive that says what is missing.
func TestErasedReplicated(t *testing.T) {
	dir := t.TempDir()
	b := withTargets(t, erasedBank(t), dir)
	_, err := b.Replication().Once(ctx, replication.Selection{}, nil)
	must(t, err)
	wantHealth(t, health(t, b, savepoints.HealthOptions{Blocks: 100}), savepoints.Healthy, true, true)
	archives, err := filepath.Glob(filepath.Join(dir, "*.car"))
	must(t, err)
	if len(archives) != 2 {
		t.Fatalf("archives: %q", archives)
	}
	r, p := reader(t, b)
	for _, a := range archives {
		data, err := os.ReadFile(a)
		must(t, err)
		_, err = r.Import(ctx, bytes.NewReader(data), p, nil)
		must(t, err)
	}
	checkErased(t, r)
	// The bank's own copy is lost: what is gone is not asked for.
	must(t, b.Repo().Unpin(list(t, b)[1].CID))
	must(t, b.Repo().Blocks.Delete(ctx, list(t, b)[1].Manifest.State))
	wantHealth(t, health(t, b, savepoints.HealthOptions{Blocks: 100}), savepoints.Fragile, false, true)
}

// Whoever takes a log over says nothing and removes nothing of its own accord: it may be
// that the key was stolen, and that others erased with it.
func TestTakeoverErasesNothing(t *testing.T) {
	old := initBank(t)
	s := take(t, old, personal(1), "p").Savepoint
	n := serve(t, old)
	next, p := reader(t, old)
	f := follow(t, next, savepoints.FollowOptions{Policy: p, Sources: []string{n.GatewayURL()}})
	f.await(t, 1)
	erase(t, old, s, erasedPaths...)
	f.stop(t)
	dir := next.Repo().Dir()
	must(t, next.Close())
	b, err := continueOn(t, dir, savepoints.ContinueOptions{Keys: keysOf(t, old), Sources: []string{n.GatewayURL()}, Unwitnessed: true})
	must(t, err)
	checkDocuments(t, b, s, personal(1))
	if _, err := b.Take(ctx, personal(2), savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, savepoints.ErrErased) {
		t.Errorf("take: %v", err)
	}
	checkDocuments(t, b, s, personal(1))
	if done := erase(t, b, s, erasedPaths...); len(done.Entries) > 0 {
		t.Errorf("said again: %+v", done)
	}
	checkErased(t, b)
}
