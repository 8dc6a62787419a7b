package savepoints_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// A crash: until the log says it nothing is removed, and from then on it will be.
func TestEraseIsFinished(t *testing.T) {
	marker := func(b *savepoints.Bank) string {
		return filepath.Join(b.Repo().Dir(), "meta/erasing", savepoints.LogID(b.Origin()))
	}
	documents := dag.RawBlock([]byte(person)).CID.String() + "\n"
	t.Run("before the entry", func(t *testing.T) {
		b := initBank(t)
		s := take(t, b, personal(1), "p")
		must(t, os.MkdirAll(filepath.Dir(marker(b)), 0o700))
		must(t, os.WriteFile(marker(b), []byte(documents), 0o600))
		b = reopen(t, b)
		checkDocuments(t, b, s.Savepoint, personal(1))
		if _, err := os.Stat(marker(b)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still due: %v", err)
		}
	})
	// afterEntry is a bank whose log says it, and whose files have the bytes still.
	afterEntry := func(t *testing.T) *savepoints.Bank {
		b := erasedBank(t)
		must(t, b.Repo().Blocks.Put(ctx, dag.RawBlock([]byte(person)), dag.RawBlock([]byte(picture))))
		must(t, b.Repo().Blocks.Sync(ctx))
		text := documents
		for c := range mustVerify(t, b).Without {
			text += c.String() + "\n"
		}
		for _, path := range erasedPaths {
			doc, err := dag.Lookup(ctx, b.Repo().Blocks, list(t, b)[0].Manifest.State, path)
			must(t, err)
			text += doc.Link.CID.String() + "\n"
		}
		must(t, os.WriteFile(marker(b), []byte(text), 0o600))
		if !holdsBytes(t, b, person) {
			t.Fatal("the bytes are not there")
		}
		return b
	}
	t.Run("before the proof and the removal", func(t *testing.T) {
		b := afterEntry(t)
		must(t, os.RemoveAll(filepath.Join(b.Repo().Dir(), "meta/erasures")))
		checkErased(t, reopen(t, b))
	})
	t.Run("before the removal, and gc", func(t *testing.T) {
		b := afterEntry(t)
		_, err := b.Collect(ctx, segments.CollectOptions{})
		must(t, err)
		checkErased(t, b)
		checkErased(t, reopen(t, b))
	})
	t.Run("before the removal, and again", func(t *testing.T) {
		b := afterEntry(t)
		erase(t, b, list(t, b)[0], erasedPaths...)
		checkErased(t, b)
	})
	t.Run("what came back stays until it is erased again", func(t *testing.T) {
		b := afterEntry(t)
		must(t, os.Remove(marker(b)))
		b = reopen(t, b)
		if v := mustVerify(t, b); v.Erased.Documents != 0 || !holdsBytes(t, b, person) {
			t.Errorf("%+v", v)
		}
		erase(t, b, list(t, b)[0], erasedPaths...)
		checkErased(t, b)
	})
}

// people is a state with a document for each of n people.
func people(n int) state {
	s := state{}
	for i := range n {
		s[fmt.Sprintf("people/%03d", i)] = fmt.Sprintf("address of person %03d", i)
	}
	return s
}

// eraseForEver erases one document after the other and prints the path of each of which
// Erase returned.
func eraseForEver(dir string) error {
	b, err := savepoints.Open(ctx, dir)
	if err != nil {
		return err
	}
	l, err := b.List(ctx, "")
	if err != nil {
		return err
	}
	v, err := b.Verify(ctx, l[0])
	if err != nil {
		return err
	}
	fmt.Println("open")
	for doc, err := range dag.Documents(ctx, b.Repo().Blocks, l[0].Manifest.State) {
		if err != nil {
			return err
		}
		if v.Without[doc.Link.CID] {
			continue
		}
		if _, err := b.Erase(ctx, l[0], doc.Path); err != nil {
			return err
		}
		fmt.Println(doc.Path)
	}
	return errors.New("nothing is left to erase")
}

// A process that erases is killed at random moments. After each, whatever the log says is
// gone is missing and in no file once garbage was collected; all else is there; what was
// returned is gone.
func TestKilledWhileErasing(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 5
	}
	b := initBank(t)
	dir, s := b.Repo().Dir(), people(900)
	take(t, b, s, "p")
	must(t, b.Close())
	returned := map[string]bool{}
	for range rounds {
		for _, path := range killedWhile(t, "erase", dir, 400*time.Millisecond) {
			returned[path] = true
		}
		b := openBank(t, dir)
		sp := list(t, b)[0]
		v, err := b.Verify(ctx, sp)
		must(t, err)
		said, err := b.CountErased(ctx, []savepoints.Savepoint{sp})
		must(t, err)
		if said[0] != v.Erased.Documents {
			t.Fatalf("the log says %d are erased, missing are %+v", said[0], v.Erased)
		}
		_, err = b.Collect(ctx, segments.CollectOptions{})
		must(t, err)
		for doc, err := range dag.Documents(ctx, b.Repo().Blocks, sp.Manifest.State) {
			must(t, err)
			if returned[doc.Path] && !v.Without[doc.Link.CID] {
				t.Fatalf("%s was erased and is there", doc.Path)
			}
		}
		text := packs(t, dir)
		for path, bytes := range s {
			erased := v.Without[dag.RawBlock([]byte(bytes)).CID]
			if strings.Contains(text, bytes) == erased {
				t.Fatalf("%s: erased: %t, in a file: %t", path, erased, !erased)
			}
		}
		must(t, b.Close())
	}
	t.Logf("%d documents erased", len(returned))
}

// packs returns the bytes of all segments of a repository, none of which is sealed.
func packs(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "packs/*"))
	must(t, err)
	var out strings.Builder
	for _, name := range names {
		data, err := os.ReadFile(name)
		must(t, err)
		out.Write(data)
	}
	return out.String()
}
