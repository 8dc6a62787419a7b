package anchor_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

var ctx = context.Background()

// merkle is the definition of the tree hash in RFC 6962, section 2.1.
func merkle(records [][]byte) [32]byte {
	switch n := len(records); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, records[0]...))
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		l, r := merkle(records[:k]), merkle(records[k:])
		return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
	}
}

// Any history of appends, reopenings and mirrorings gives one log: all records
// in order, provable, each head an extension of all before it.
func TestLogProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store, copied := newMemStore(), newMemStore()
		k := newKey(t, "log.example/properties")
		l := create(t, store, k)
		var records [][]byte
		heads := []anchor.Head{l.Head()}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			n := rapid.OneOf(rapid.IntRange(1, 3), rapid.IntRange(1, 300)).Draw(rt, "batch")
			first := int64(len(records))
			var batch [][]byte
			for range n {
				size := rapid.OneOf(rapid.IntRange(0, 40), rapid.SampledFrom([]int{255, 256, anchor.MaxRecordSize})).Draw(rt, "size")
				batch = append(batch, bytes.Repeat([]byte{byte(len(records) + len(batch))}, size))
			}
			records = append(records, batch...)
			index, head, err := l.AppendAll(ctx, batch)
			must(t, err)
			if index != first || head.Size != int64(len(records)) || head.RootHash != tlog.Hash(merkle(records)) {
				rt.Fatalf("append of %d at %d gave index %d, size %d, root %v", n, first, index, head.Size, head.RootHash)
			}
			heads = append(heads, head)
			if rapid.Bool().Draw(rt, "reopen") {
				store.crash()
				l = reopen(t, store, k)
				if !equalHeads(l.Head(), head) {
					rt.Fatalf("reopened at %+v, not %+v", l.Head(), head)
				}
			}
			if rapid.Bool().Draw(rt, "mirror") {
				got, err := anchor.Mirror(ctx, copied, anchor.LocalFetcher(store, head.Root), k.policy)
				must(t, err)
				if got.RootHash != head.RootHash || !bytes.Equal(got.Checkpoint, head.Checkpoint) {
					rt.Fatalf("mirror is at %+v, not %+v", got, head)
				}
			}
		}
		newest := l.Head()
		mirrored, err := anchor.Mirror(ctx, copied, anchor.LocalFetcher(store, newest.Root), k.policy)
		must(t, err)
		copied.crash()
		again, ok, err := anchor.LoadHead(ctx, copied, k.policy)
		if err != nil || !ok || !equalHeads(again, mirrored) {
			rt.Fatalf("mirror's head is %+v, %v, %v", again, ok, err)
		}
		for _, v := range []*anchor.View{view(t, store, newest, k), view(t, copied, mirrored, k)} {
			if !slices.EqualFunc(entries(t, v), records, bytes.Equal) {
				rt.Fatal("other records than were appended")
			}
			step := 1 + len(records)/20
			for i := 0; i < len(records); i += step {
				proof, err := v.Prove(ctx, int64(i), records[i])
				must(t, err)
				r, err := anchor.VerifyProof(k.policy, proof)
				must(t, err)
				if r.Index != int64(i) || !bytes.Equal(r.Record, records[i]) || r.Head.RootHash != newest.RootHash {
					rt.Fatalf("proof of %d shows %+v", i, r)
				}
			}
		}
		for i, h := range heads {
			v := view(t, store, h, k)
			for _, old := range heads[:i+1] {
				must(t, v.Extends(ctx, old))
			}
		}
	})
}

func equalHeads(a, b anchor.Head) bool {
	return a.Origin == b.Origin && a.Size == b.Size && a.RootHash == b.RootHash && a.Root == b.Root && bytes.Equal(a.Checkpoint, b.Checkpoint)
}

