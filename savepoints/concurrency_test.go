package savepoints_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// Many take at once: each gets its place, none is lost, and who reads meanwhile
// sees whole save points only.
func TestConcurrentTakes(t *testing.T) {
	b := initBank(t)
	const policies, each = 5, 10
	var taking, reading sync.WaitGroup
	taken := make(chan savepoints.Taken, policies*each)
	for p := range policies {
		for i := range each {
			taking.Go(func() {
				s, err := b.Take(ctx, smallState(p*each+i), savepoints.TakeOptions{Policy: fmt.Sprint("p", p)})
				if err != nil {
					t.Error(err)
					return
				}
				taken <- s
			})
		}
	}
	done := make(chan struct{})
	reading.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			l, err := b.List(ctx, "p1")
			if err != nil {
				t.Error(err)
				return
			}
			for _, s := range l {
				if _, err := b.Verify(ctx, s); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	taking.Wait()
	close(done)
	reading.Wait()
	close(taken)
	returned := map[string]bool{}
	for s := range taken {
		returned[s.CID.String()] = true
	}
	l := list(t, b)
	if len(l) != policies*each || len(returned) != policies*each {
		t.Fatalf("%d listed, %d returned", len(l), len(returned))
	}
	checkHistory(t, b)
	for _, s := range l {
		if !returned[s.CID.String()] {
			t.Errorf("%s is listed and was not returned", s.CID)
		}
	}
}

// checkHistory checks the rules that hold between the save points of the own log,
// verifies each, and returns them.
func checkHistory(t *testing.T, b *savepoints.Bank) []savepoints.Savepoint {
	t.Helper()
	l := list(t, b)
	head, err := b.Head(ctx, "")
	must(t, err)
	if int(head.Size) != len(l) {
		t.Fatalf("%d save points and %d entries", len(l), head.Size)
	}
	last := map[string]savepoints.Savepoint{}
	for i, s := range l {
		if s.LogIndex != int64(i) {
			t.Fatalf("save point %d has log index %d", i, s.LogIndex)
		}
		if i > 0 && s.Entry.Time.Before(l[i-1].Entry.Time) {
			t.Fatalf("entry %d is older than the one before", i)
		}
		p, ok := last[s.Manifest.Policy.ID]
		if s.Entry.Sequence != p.Entry.Sequence+1 || ok != (s.Manifest.Parent != nil) || ok && s.Manifest.Parent.Savepoint != p.CID {
			t.Fatalf("policy %s: sequence %d, parent %v, after %d, %s", s.Manifest.Policy.ID, s.Entry.Sequence, s.Manifest.Parent, p.Entry.Sequence, p.CID)
		}
		last[s.Manifest.Policy.ID] = s
		if _, err := b.Verify(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	return l
}
