package anchor_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"golang.org/x/mod/sumdb/tlog"
)

func TestMirrorFaults(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/mirror")
	l := filled(t, store, k, 200)
	base := newMemStore()
	old, err := anchor.Mirror(ctx, base, anchor.LocalFetcher(store, l.Head().Root), k.policy)
	must(t, err)
	_, newest, err := l.AppendAll(ctx, numbered(200, 500))
	must(t, err)
	f := anchor.LocalFetcher(store, newest.Root)
	for _, late := range []bool{false, true} {
		for n := 1; ; n++ {
			s := base.clone()
			s.failAt, s.late = n, late
			_, err := anchor.Mirror(ctx, s, f, k.policy)
			if err == nil {
				break
			}
			wantError(t, err, errInjected)
			s.crash()
			h, ok, err := anchor.LoadHead(ctx, s, k.policy)
			if err != nil || !ok || h.Size != old.Size && h.Size != newest.Size {
				t.Fatalf("fault %d: %+v, %v, %v", n, h, ok, err)
			}
			h, err = anchor.Mirror(ctx, s, f, k.policy)
			must(t, err)
			if got := entries(t, view(t, s, h, k)); !slices.EqualFunc(got, numbered(0, 700), bytes.Equal) {
				t.Fatalf("fault %d: mirror has other records", n)
			}
		}
	}
}

// An equal head writes nothing.
func TestMirrorOfSameHead(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/same")
	f := anchor.LocalFetcher(store, filled(t, store, k, 3).Head().Root)
	copied := newMemStore()
	first, err := anchor.Mirror(ctx, copied, f, k.policy)
	must(t, err)
	copied.ops = 0
	again, err := anchor.Mirror(ctx, copied, f, k.policy)
	must(t, err)
	if copied.ops != 0 || !equalHeads(first, again) {
		t.Fatalf("%d changes; %+v and %+v", copied.ops, first, again)
	}
}

// A head that was cosigned again takes the place of the one that is held; the older one
// does not come back.
func TestMirrorOfFresherHead(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/again")
	p := quorum(t, k, 1, newWitnesses(t, k, 1))
	l := openWitnessed(t, store, k, p)
	appendOne(t, l, "a")
	first, err := l.Publish(ctx, clients(p))
	must(t, err)
	copied := newMemStore()
	_, err = anchor.Mirror(ctx, copied, anchor.LocalFetcher(store, first.Root), p)
	must(t, err)
	for anchor.CosignedSince(p, first.Head, time.Now().Truncate(time.Second)) { // cosignatures tell seconds
		time.Sleep(5 * time.Millisecond)
	}
	second, err := l.Publish(ctx, clients(p))
	must(t, err)
	if !anchor.Fresher(p, second.Head, first.Head) {
		t.Fatal("no newer cosignature")
	}
	for _, from := range []anchor.Cosigned{second, first} {
		_, err := anchor.Mirror(ctx, copied, anchor.LocalFetcher(store, from.Root), p)
		must(t, err)
		h, ok, err := anchor.LoadHead(ctx, copied, p)
		if err != nil || !ok || !bytes.Equal(h.Checkpoint, second.Checkpoint) {
			t.Fatalf("%q %v", h.Checkpoint, err)
		}
	}
	// A longer log still follows.
	appendOne(t, l, "b")
	third, err := l.Publish(ctx, clients(p))
	must(t, err)
	h, err := anchor.Mirror(ctx, copied, anchor.LocalFetcher(store, third.Root), p)
	if err != nil || h.Size != 2 {
		t.Errorf("size %d, %v", h.Size, err)
	}
}

// A copy is believed by the policy under which it was made, and grows under the present one
// alone.
func TestMirrorUnderEarlierPolicy(t *testing.T) {
	store, then, now := newMemStore(), newKey(t, "log.example/keys"), newKey(t, "log.example/keys")
	l := create(t, store, then)
	copied := newMemStore()
	_, err := anchor.Mirror(ctx, copied, anchor.LocalFetcher(store, appendOne(t, l, "a").Root), then.policy)
	must(t, err)
	unknown := appendOne(t, l, "b") // by the old key alone
	both, err := anchor.Open(ctx, store, then.signer, anchor.Options{More: []anchor.Signer{now.signer}})
	must(t, err)
	next := appendOne(t, both, "c")
	if _, _, err := anchor.LoadHead(ctx, copied, now.policy); !errors.Is(err, anchor.ErrUntrusted) {
		t.Error(err)
	}
	if h, ok, err := anchor.LoadHead(ctx, copied, now.policy, then.policy); err != nil || !ok || h.Size != 1 {
		t.Errorf("size %d, %v", h.Size, err)
	}
	if _, err := anchor.Mirror(ctx, copied, anchor.LocalFetcher(store, unknown.Root), now.policy, then.policy); !errors.Is(err, anchor.ErrUntrusted) {
		t.Errorf("a new head under the old key: %v", err)
	}
	h, err := anchor.Mirror(ctx, copied, anchor.LocalFetcher(store, next.Root), now.policy, then.policy)
	if err != nil || h.Size != 3 {
		t.Errorf("size %d, %v", h.Size, err)
	}
	_, _, err = anchor.LoadHead(ctx, copied, now.policy)
	must(t, err)
}