func TestAppendAcross65536(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/large")
	l := create(t, store, k)
	var records [][]byte
	for i := range 65534 {
		records = append(records, fmt.Appendf(nil, "%d", i))
	}
	_, before, err := l.AppendAll(ctx, records)
	must(t, err)
	for range 4 {
		records = append(records, fmt.Appendf(nil, "%d", len(records)))
		if _, _, err = l.Append(ctx, records[len(records)-1]); err != nil {
			t.Fatal(err)
		}
		l = reopen(t, store, k)
		if l.Head().RootHash != tlog.Hash(merkle(records)) {
			t.Fatalf("wrong root at size %d", len(records))
		}
	}
	v := view(t, store, l.Head(), k)
	must(t, v.Extends(ctx, before))
	for _, i := range []int64{0, 255, 256, 65279, 65535, 65536, 65537} {
		e, err := v.Entry(ctx, i)
		must(t, err)
		if !bytes.Equal(e.Record, records[i]) {
			t.Fatalf("entry %d is %q", i, e.Record)
		}
		_, err = v.Prove(ctx, i, records[i])
		must(t, err)
	}
	copied := newMemStore()
	h, err := anchor.Mirror(ctx, copied, anchor.LocalFetcher(store, l.Head().Root), k.policy)
	must(t, err)
	if !slices.EqualFunc(entries(t, view(t, copied, h, k)), records, bytes.Equal) {
		t.Fatal("mirror has other records")
	}
}

// partialPaths lists what a reader of a checkpoint asks for, from the
// specification and not from the code under test.
func partialPaths(size int64) (paths []string) {
	for level := 0; size>>(8*level) > 0; level++ {
		n := size >> (8 * level)
		if w := int(n % 256); w > 0 {
			paths = append(paths, torchwood.TilePath(tlog.Tile{H: 8, L: level, N: n / 256, W: w}))
			if level == 0 {
				paths = append(paths, torchwood.TilePath(tlog.Tile{H: 8, L: -1, N: n / 256, W: w}))
			}
		}
	}
	return paths
}

// The newest directory serves readers of the last 16 heads, however old, and
// drops what belongs to older ones after ten minutes.
func TestRecentHeadsStayReadable(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/recent")
	now := time.Unix(1_700_000_000, 0)
	l, err := anchor.Open(ctx, store, k.signer, anchor.Options{Create: true, Now: func() time.Time { return now }})
	must(t, err)
	_, _, err = l.AppendAll(ctx, numbered(0, 245))
	must(t, err)
	var sizes []int64
	for i := range 40 {
		now = now.Add(time.Minute)
		if i%7 == 0 {
			l, err = anchor.Open(ctx, store, k.signer, anchor.Options{Now: func() time.Time { return now }})
			must(t, err)
		}
		_, h, err := l.Append(ctx, []byte{byte(i)})
		must(t, err)
		sizes = append(sizes, h.Size)
		f := anchor.LocalFetcher(store, h.Root)
		for _, size := range sizes[max(0, len(sizes)-anchor.RecentCount):] {
			for _, path := range partialPaths(size) {
				if _, err := f.ReadEndpoint(ctx, path); err != nil {
					t.Fatalf("at size %d: %v", h.Size, err)
				}
			}
		}
		if got := len(l.RecentSizes()); got > anchor.RecentCount+1 && i > 20 {
			t.Fatalf("%d recent sizes", got)
		}
	}
	if _, err := anchor.LocalFetcher(store, l.Head().Root).ReadEndpoint(ctx, partialPaths(sizes[2])[0]); err == nil {
		t.Fatal("old partial tile is still there")
	}
}

func TestRecentRule(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	times := func(n int, step time.Duration) (out []time.Time) {
		for i := range n {
			out = append(out, start.Add(time.Duration(i)*step))
		}
		return out
	}
	for _, c := range []struct {
		name  string
		times []time.Time
		want  int
	}{
		{"few", times(3, time.Hour), 3},
		{"slow", times(100, time.Hour), anchor.RecentCount},
		{"ten minutes", times(100, 20*time.Second), 31},
		{"without pause", times(5000, time.Millisecond), anchor.RecentMax},
		{"clock goes back", times(40, -time.Hour), 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			sizes, seconds := anchor.PublishTimes(c.times)
			if len(sizes) != c.want || sizes[len(sizes)-1] != int64(len(c.times)-1) {
				t.Fatalf("%d sizes kept, want %d: %v", len(sizes), c.want, sizes)
			}
			if !slices.IsSorted(seconds) || !slices.IsSorted(sizes) {
				t.Fatal("not in order")
			}
		})
	}
}

// A fault at any change of the store leaves the old head or the new one, and a
// log that goes on from it.
func TestCrashAtEveryChange(t *testing.T) {
	for _, size := range []int{0, 3, 254, 255, 256} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("size=%d,late=%v", size, late), func(t *testing.T) {
				base, k := newMemStore(), newKey(t, "log.example/crash")
				filled(t, base, k, size)
				for n, done := 1, false; !done; n++ {
					done = crashAt(t, base.clone(), k, n, late)
					if n > 60 {
						t.Fatal("the fault never passes")
					}
				}
			})
		}
	}
}

