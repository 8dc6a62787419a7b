package savepoints_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
)

// aged makes the receipts of a bank, in the order of their log, as old as given.
func aged(t *testing.T, b *savepoints.Bank, ages ...time.Duration) {
	t.Helper()
	files := receiptFiles(t, b)
	slices.Sort(files)
	if len(files) != len(ages) {
		t.Fatalf("%d receipts, %d ages", len(files), len(ages))
	}
	for i, f := range files {
		at := time.Now().Add(-ages[i])
		must(t, os.Chtimes(f, at, at))
	}
}

func sequences(t *testing.T, b *savepoints.Bank) string {
	t.Helper()
	var out []string
	for _, s := range list(t, b) {
		_, err := b.Verify(ctx, s)
		must(t, err)
		out = append(out, s.Manifest.Policy.ID+string(rune('0'+s.Entry.Sequence)))
	}
	return strings.Join(out, " ")
}

func TestRetain(t *testing.T) {
	b := initBank(t)
	for i, policy := range []string{"p", "p", "q", "p", "p"} {
		take(t, b, smallState(i), policy)
	}
	url := serve(t, b).GatewayURL()
	const day, old = 24 * time.Hour, 48 * time.Hour
	for name, c := range map[string]struct {
		keep int
		ages []time.Duration
		want string
	}{
		"all are kept":                     {0, []time.Duration{old, old, old, old, old}, "p1 p2 q1 p3 p4"},
		"the newest":                       {1, []time.Duration{old, old, old, old, old}, "q1 p4"},
		"the newest two":                   {2, []time.Duration{old, old, old, old, old}, "q1 p3 p4"},
		"more than there are":              {9, []time.Duration{old, old, old, old, old}, "p1 p2 q1 p3 p4"},
		"new ones do not push out old":     {1, []time.Duration{old, old, old, 0, 0}, "p2 q1 p3 p4"},
		"what has just been received":      {1, []time.Duration{0, old, old, old, old}, "p1 q1 p4"},
		"a clock that went back":           {1, []time.Duration{-old, -old, -old, -old, -old}, "p1 p2 q1 p3 p4"},
		"a clock that went back meanwhile": {1, []time.Duration{old, old, old, -old, -old}, "p2 q1 p3 p4"},
	} {
		t.Run(name, func(t *testing.T) {
			to, p := reader(t, b)
			f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{url}})
			f.await(t, 5)
			f.stop(t)
			aged(t, to, c.ages...)
			dropped, err := to.Retain(ctx, b.Origin(), c.keep, day)
			must(t, err)
			if got := sequences(t, to); got != c.want || len(dropped)+len(list(t, to)) != 5 {
				t.Errorf("kept %s, given up %d", got, len(dropped))
			}
			_, err = to.Collect(ctx, segments.CollectOptions{All: true})
			must(t, err)
			if got := sequences(t, to); got != c.want {
				t.Errorf("kept %s after collecting", got)
			}
			for _, s := range dropped {
				if has, err := to.Repo().Blocks.Has(ctx, s.CID); err != nil || has {
					t.Errorf("%s is still here: %v", s.CID, err)
				}
			}
			again, err := to.Retain(ctx, b.Origin(), c.keep, day)
			if err != nil || len(again) > 0 {
				t.Errorf("%d given up once more, %v", len(again), err)
			}
		})
	}
	if dropped, err := b.Retain(ctx, b.Origin(), 1, 0); err != nil || len(dropped) > 0 || sequences(t, b) != "p1 p2 q1 p3 p4" {
		t.Errorf("of the own log %d are given up, %v", len(dropped), err)
	}
	if _, err := b.Retain(ctx, "x", -1, 0); !errors.Is(err, savepoints.ErrUsage) {
		t.Error(err)
	}
}