// A log whose host lost its store goes on from a mirror of it.
func TestLogFromMirror(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/back")
	h := filled(t, store, k, 300).Head()
	other := newMemStore()
	_, err := anchor.Mirror(ctx, other, anchor.LocalFetcher(store, h.Root), k.policy)
	must(t, err)
	_, next, err := reopen(t, other, k).Append(ctx, []byte("more"))
	must(t, err)
	must(t, view(t, other, next, k).Extends(ctx, h))
}

func TestForkAndRollback(t *testing.T) {
	k := newKey(t, "log.example/fork")
	store := newMemStore()
	l := filled(t, store, k, 300)
	fork := store.clone()
	small := l.Head()
	_, honest, err := l.AppendAll(ctx, numbered(300, 10))
	must(t, err)
	lf := reopen(t, fork, k)
	_, fewer, err := lf.AppendAll(ctx, [][]byte{[]byte("other")})
	must(t, err)
	_, same, err := lf.AppendAll(ctx, numbered(301, 9))
	must(t, err)
	_, larger, err := lf.AppendAll(ctx, numbered(310, 300))
	must(t, err)

	follower := newMemStore()
	_, err = anchor.Mirror(ctx, follower, anchor.LocalFetcher(store, honest.Root), k.policy)
	must(t, err)
	before := follower.clone()

	for _, evil := range []anchor.Head{same, larger} {
		_, err := anchor.Mirror(ctx, follower, anchor.LocalFetcher(fork, evil.Root), k.policy)
		wantError(t, err, anchor.ErrFork)
		var e *anchor.ForkError
		if !errors.As(err, &e) || !bytes.Equal(e.Old.Checkpoint, honest.Checkpoint) || !bytes.Equal(e.New.Checkpoint, evil.Checkpoint) {
			t.Fatalf("evidence is %+v", e)
		}
		if e.Root == honest.RootHash {
			t.Fatal("evidence shows no contradiction")
		}
		if evil.Size > honest.Size {
			must(t, tlog.CheckTree(e.Proof, e.New.Size, e.New.RootHash, e.Old.Size, e.Root))
		}
	}
	// What is held proves that a smaller head is of another history, and not an old one.
	_, err = anchor.Mirror(ctx, follower, anchor.LocalFetcher(fork, fewer.Root), k.policy)
	wantError(t, err, anchor.ErrFork)
	var smaller *anchor.ForkError
	if !errors.As(err, &smaller) || smaller.Old.Size != fewer.Size || smaller.New.Size != honest.Size {
		t.Fatalf("evidence is %+v", smaller)
	}
	_, err = anchor.Mirror(ctx, follower, anchor.LocalFetcher(store, small.Root), k.policy)
	wantError(t, err, anchor.ErrRollback)
	var r *anchor.RollbackError
	if !errors.As(err, &r) || r.Old.Size != 310 || !bytes.Equal(r.New.Checkpoint, small.Checkpoint) {
		t.Fatalf("evidence is %+v", r)
	}
	name := anchor.HeadName("log.example/fork")
	if !bytes.Equal(before.heads[name], follower.heads[name]) {
		t.Fatal("the head changed")
	}
	err = view(t, store, honest, k).Extends(ctx, anchor.Head{Origin: "log.example/else"})
	wantError(t, err, anchor.ErrUntrusted)
}