// crashAt appends three records with a fault at the n-th change, and reports
// whether it was never reached.
func crashAt(t *testing.T, store *memStore, k key, n int, late bool) bool {
	l := reopen(t, store, k)
	old := l.Head()
	records := entries(t, view(t, store, old, k))
	store.ops, store.failAt, store.late = 0, n, late
	var failed error
	for i := range 3 {
		record := fmt.Appendf(nil, "after %d", i)
		_, head, err := l.Append(ctx, record)
		if err != nil {
			failed = err
			break
		}
		old, records = head, append(records, record)
	}
	if failed == nil {
		return true
	}
	wantError(t, failed, errInjected)
	if !equalHeads(l.Head(), old) {
		t.Fatal("the head moved although the append failed")
	}
	// Either the log says that it must be opened again, or it goes on.
	if _, _, err := l.Append(ctx, []byte("again")); err == nil {
		old, records = l.Head(), append(records, []byte("again"))
	} else {
		wantError(t, err, anchor.ErrPoisoned)
		wantError(t, err, errInjected)
	}
	store.check(t)
	store.crash()
	l = reopen(t, store, k)
	switch l.Head().Size - old.Size {
	case 0:
		if !equalHeads(l.Head(), old) {
			t.Fatalf("fault %d: a third head", n)
		}
	case 1:
		e, err := view(t, store, l.Head(), k).Entry(ctx, old.Size)
		must(t, err)
		records = append(records, e.Record)
	default:
		t.Fatalf("fault %d: head of size %d after one of %d", n, l.Head().Size, old.Size)
	}
	_, head, err := l.Append(ctx, []byte("later"))
	must(t, err)
	v := view(t, store, head, k)
	must(t, v.Extends(ctx, old))
	if !slices.EqualFunc(entries(t, v), append(records, []byte("later")), bytes.Equal) {
		t.Fatalf("fault %d: other records", n)
	}
	return false
}

func TestCreate(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/new")
	_, err := anchor.Open(ctx, store, k.signer, anchor.Options{})
	wantError(t, err, anchor.ErrNoLog)
	l := create(t, store, k)
	if h := l.Head(); h.Size != 0 || h.Origin != "log.example/new" || !h.Root.Defined() {
		t.Fatalf("new log is %+v", h)
	}
	store.crash()
	must(t, reopenError(store, k))
	if got := entries(t, view(t, store, l.Head(), k)); len(got) != 0 {
		t.Fatalf("%d entries", len(got))
	}
	for n := 1; n <= 4; n++ {
		s := newMemStore()
		s.failAt = n
		_, err := anchor.Open(ctx, s, k.signer, anchor.Options{Create: true})
		wantError(t, err, errInjected)
		s.crash()
		create(t, s, k)
	}
}

func reopenError(s anchor.Store, k key) error {
	_, err := anchor.Open(ctx, s, k.signer, anchor.Options{})
	return err
}

func TestRecordSize(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/size")
	l := create(t, store, k)
	_, _, err := l.Append(ctx, make([]byte, anchor.MaxRecordSize+1))
	wantError(t, err, anchor.ErrRecordSize)
	full := slices.Repeat([][]byte{make([]byte, anchor.MaxRecordSize)}, 256)
	_, h, err := l.AppendAll(ctx, full)
	must(t, err)
	if got := entries(t, view(t, store, h, k)); len(got) != 256 || len(got[0]) != anchor.MaxRecordSize {
		t.Fatal("the largest bundle does not come back")
	}
}

func TestAdmit(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/admit")
	refuse := errors.New("not this one")
	var seen []int64
	l, err := anchor.Open(ctx, store, k.signer, anchor.Options{Create: true, Admit: func(h anchor.Head, r []byte) error {
		seen = append(seen, h.Size)
		if string(r) == "bad" {
			return refuse
		}
		return nil
	}})
	must(t, err)
	for _, r := range []string{"a", "bad", "b"} {
		_, _, err := l.Append(ctx, []byte(r))
		if (r == "bad") != errors.Is(err, refuse) {
			t.Fatalf("%s: %v", r, err)
		}
	}
	if l.Head().Size != 2 || !slices.Equal(seen, []int64{0, 1, 1}) {
		t.Fatalf("size %d, asked at %v", l.Head().Size, seen)
	}
}
