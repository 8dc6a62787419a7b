package savepoints_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
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
			f := follow(t, to, savepoints.FollowOptions{Policy: p, Source: url})
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
	o := savepoints.FollowOptions{Policy: p, Source: serve(t, b).GatewayURL(), Keep: 2, Grace: time.Nanosecond}
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
	f = follow(t, to, savepoints.FollowOptions{Policy: p, Source: o.Source})
	f.await(t, 3)
	f.stop(t)
	if got := sequences(t, to); got != "p1 p2 p3 p4 p5 q1" {
		t.Errorf("kept %s", got)
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
		f := follow(t, followed, savepoints.FollowOptions{Policy: p, Source: serve(t, from).GatewayURL()})
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
