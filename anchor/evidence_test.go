package anchor_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// forks returns evidence that two histories of one log were signed, of all shapes.
func forks(t testing.TB, k key) map[string][]byte {
	t.Helper()
	store := newMemStore()
	filled(t, store, k, 3)
	out := map[string][]byte{}
	add := func(name string, err error) {
		var evidence interface{ Evidence() ([]byte, error) }
		if !errors.As(err, &evidence) {
			t.Fatalf("%s: %v", name, err)
		}
		text, encodeErr := evidence.Evidence()
		must(t, encodeErr)
		out[name] = text
	}
	extended := func(record string, n int) *anchor.View {
		other := store.clone()
		l := reopen(t, other, k)
		for range n {
			_, _, err := l.Append(ctx, []byte(record))
			must(t, err)
		}
		return view(t, other, l.Head(), k)
	}
	a, b, longer := extended("a", 1), extended("b", 1), extended("c", 300)
	add("equal sizes", a.Extends(ctx, b.Head()))
	add("a longer one", longer.Extends(ctx, a.Head()))
	proof := func(v *anchor.View, record string) []byte {
		text, err := v.Prove(ctx, 3, []byte(record))
		must(t, err)
		return text
	}
	add("two entries", &anchor.EntriesError{Origin: k.signer.Name(), Index: 3, Old: proof(a, "a"), New: proof(longer, "c")})
	return out
}

func TestEvidence(t *testing.T) {
	k := newKey(t, "log.example/forked")
	for name, text := range forks(t, k) {
		got, err := anchor.CheckEvidence(k.policy, text)
		must(t, err)
		if want := map[bool]string{true: anchor.EvidenceEntries, false: anchor.EvidenceFork}[name == "two entries"]; got.Kind != want || !got.Proves() {
			t.Errorf("%s is a %s", name, got.Kind)
		}
		if _, err := anchor.CheckEvidence(newKey(t, "log.example/forked").policy, text); !errors.Is(err, anchor.ErrUntrusted) {
			t.Errorf("%s, under another key: %v", name, err)
		}
		if _, err := anchor.CheckEvidence(newKey(t, "log.example/other").policy, text); err == nil {
			t.Errorf("%s counts against another log", name)
		}
		for i := range text {
			bad := bytes.Clone(text)
			bad[i] ^= 1
			if _, err := anchor.CheckEvidence(k.policy, bad); err == nil {
				t.Fatalf("%s: byte %d may be another", name, i)
			}
		}
	}
	if _, err := anchor.CheckEvidence(nil, nil); !errors.Is(err, anchor.ErrPolicy) {
		t.Error(err)
	}
}

// Two heads of an honest log convict nobody: that the older one was shown is what somebody
// says. Two proofs of one entry do not contradict each other either.
func TestEvidenceAgainstHonest(t *testing.T) {
	k := newKey(t, "log.example/honest")
	store := newMemStore()
	l := create(t, store, k)
	one, two := appendOne(t, l, "a"), appendOne(t, l, "b")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	text, err := (&anchor.RollbackError{Old: two, New: one}).Observation("https://mirror.example", at)
	must(t, err)
	got, err := anchor.CheckEvidence(k.policy, text)
	must(t, err)
	if got.Proves() || got.Kind != anchor.EvidenceObservation || got.Old.Size != 2 || got.New.Size != 1 || got.Source != "https://mirror.example" || !got.Time.Equal(at) {
		t.Errorf("%+v", got)
	}
	for _, bad := range []*anchor.RollbackError{{Old: one, New: two}, {Old: one, New: one}} {
		text, err := bad.Observation("s", at)
		must(t, err)
		if _, err := anchor.CheckEvidence(k.policy, text); !errors.Is(err, anchor.ErrCorrupt) {
			t.Errorf("size %d after %d: %v", bad.New.Size, bad.Old.Size, err)
		}
	}
	for _, kind := range []string{"rollback", "fork", "entries"} {
		bad := bytes.Replace(text, []byte("observation"), []byte(kind), 1)
		if _, err := anchor.CheckEvidence(k.policy, bad); !errors.Is(err, anchor.ErrCorrupt) {
			t.Errorf("an observation as %s: %v", kind, err)
		}
	}
	var proofs [][]byte
	for _, h := range []anchor.Head{one, two} {
		proof, err := view(t, store, h, k).Prove(ctx, 0, []byte("a"))
		must(t, err)
		proofs = append(proofs, proof)
	}
	text, err = (&anchor.EntriesError{Origin: one.Origin, Old: proofs[0], New: proofs[1]}).Evidence()
	must(t, err)
	if _, err := anchor.CheckEvidence(k.policy, text); !errors.Is(err, anchor.ErrCorrupt) {
		t.Errorf("two proofs of one entry: %v", err)
	}
}

