package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

func TestRecords(t *testing.T) {
	r := newRepo(t)
	if data, err := r.Record("kind", "key"); err != nil || data != nil {
		t.Fatalf("no record: %q, %v", data, err)
	}
	if keys, err := r.Records("kind"); err != nil || len(keys) != 0 {
		t.Fatalf("no records: %v, %v", keys, err)
	}
	must(t, r.DeleteRecord("kind", "key"))
	for _, key := range []string{"b", "a", "c"} {
		must(t, r.PutRecord("kind", key, []byte("old "+key)))
		must(t, r.PutRecord("kind", key, []byte("new "+key)))
	}
	must(t, r.PutRecord("other", "d", nil))
	must(t, r.DeleteRecord("kind", "b"))
	keys, err := r.Records("kind")
	if err != nil || !slices.Equal(keys, []string{"a", "c"}) {
		t.Fatalf("keys %v, %v", keys, err)
	}
	if data, err := r.Record("kind", "c"); err != nil || string(data) != "new c" {
		t.Fatalf("%q, %v", data, err)
	}
	if data, err := r.Record("other", "d"); err != nil || data == nil || len(data) > 0 {
		t.Fatalf("an empty record: %v, %v", data, err)
	}
	st, err := os.Stat(filepath.Join(r.Dir(), metaDir, "kind", "a"))
	if err != nil || st.Mode() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
}

// Readers see the old value or the new one, whole, while a record is replaced.
func TestRecordsAreReplacedAtomically(t *testing.T) {
	r := newRepo(t)
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 20_000+i) }
	must(t, r.PutRecord("kind", "key", value(0)))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 50 {
			if err := r.PutRecord("kind", "key", value(i)); err != nil {
				t.Error(err)
			}
		}
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		data, err := r.Record("kind", "key")
		if err != nil || len(data) == 0 || !bytes.Equal(data, value(int(data[0]))) {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
	}
	wg.Wait()
}

// What a crash leaves beside the records is not one of them, and is removed at
// the next open.
func TestLeftoversOfACrash(t *testing.T) {
	r := newRepo(t)
	must(t, r.PutRecord("kind", "key", []byte("x")))
	var left []string
	for _, dir := range []string{r.Dir(), filepath.Join(r.Dir(), metaDir, "kind")} {
		path := filepath.Join(dir, ".tmp-123")
		must(t, os.WriteFile(path, []byte("half"), 0o600))
		left = append(left, path)
	}
	if keys, err := r.Records("kind"); err != nil || !slices.Equal(keys, []string{"key"}) {
		t.Fatalf("keys %v, %v", keys, err)
	}
	must(t, r.Close())
	r, err := Open(ctx, r.Dir())
	must(t, err)
	defer r.Close()
	for _, path := range left {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if data, err := r.Record("kind", "key"); err != nil || string(data) != "x" {
		t.Fatalf("%q, %v", data, err)
	}
}

func TestSwapHead(t *testing.T) {
	r := newRepo(t)
	if head, err := r.Head(ctx, "log"); err != nil || head != nil {
		t.Fatalf("no head: %q, %v", head, err)
	}
	if err := r.SwapHead(ctx, "log", []byte("a"), []byte("b")); !errors.Is(err, ErrHeadChanged) {
		t.Fatalf("old head that is not there: %v", err)
	}
	if err := r.SwapHead(ctx, "log", []byte{}, []byte("b")); !errors.Is(err, ErrHeadChanged) {
		t.Fatalf("an empty head is not none: %v", err)
	}
	must(t, r.SwapHead(ctx, "log", nil, []byte("a")))
	if err := r.SwapHead(ctx, "log", nil, []byte("b")); !errors.Is(err, ErrHeadChanged) {
		t.Fatalf("none expected, one there: %v", err)
	}
	if err := r.SwapHead(ctx, "log", []byte("b"), []byte("c")); !errors.Is(err, ErrHeadChanged) {
		t.Fatalf("another expected: %v", err)
	}
	if head, err := r.Head(ctx, "log"); err != nil || string(head) != "a" {
		t.Fatalf("%q, %v", head, err)
	}
	must(t, r.SwapHead(ctx, "log", []byte("a"), []byte("c")))
	must(t, r.SwapHead(ctx, "other", nil, []byte("d")))
}

// Of all who swap from the same head one wins, and none is lost.
func TestSwapHeadConcurrently(t *testing.T) {
	r := newRepo(t)
	must(t, r.SwapHead(ctx, "log", nil, []byte("0")))
	const goroutines, swaps = 16, 5
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for done := 0; done < swaps; {
				old, err := r.Head(ctx, "log")
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(string(old), &n)
				err = r.SwapHead(ctx, "log", old, fmt.Append(nil, n+1))
				switch {
				case err == nil:
					done++
				case !errors.Is(err, ErrHeadChanged):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if head, err := r.Head(ctx, "log"); err != nil || string(head) != fmt.Sprint(goroutines*swaps) {
		t.Fatalf("%q, %v", head, err)
	}
}

func TestPins(t *testing.T) {
	r := newRepo(t)
	b := dag.RawBlock([]byte("wanted"))
	if ok, err := r.Pinned(b.CID); err != nil || ok {
		t.Fatalf("%v, %v", ok, err)
	}
	must(t, r.Blocks.Put(ctx, b))
	must(t, r.Pin(ctx, b.CID, "policy"))
	must(t, r.Close()) // a pin syncs what was put before
	r, err := Open(ctx, r.Dir())
	must(t, err)
	defer r.Close()
	if ok, err := r.Pinned(b.CID); err != nil || !ok {
		t.Fatalf("%v, %v", ok, err)
	}
	if _, err := r.Blocks.Get(ctx, b.CID); err != nil {
		t.Fatalf("pinned and lost: %v", err)
	}
	must(t, r.Unpin(b.CID))
	must(t, r.Unpin(b.CID))
	if ok, err := r.Pinned(b.CID); err != nil || ok {
		t.Fatalf("%v, %v", ok, err)
	}
}