func TestFloor(t *testing.T) {
	k := newKey(t, "log.example/floor")
	store := newMemStore()
	l := filled(t, store, k, 10)
	low := l.Head()
	_, high, err := l.AppendAll(ctx, numbered(10, 10))
	must(t, err)
	other := newMemStore()
	forked := filled(t, other, k, 0)
	_, wrong, err := forked.AppendAll(ctx, numbered(5, 15))
	must(t, err)
	with := func(h anchor.Head) *anchor.Policy {
		return parsePolicy(t, fmt.Sprintf("# ipfs-savepoint: floor %d %v\nlog %s\nquorum none\n", h.Size, h.RootHash, k.vkey))
	}
	for _, c := range []struct {
		name  string
		floor anchor.Head
		head  anchor.Head
		want  error
	}{
		{"above", low, high, nil},
		{"equal", high, high, nil},
		{"below", high, low, anchor.ErrRollback},
		{"other", wrong, high, anchor.ErrFork},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := anchor.OpenView(ctx, anchor.LocalFetcher(store, c.head.Root), with(c.floor))
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
	_, _, err = anchor.LoadHead(ctx, store, with(wrong))
	wantError(t, err, anchor.ErrFork)
	_, ok, err := anchor.LoadHead(ctx, store, with(low))
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
}

// serve gives out the files below a log root over HTTP, as any gateway would.
func serve(t *testing.T, s *memStore, h anchor.Head) string {
	t.Helper()
	paths := map[string][]byte{}
	for doc, err := range dag.Documents(ctx, s, h.Root) {
		must(t, err)
		b, err := s.Get(ctx, doc.Link.CID)
		must(t, err)
		paths["/"+doc.Path] = b
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := paths[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// A tlog-tiles client of other people reads the log from plain files, and what
// it serves can be mirrored.
func TestOtherClientReads(t *testing.T) {
	for _, size := range []int{1, 255, 256, 257, 700} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			store, k := newMemStore(), newKey(t, "log.example/http")
			l := filled(t, store, k, size-1)
			_, h, err := l.Append(ctx, fmt.Appendf(nil, "record %d", size-1))
			must(t, err)
			tiles, err := torchwood.NewTileFetcher(serve(t, store, h))
			must(t, err)
			policy, err := torchwood.ParsePolicy(anchor.FormatPolicy(k.vkey))
			must(t, err)
			signed, err := tiles.ReadEndpoint(ctx, "checkpoint")
			must(t, err)
			c, _, err := torchwood.VerifyCheckpoint(signed, policy)
			must(t, err)
			client, err := torchwood.NewClient(tiles)
			must(t, err)
			var got [][]byte
			for _, e := range client.AllEntries(ctx, c.Tree, 0) {
				got = append(got, bytes.Clone(e))
			}
			must(t, client.Err())
			if !slices.EqualFunc(got, numbered(0, size), bytes.Equal) {
				t.Fatalf("%d entries", len(got))
			}
			record, proof, err := client.Entry(ctx, c.Tree, int64(size/2))
			must(t, err)
			must(t, tlog.CheckRecord(proof, c.N, c.Hash, int64(size/2), tlog.RecordHash(record)))
			if size > 1 {
				reader := torchwood.TileHashReaderWithContext(ctx, c.Tree, tiles)
				p, err := tlog.ProveTree(c.N, c.N-1, reader)
				must(t, err)
				must(t, tlog.CheckTree(p, c.N, c.Hash, c.N-1, tlog.Hash(merkle(numbered(0, size-1)))))
			}
			mirrored, err := anchor.Mirror(ctx, newMemStore(), tiles, k.policy)
			must(t, err)
			if mirrored.RootHash != h.RootHash {
				t.Fatal("mirror over HTTP has another root")
			}
			own, err := view(t, store, h, k).Prove(ctx, int64(size/2), record)
			must(t, err)
			must(t, torchwood.VerifyProof(policy, tlog.RecordHash(record), own))
		})
	}
}

// A reader whose head is older than the partial tiles that are left uses the
// full tiles that replaced them.
func TestOldHeadAgainstFullTiles(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/old")
	l := filled(t, store, k, 250)
	old := l.Head()
	_, newest, err := l.AppendAll(ctx, numbered(250, 300))
	must(t, err)
	all := anchor.LocalFetcher(store, newest.Root)
	gone := errors.New("404")
	f := fetcher{all, map[string]func([]byte) ([]byte, error){
		"checkpoint": func([]byte) ([]byte, error) { return old.Checkpoint, nil },
	}}
	for _, path := range partialPaths(old.Size) {
		f.replace[path] = func([]byte) ([]byte, error) { return nil, gone }
	}
	v, err := anchor.OpenView(ctx, f, k.policy)
	must(t, err)
	if got := entries(t, v); !slices.EqualFunc(got, numbered(0, 250), bytes.Equal) {
		t.Fatalf("%d entries", len(got))
	}
}
