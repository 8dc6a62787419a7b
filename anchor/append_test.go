package anchor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

func TestConcurrentAppends(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/many")
	l := create(t, store, k)
	var wg sync.WaitGroup
	indexes := make([]int64, 40)
	for i := range indexes {
		wg.Go(func() {
			index, h, err := l.Append(ctx, fmt.Appendf(nil, "%d", i))
			if err != nil || h.Size <= index || l.Head().Size < h.Size {
				t.Errorf("append gave %d, size %d, %v", index, h.Size, err)
			}
			indexes[i] = index
		})
	}
	wg.Wait()
	got := entries(t, view(t, store, l.Head(), k))
	for i, index := range indexes {
		if string(got[index]) != fmt.Sprint(i) {
			t.Fatalf("record %d is not at %d", i, index)
		}
	}
}

// Of two writers the second fails for good, and neither loses a record.
func TestTwoWriters(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/two")
	a := create(t, store, k)
	b := reopen(t, store, k)
	_, _, err := a.Append(ctx, []byte("a"))
	must(t, err)
	_, _, err = b.Append(ctx, []byte("b"))
	wantError(t, err, anchor.ErrHeadChanged)
	_, _, err = b.Append(ctx, []byte("b"))
	wantError(t, err, anchor.ErrPoisoned)
	_, h, err := reopen(t, store, k).Append(ctx, []byte("b"))
	must(t, err)
	if got := entries(t, view(t, store, h, k)); !slices.EqualFunc(got, [][]byte{[]byte("a"), []byte("b")}, bytes.Equal) {
		t.Fatalf("%q", got)
	}
}

func TestCancelledAppend(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/cancel")
	l := create(t, store, k)
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err := l.Append(stopped, []byte("a"))
	wantError(t, err, context.Canceled)
	_, h, err := l.Append(ctx, []byte("b"))
	must(t, err)
	if h.Size != 1 {
		t.Fatalf("size %d", h.Size)
	}
	// Once signed, an append is carried through.
	stopped, cancel = context.WithCancel(ctx)
	l, err = anchor.Open(ctx, store, hookedSigner{k.signer, func(sig []byte) []byte { cancel(); return sig }}, anchor.Options{})
	must(t, err)
	_, h, err = l.Append(stopped, []byte("c"))
	must(t, err)
	if h.Size != 2 || stopped.Err() == nil {
		t.Fatalf("size %d, context %v", h.Size, stopped.Err())
	}
}

// hookedSigner passes each signature through a function.
type hookedSigner struct {
	anchor.Signer
	hook func([]byte) []byte
}

func (s hookedSigner) Sign(msg []byte) ([]byte, error) {
	sig, err := s.Signer.Sign(msg)
	return s.hook(sig), err
}

// A head that does not verify never reaches the store.
func TestFaultySigner(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/faulty")
	old := filled(t, store, k, 3).Head()
	l, err := anchor.Open(ctx, store, hookedSigner{k.signer, func(sig []byte) []byte { sig[5] ^= 1; return sig }}, anchor.Options{})
	must(t, err)
	_, _, err = l.Append(ctx, []byte("a"))
	wantError(t, err, anchor.ErrUntrusted)
	_, _, err = l.Append(ctx, []byte("a"))
	wantError(t, err, anchor.ErrPoisoned)
	if h := reopen(t, store, k).Head(); !equalHeads(h, old) {
		t.Fatalf("head is %+v", h)
	}
}

// A panic in Admit is that of whoever commits; who waited with it learns that its record
// may not be in the log.
func TestPanicUnderGroupCommit(t *testing.T) {
	gate, in := make(chan struct{}), make(chan struct{}, 1)
	store, k := newMemStore(), newKey(t, "log.example/panic")
	l, err := anchor.Open(ctx, store, k.signer, anchor.Options{Create: true, Admit: func(_ anchor.Head, r []byte) error {
		switch string(r) {
		case "first":
			in <- struct{}{}
			<-gate
		case "bad":
			panic("a bad record")
		}
		return nil
	}})
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _, err := l.Append(ctx, []byte("first"))
		if err != nil {
			t.Errorf("the append before: %v", err)
		}
	})
	<-in
	var panics, poisoned atomic.Int64
	for _, r := range []string{"good", "bad", "better"} {
		wg.Go(func() {
			defer func() {
				if recover() != nil {
					panics.Add(1)
				}
			}()
			if _, _, err := l.Append(ctx, []byte(r)); errors.Is(err, anchor.ErrPoisoned) {
				poisoned.Add(1)
			}
		})
	}
	for l.Waiting() < 3 {
		runtime.Gosched()
	}
	close(gate)
	wg.Wait()
	if panics.Load() != 1 || poisoned.Load() != 2 || l.Head().Size != 1 {
		t.Errorf("%d panics, %d poisoned, size %d", panics.Load(), poisoned.Load(), l.Head().Size)
	}
	if _, _, err := l.Append(ctx, []byte("later")); !errors.Is(err, anchor.ErrPoisoned) {
		t.Errorf("later: %v", err)
	}
}