// A follower fetches what it is to keep and no more, gives up what is outdated, and does
// not fetch that again.
func TestFollowKeeps(t *testing.T) {
	b := initBank(t)
	for i := range 4 {
		take(t, b, smallState(i), "p")
	}
	to, p := reader(t, b)
	o := savepoints.FollowOptions{Policy: p, Sources: []string{serve(t, b).GatewayURL()}, Keep: 2, Grace: time.Nanosecond}
	f := follow(t, to, o)
	f.await(t, 2)
	take(t, b, smallState(4), "p")
	f.await(t, 3)
	await(t, "the oldest to go", func() bool { return len(receiptFiles(t, to)) == 2 })
	take(t, b, smallState(5), "q")
	f.await(t, 4)
	f.stop(t)
	if got := sequences(t, to); got != "p4 p5 q1" {
		t.Errorf("kept %s", got)
	}
	if fetched, failed := f.counts(); fetched != 4 || failed > 0 {
		t.Errorf("fetched %d, failed %d: %v", fetched, failed, f.failed)
	}
	// Without a rule everything is fetched that the log has.
	f = follow(t, to, savepoints.FollowOptions{Policy: p, Sources: o.Sources})
	f.await(t, 3)
	f.stop(t)
	if got := sequences(t, to); got != "p1 p2 p3 p4 p5 q1" {
		t.Errorf("kept %s", got)
	}
}

// What cannot be had does not count: an older save point is fetched in its place, and
// given up once it can.
func TestFollowKeepsWhatCanBeHad(t *testing.T) {
	b := initBank(t)
	take(t, b, state{"a": "first document"}, "p")
	take(t, b, state{"a": "second document"}, "p")
	withheld := []byte("third document, withheld")
	take(t, b, state{"a": string(withheld)}, "p")
	damageBlock(t, b, withheld)
	to, p := reader(t, b)
	f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{serve(t, b).GatewayURL()}, Keep: 1, Grace: time.Nanosecond})
	f.await(t, 1)
	if got := sequences(t, to); got != "p2" {
		t.Errorf("kept %s", got)
	}
	await(t, "the trouble to be told", func() bool { _, failed := f.counts(); return failed > 0 })
	must(t, b.Repo().Blocks.Heal(ctx, nil, dag.RawBlock(withheld)))
	f.await(t, 2)
	await(t, "the older one to go", func() bool { return len(receiptFiles(t, to)) == 1 })
	f.stop(t)
	if got := sequences(t, to); got != "p3" {
		t.Errorf("kept %s", got)
	}
}

// holdsBlock reports whether a bank has an IPFS block, without relying on it.
func holdsBlock(t *testing.T, b *savepoints.Bank, c cid.Cid) bool {
	t.Helper()
	for have, err := range b.Repo().Blocks.All(ctx) {
		must(t, err)
		if bytes.Equal(have.Hash(), c.Hash()) {
			return true
		}
	}
	return false
}

// A collection that fails after something was given up is done later.
func TestFollowCollectsLater(t *testing.T) {
	b := initBank(t)
	first := take(t, b, smallState(0), "p")
	second := take(t, b, smallState(1), "p")
	to, p := reader(t, b)
	o := savepoints.FollowOptions{Policy: p, Sources: []string{serve(t, b).GatewayURL()}}
	f := follow(t, to, o)
	f.await(t, 2)
	f.stop(t)
	node, err := b.Repo().Blocks.Get(ctx, second.Manifest.State)
	must(t, err)
	damageBlock(t, to, node)
	o.Keep, o.Grace = 1, time.Nanosecond
	f = follow(t, to, o)
	await(t, "the first one to go", func() bool { return len(receiptFiles(t, to)) == 1 })
	await(t, "the trouble to be told", func() bool { _, failed := f.counts(); return failed > 0 })
	if !holdsBlock(t, to, first.CID) {
		t.Fatal("it was collected while something is missing")
	}
	must(t, to.Repo().Blocks.Heal(ctx, nil, dag.Block{CID: second.Manifest.State, Data: node}))
	await(t, "the collection", func() bool { return !holdsBlock(t, to, first.CID) })
	f.stop(t)
	if got := sequences(t, to); got != "p2" {
		t.Errorf("kept %s", got)
	}
}

