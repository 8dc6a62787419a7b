package savepoints

import (
	"context"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// A policy that was taken over later than the log began is found where it runs now.
func TestPredecessorTakenOverLater(t *testing.T) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	old, err := Init(ctx, filepath.Join(t.TempDir(), "old"), InitOptions{})
	must(err)
	defer old.Close()
	for _, policy := range []string{"p", "q"} {
		_, err = old.Take(ctx, oneDocument{"a", policy}, TakeOptions{Policy: policy})
		must(err)
	}
	text, err := old.TrustPolicy()
	must(err)
	p, err := anchor.ParsePolicy(text)
	must(err)
	n, err := old.Repo().Gateway(old.LogRoot)
	must(err)
	web := httptest.NewServer(n)
	defer web.Close()
	url := web.URL
	r, err := OpenReader(ctx, filepath.Join(t.TempDir(), "new"))
	must(err)
	must(r.Keep(text))
	var fetched []Savepoint
	for _, policy := range []string{"p", "q"} {
		f, err := r.Fetch(ctx, Ref{Policy: policy}, FetchOptions{Policy: p, Sources: []string{url}})
		must(err)
		fetched = append(fetched, f.Savepoint)
	}
	must(r.Close())
	b, err := NewLog(ctx, r.Repo().Dir(), NewLogOptions{Savepoint: fetched[0], Policy: text, Sources: []string{url}})
	must(err)
	defer b.Close()
	_, err = b.Note(ctx, "q follows")
	must(err)
	must(b.write(ctx, func(l *ledger) error {
		v, err := b.view(ctx, p)
		if err != nil {
			return err
		}
		c := l.common()
		c.Epoch = fetched[1].Entry.Epoch + 1
		_, err = l.say(ctx, &entry.Takeover{Common: c, Policy: fetched[1].Entry.Policy,
			Previous: &entry.Previous{Origin: p.Origin, Checkpoint: v.Head().Checkpoint, Root: v.Head().Root}})
		return err
	}))
	for _, policy := range []string{"p", "q"} {
		s, err := b.Take(ctx, oneDocument{"a", "next"}, TakeOptions{Policy: policy})
		must(err)
		got, err := b.Resolve(ctx, Ref{Policy: policy}, "")
		if err != nil || got.CID != s.CID {
			t.Errorf("%s is %s, %v", policy, got.CID, err)
		}
	}
}