// A head that does not extend the floor of a policy is evidence under that policy only.
func TestEvidenceOfFloor(t *testing.T) {
	k := newKey(t, "log.example/floor")
	store := newMemStore()
	l := filled(t, store, k, 5)
	with := parsePolicy(t, "# ipfs-savepoint: floor 3 "+emptyRoot+"\n"+string(anchor.FormatPolicy(k.vkey)))
	_, err := anchor.OpenView(ctx, anchor.LocalFetcher(store, l.Head().Root), with)
	var fork *anchor.ForkError
	if !errors.As(err, &fork) {
		t.Fatal(err)
	}
	text, err := fork.Evidence()
	must(t, err)
	_, err = anchor.CheckEvidence(with, text)
	must(t, err)
	if _, err := anchor.CheckEvidence(k.policy, text); !errors.Is(err, anchor.ErrUntrusted) {
		t.Error(err)
	}
}

// Honest heads are evidence of nothing, however they are put together.
func FuzzCheckEvidence(f *testing.F) {
	k := newKey(f, "log.example/fuzz")
	guilty := map[string]bool{}
	for _, text := range forks(f, k) {
		f.Add(text)
		guilty[string(text)] = true
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := anchor.CheckEvidence(k.policy, b)
		switch {
		case err == nil && got.Proves() && !guilty[string(b)]:
			t.Fatalf("%q is evidence", b)
		case err != nil && !errors.Is(err, anchor.ErrCorrupt) && !errors.Is(err, anchor.ErrUntrusted):
			t.Fatal(err)
		}
	})
}

// asking remembers what was read.
type asking struct {
	anchor.Fetcher
	paths *sync.Map
}

func (a asking) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	a.paths.Store(path, true)
	return a.Fetcher.ReadEndpoint(ctx, path)
}

func TestBundle(t *testing.T) {
	k, store := newKey(t, "log.example/bundles"), newMemStore()
	l := filled(t, store, k, 600)
	asked := asking{anchor.LocalFetcher(store, l.Head().Root), new(sync.Map)}
	v, err := anchor.OpenView(ctx, asked, k.policy)
	must(t, err)
	next := int64(0)
	for n := range int64(3) {
		entries, err := v.Bundle(ctx, n)
		must(t, err)
		for _, e := range entries {
			if e.Index != next || !bytes.Equal(e.Record, numbered(int(next), 1)[0]) {
				t.Fatalf("entry %d: %q", e.Index, e.Record)
			}
			next++
		}
	}
	if next != 600 {
		t.Errorf("%d entries", next)
	}
	for _, n := range []int64{-1, 3, 1 << 62} {
		if _, err := v.Bundle(ctx, n); !errors.Is(err, anchor.ErrNotIncluded) {
			t.Errorf("bundle %d: %v", n, err)
		}
	}
	// The last one costs its own files and the right edge, however long the log is.
	asked.paths.Clear()
	_, err = v.Bundle(ctx, 2)
	must(t, err)
	asked.paths.Range(func(path, _ any) bool {
		if !strings.Contains(path.(string), "002.p/") && !strings.HasPrefix(path.(string), "tile/1/") {
			t.Errorf("it reads %s", path)
		}
		return true
	})
	for _, path := range []string{"tile/entries/001", "tile/0/001"} {
		wrong, err := anchor.OpenView(ctx, replaced(anchor.LocalFetcher(store, l.Head().Root), path, flip(700)), k.policy)
		must(t, err)
		if _, err := wrong.Bundle(ctx, 1); !errors.Is(err, anchor.ErrCorrupt) {
			t.Errorf("flipped bit in %s: %v", path, err)
		}
	}
}