// foreignLog makes a log of another name that anchors the save points of a bank, and
// serves both.
func foreignLog(t *testing.T, b *savepoints.Bank) (policy []byte, url string) {
	t.Helper()
	const origin = "foreign.example/log"
	r, err := node.Create(ctx, filepath.Join(t.TempDir(), "foreign"))
	must(t, err)
	t.Cleanup(func() { r.Close() })
	skey, vkey, err := anchor.GenerateKey(origin)
	must(t, err)
	signer, err := anchor.NewSigner(skey)
	must(t, err)
	l, err := anchor.Open(ctx, foreignStore{r.Blocks, r}, signer, anchor.Options{Create: true})
	must(t, err)
	for _, s := range list(t, b) {
		for c, err := range dag.Walk(ctx, b.Repo().Blocks, dag.Limits{}, s.CID) {
			must(t, err)
			data, err := b.Repo().Blocks.Get(ctx, c)
			must(t, err)
			must(t, r.Blocks.Put(ctx, dag.Block{CID: c, Data: data}))
		}
		record, err := entry.Of(origin, s.Manifest, s.CID, entry.Naming{}).Encode()
		must(t, err)
		_, _, err = l.Append(ctx, record)
		must(t, err)
	}
	root := l.Head().Root
	n, err := r.Serve(ctx, node.ServeOptions{Gateway: "127.0.0.1:0", Logs: func(context.Context, string) (cid.Cid, bool) { return root, true }})
	must(t, err)
	t.Cleanup(func() { n.Close() })
	return anchor.FormatPolicy(vkey), n.GatewayURL()
}

type foreignStore struct {
	*segments.Store
	repo *node.Repo
}

func (s foreignStore) Head(ctx context.Context, name string) ([]byte, error) {
	return s.repo.Head(ctx, name)
}

func (s foreignStore) SwapHead(ctx context.Context, name string, old, new []byte) error {
	return s.repo.SwapHead(ctx, name, old, new)
}

// A log that anchors the save points of another takes none of them away, also while
// the policy of the other is not in force, and nothing goes while a receipt is damaged.
func TestRetainLeavesOtherLogs(t *testing.T) {
	b := initBank(t)
	for i := range 2 {
		take(t, b, smallState(i), "p")
	}
	url := serve(t, b).GatewayURL()
	to, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "to"))
	must(t, err)
	t.Cleanup(func() { to.Close() })
	policy, err := b.TrustPolicy()
	must(t, err)
	good, p, err := to.Trust(policy) // of this command alone, as with --trust
	must(t, err)
	for _, s := range list(t, b) {
		_, err := fetch(good, savepoints.Ref{CID: s.CID}, p, url)
		must(t, err)
	}
	policy, url = foreignLog(t, b)
	foreign, p, err := to.Trust(policy)
	must(t, err)
	f := follow(t, foreign, savepoints.FollowOptions{Policy: p, Sources: []string{url}})
	f.await(t, 2)
	f.stop(t)

	for _, path := range receiptFiles(t, to) {
		if strings.HasPrefix(filepath.Base(path), savepoints.LogID(b.Origin())[:16]) {
			sound, err := os.ReadFile(path)
			must(t, err)
			damage(t, path, 60) // in the entry
			if dropped, err := foreign.Retain(ctx, p.Origin, 1, 0); !errors.Is(err, savepoints.ErrDamaged) || len(dropped) > 0 {
				t.Errorf("%d given up, %v", len(dropped), err)
			}
			must(t, os.WriteFile(path, sound, 0o600))
		}
	}
	if dropped, err := foreign.Retain(ctx, p.Origin, 1, 0); err != nil || len(dropped) != 1 {
		t.Fatalf("%d given up, %v", len(dropped), err)
	}
	_, err = foreign.Collect(ctx, segments.CollectOptions{All: true})
	must(t, err)
	if got := sequences(t, good); got != "p1 p2" {
		t.Errorf("kept %s", got)
	}
}

