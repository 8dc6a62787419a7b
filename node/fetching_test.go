package node

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
)

// Of a DAG that resembles one which is held only what differs is fetched.
func TestFetchOfDifference(t *testing.T) {
	o := newOrigin(t)
	to := newRepo(t)
	must(t, to.Fetch(ctx, []*Remote{o.honest(t)}, o.root, nil))
	must(t, to.Pin(ctx, o.root, "first"))
	before := o.repo.Blocks.Len()
	var edit dag.Editor
	link, _, err := dag.WriteDocument(ctx, o.repo.Blocks, strings.NewReader("changed"))
	must(t, err)
	must(t, edit.Put("credentials/050.json", link))
	next, err := edit.Apply(ctx, o.repo.Blocks, o.repo.Blocks, o.root)
	must(t, err)
	changed := o.repo.Blocks.Len() - before
	var got Progress
	must(t, to.Fetch(ctx, []*Remote{o.honest(t)}, next.CID, func(p Progress) { got = p }))
	if int(got.Blocks) != changed {
		t.Errorf("%d IPFS blocks were fetched, %d differ", got.Blocks, changed)
	}
	o.docs["credentials/050.json"] = []byte("changed")
	checkState(t, to.Blocks, next.CID, o.docs)
}

// A stranger is fetched whole once it has shown that it resembles nothing held.
func TestFetchOfStranger(t *testing.T) {
	o := newOrigin(t)
	to := newRepo(t)
	other := dag.RawBlock([]byte("something else"))
	must(t, to.Blocks.Put(ctx, other))
	must(t, to.Pin(ctx, other.CID, "other"))
	var requests atomic.Int32
	src := through(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		o.gateway.ServeHTTP(w, r)
	})
	must(t, to.Fetch(ctx, []*Remote{src}, o.root, nil))
	checkState(t, to.Blocks, o.root, o.docs)
	if n := int(requests.Load()); n >= to.Blocks.Len() {
		t.Errorf("%d requests for %d IPFS blocks", n, to.Blocks.Len())
	}
}

// Several sources share the work.
func TestFetchFromSeveralSources(t *testing.T) {
	o := newOrigin(t)
	to := newRepo(t)
	// Below the root neither answers before the other one was asked for something.
	var sources []*Remote
	asked := []chan struct{}{make(chan struct{}), make(chan struct{})}
	for i := range 2 {
		var once sync.Once
		sources = append(sources, through(t, func(w http.ResponseWriter, r *http.Request) {
			if requested(r) != o.root {
				once.Do(func() { close(asked[i]) })
				select {
				case <-asked[1-i]:
				case <-r.Context().Done():
				}
			}
			o.gateway.ServeHTTP(w, r)
		}))
	}
	gave := map[string]uint64{}
	must(t, to.Fetch(ctx, sources, o.root, func(p Progress) { gave[p.Source] = p.SourceBlocks }))
	checkState(t, to.Blocks, o.root, o.docs)
	if len(gave) != 2 || gave[sources[0].Name]+gave[sources[1].Name] != uint64(to.Blocks.Len()) {
		t.Errorf("%v of %d IPFS blocks", gave, to.Blocks.Len())
	}
}

// Sources that each have a part have the whole together.
func TestFetchFromSourcesWithParts(t *testing.T) {
	o := newOrigin(t)
	part := func(has func(cid.Cid) bool) *Remote {
		return through(t, func(w http.ResponseWriter, r *http.Request) {
			if c := requested(r); !has(c) && c != o.root {
				http.NotFound(w, r)
				return
			}
			q := r.URL.Query()
			q.Set("dag-scope", "block") // of more it has not all
			r.URL.RawQuery = q.Encode()
			o.gateway.ServeHTTP(w, r)
		})
	}
	odd := func(c cid.Cid) bool { return c.Hash()[33]%2 == 1 }
	to := newRepo(t)
	sources := []*Remote{part(odd), part(func(c cid.Cid) bool { return !odd(c) })}
	must(t, to.Fetch(ctx, sources, o.root, nil))
	checkState(t, to.Blocks, o.root, o.docs)
	err := newRepo(t).Fetch(ctx, sources[:1], o.root, nil)
	if !errors.Is(err, ErrIncomplete) || !errors.Is(err, dag.ErrNotFound) || !strings.Contains(err.Error(), sources[0].Name) {
		t.Errorf("half of it: %v", err)
	}
}

// A peer without a gateway is asked by bitswap, as kubo with its defaults.
func TestFetchByBitswap(t *testing.T) {
	o := newOrigin(t)
	h, err := libp2p.New(libp2p.ListenAddrStrings(anySwarm), libp2p.DisableRelay(), libp2p.DisableMetrics())
	must(t, err)
	defer h.Close()
	b := bitswap.New(context.Background(), bsnet.NewFromIpfsHost(h), nil, readOnly{o.repo.Blocks})
	defer b.Close()
	to := newRepo(t)
	src, err := to.Dial(h.Addrs()[0].String() + "/p2p/" + h.ID().String())
	must(t, err)
	defer src.Close()
	var last Progress
	must(t, to.Fetch(ctx, []*Remote{src}, o.root, func(p Progress) { last = p }))
	checkState(t, to.Blocks, o.root, o.docs)
	if int(last.Blocks) != to.Blocks.Len() || last.Source != src.Name {
		t.Errorf("progress %+v, %d IPFS blocks", last, to.Blocks.Len())
	}
}

const testSwarmKey = "/key/swarm/psk/1.0.0/\n/base16/\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"

// Only who has the swarm key is talked to.
func TestSwarmKey(t *testing.T) {
	o := newOrigin(t)
	must(t, o.repo.SetSwarmKey([]byte(testSwarmKey)))
	n := serve(t, o.repo, nil)
	with := newRepo(t)
	must(t, with.SetSwarmKey([]byte(testSwarmKey)))
	other := newRepo(t)
	must(t, other.SetSwarmKey([]byte(strings.Replace(testSwarmKey, "0123", "3210", 1))))
	for name, c := range map[string]struct {
		repo *Repo
		ok   bool
	}{"the key": {with, true}, "another": {other, false}, "none": {newRepo(t), false}} {
		src, err := c.repo.Dial(n.Addresses()[0])
		must(t, err)
		err = c.repo.Fetch(ctx, []*Remote{src}, o.root, nil)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrUnreachable) {
			t.Errorf("with %s: %v", name, err)
		}
		must(t, src.Close())
	}
	if err := with.SetSwarmKey([]byte("0123")); err == nil {
		t.Error("a bad swarm key is kept")
	}
	st, err := os.Stat(filepath.Join(with.Dir(), swarmKeyFile))
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

// slowSource sends a byte now and then.
func TestSlowSource(t *testing.T) {
	if minRate/int(stallTimeout/time.Second) < 1000 {
		t.Errorf("%d bytes in %s is as good as silent", minRate, stallTimeout)
	}
	o := newOrigin(t)
	src := through(t, func(w http.ResponseWriter, r *http.Request) {
		car := o.carOf(t, requested(r))
		for _, b := range car {
			if _, err := w.Write([]byte{b}); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	src.patience = time.Second
	err := newRepo(t).Fetch(ctx, []*Remote{src}, o.root, nil)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "too slow") {
		t.Fatal(err)
	}
	to := newRepo(t)
	must(t, to.Fetch(ctx, []*Remote{src, o.honest(t)}, o.root, nil))
	checkState(t, to.Blocks, o.root, o.docs)
}