// A save point that comes from one log while another gives it up stays pinned.
func TestRetainBesideFetch(t *testing.T) {
	b := initBank(t)
	for i := range 2 {
		take(t, b, smallState(i), "p")
	}
	all := list(t, b)
	goodURL := serve(t, b).GatewayURL()
	policy, url := foreignLog(t, b)
	goodPolicy, err := b.TrustPolicy()
	must(t, err)
	for range 10 {
		to, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "to"))
		must(t, err)
		foreign, p, err := to.Trust(policy)
		must(t, err)
		good, g, err := to.Trust(goodPolicy)
		must(t, err)
		f := follow(t, foreign, savepoints.FollowOptions{Policy: p, Sources: []string{url}})
		f.await(t, 2)
		f.stop(t)
		fetched := make(chan error)
		go func() {
			_, err := fetch(good, savepoints.Ref{CID: all[0].CID}, g, goodURL)
			fetched <- err
		}()
		for done := false; !done; {
			select {
			case err := <-fetched:
				must(t, err)
				done = true
			default:
			}
			// The receipt is being written, or is there.
			writing, err := filepath.Glob(filepath.Join(to.Repo().Dir(), "meta/receipts/.*"))
			must(t, err)
			if len(writing) > 0 || done {
				_, err := foreign.Retain(ctx, p.Origin, 1, 0)
				must(t, err)
			}
		}
		_, err = good.Verify(ctx, list(t, good)[0]) // its pin, too
		must(t, err)
		must(t, to.Close())
	}
}

// Own and followed logs lie side by side, a head each, also after opening anew, and the
// rule for one takes nothing from the others.
func TestLogsSideBySide(t *testing.T) {
	one, two, own := initBank(t), initBank(t), initBank(t)
	take(t, own, smallState(0), "own")
	for i := range 3 {
		take(t, one, smallState(i), "p")
		take(t, two, smallState(i), "p") // the same states, other save points
	}
	to := own
	for _, from := range []*savepoints.Bank{one, two} {
		followed, p := trusting(t, to, from)
		f := follow(t, followed, savepoints.FollowOptions{Policy: p, Sources: []string{serve(t, from).GatewayURL()}})
		f.await(t, 3)
		f.stop(t)
		to = followed
	}
	dropped, err := to.Retain(ctx, one.Origin(), 1, 0)
	if err != nil || len(dropped) != 2 {
		t.Fatalf("%d given up, %v", len(dropped), err)
	}
	_, err = to.Collect(ctx, segments.CollectOptions{All: true})
	must(t, err)
	to = reopen(t, to)
	for origin, want := range map[string]struct{ size, held int }{own.Origin(): {1, 1}, one.Origin(): {3, 1}, two.Origin(): {3, 3}} {
		h, err := to.Head(ctx, origin)
		must(t, err)
		must(t, to.VerifyLog(ctx, origin))
		held := 0
		for _, s := range list(t, to) {
			if s.Origin == origin {
				held++
				_, err := to.Verify(ctx, s)
				must(t, err)
			}
		}
		if int(h.Size) != want.size || held != want.held {
			t.Errorf("log %s: size %d, %d held, want %+v", origin, h.Size, held, want)
		}
	}
}

// An IPFS node that holds the IPFS blocks and no log is asked for them, when another
// source shows the log.
func TestFetchFromSourceWithoutLog(t *testing.T) {
	b := initBank(t)
	taken := take(t, b, someState(), "p")
	url := serve(t, b).GatewayURL()
	onlyLog := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/ipfs/") {
			http.NotFound(w, r)
			return
		}
		resp, err := http.Get(url + r.URL.RequestURI())
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}))
	defer onlyLog.Close()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
	must(t, err)
	defer h.Close()
	plain := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	for c, err := range dag.Walk(ctx, b.Repo().Blocks, dag.Limits{}, taken.CID) {
		must(t, err)
		data, err := b.Repo().Blocks.Get(ctx, c)
		must(t, err)
		block, err := blocks.NewBlockWithCid(data, c)
		must(t, err)
		must(t, plain.Put(ctx, block))
	}
	ipfs := bitswap.New(context.Background(), bsnet.NewFromIpfsHost(h), nil, plain)
	defer ipfs.Close()
	address := h.Addrs()[0].String() + "/p2p/" + h.ID().String()

	to, p := reader(t, b)
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, onlyLog.URL); err == nil {
		t.Fatal("the log alone has the IPFS blocks")
	}
	from := map[string]uint64{}
	got, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, savepoints.FetchOptions{
		Policy: p, Sources: []string{onlyLog.URL, address},
		Progress: func(p node.Progress) { from[p.Source] = p.SourceBlocks },
	})
	must(t, err)
	checkDocuments(t, to, got.Savepoint, someState())
	if from[address] == 0 || from[onlyLog.URL] > 0 {
		t.Errorf("IPFS blocks from %v", from)
	}
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, address); err == nil {
		t.Error("a source without the log alone is believed")
	}
}
