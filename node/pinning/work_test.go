package pinning

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/go-cid"
)

// A pin of the repository itself, and a request's, of one DAG: each goes with its own
// owner. So it is with two requests.
func TestPinsOfDifferentOwners(t *testing.T) {
	p := newPeer(t).start(Options{})
	own := p.putDAG("own")
	must(t, p.repo.Pin(ctx, own, "policy"))
	first, second := p.add(own), p.add(own)
	p.awaitStatus(first, pinned)
	p.awaitStatus(second, pinned)

	p.call("DELETE", "/pins/"+first, "", nil)
	if !p.pinned(own) {
		t.Error("the pin of one request went with another")
	}
	must(t, p.repo.Unpin(own))
	if ok, err := p.repo.Pinned(own); ok || err != nil || !p.pinned(own) {
		t.Error("the request's pin went with the repository's")
	}
	must(t, p.repo.Pin(ctx, own, "policy"))
	p.call("DELETE", "/pins/"+second, "", nil)
	if ok, err := p.repo.Pinned(own); !ok || err != nil || p.pinned(own) {
		t.Errorf("after both requests: pinned by itself %v, %v, by requests %v", ok, err, p.pinned(own))
	}
}

// What a request has pinned is no garbage, and becomes it when the request goes.
func TestCollect(t *testing.T) {
	from, to := newPeer(t), newPeer(t).start(Options{})
	root := from.putDAG("one")
	id := to.add(root, from.address())
	to.awaitStatus(id, pinned)
	noRoots := func(context.Context) ([]cid.Cid, error) { return nil, nil }
	collect := func() {
		t.Helper()
		_, err := to.repo.Collect(ctx, noRoots, segments.CollectOptions{})
		must(t, err)
	}
	collect()
	if !to.holds(root) {
		t.Fatal("it was collected")
	}
	to.call("DELETE", "/pins/"+id, "", nil)
	collect()
	if to.holds(root) {
		t.Error("it is still there")
	}
}

// The node is stopped while a request cannot be fulfilled. When it runs again, and the
// origin does, the request is fulfilled.
func TestRestart(t *testing.T) {
	dir, fromDir := filepath.Join(t.TempDir(), "to"), filepath.Join(t.TempDir(), "from")
	from := open(t, fromDir, "/ip4/127.0.0.1/tcp/0")
	root, address := from.putDAG("one"), from.address()
	from.close()
	to := open(t, dir, "/ip4/127.0.0.1/tcp/0").start(Options{Pauses: []time.Duration{time.Hour}})
	here := to.putDAG("here")
	done, waits := to.add(here), to.add(root, address)
	to.awaitStatus(done, pinned)
	await(t, "the first try", func() bool {
		var s pinStatus
		to.call("GET", "/pins/"+waits, "", &s)
		return strings.Contains(s.Info["status_details"], "to be tried again")
	})
	to.close()

	listen, _, _ := strings.Cut(address, "/p2p/")
	open(t, fromDir, listen)
	to = open(t, dir, "/ip4/127.0.0.1/tcp/0").start(Options{})
	to.awaitStatus(waits, pinned)
	if !to.holds(root) || !to.pinned(root) || !to.pinned(here) {
		t.Error("not all is there")
	}
	var list struct {
		Count   int
		Results []pinStatus
	}
	to.call("GET", "/pins", "", &list)
	if list.Count != 2 || list.Results[0].RequestID != waits || list.Results[1].RequestID != done {
		t.Errorf("listed: %+v", list)
	}
}

// A crash between a request's end and that of its pin leaves a pin that nobody needs.
func TestOrphanedPin(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	p := open(t, dir, "/ip4/127.0.0.1/tcp/0").start(Options{})
	gone, stays := p.putDAG("gone"), p.putDAG("stays")
	id := p.add(gone)
	p.awaitStatus(id, pinned)
	p.awaitStatus(p.add(stays), pinned)
	must(t, p.repo.Pin(ctx, gone, "policy"))
	p.close()
	must(t, os.Remove(filepath.Join(dir, "meta", recordKind, id)))
	p = open(t, dir, "/ip4/127.0.0.1/tcp/0").start(Options{})
	if got := p.pinsOf(Owner); !slices.Equal(got, []cid.Cid{stays}) {
		t.Errorf("pins of requests: %v", got)
	}
	if got := p.pinsOf(""); !slices.Equal(got, []cid.Cid{gone}) {
		t.Errorf("pins of the repository: %v", got)
	}
}

// A request that cannot be read holds up nobody and is told of; the DAGs pinned for it,
// whichever those are, stay, also when others for one of them go.
func TestUnreadableRequest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	for what, data := range map[string]string{
		"empty": "", "cut": `{"created":`, "of no CID": `{"status":"pinned","pin":{"cid":"x"}}`,
		"of no status": `{"status":"lost","pin":{"cid":"` + aCID + `"}}`, "of no DAG": `{"status":"pinned","pin":{"cid":"` + aCID + `"},"keeps":["x"]}`,
	} {
		p := open(t, dir, "/ip4/127.0.0.1/tcp/0").start(Options{})
		lost, other := p.putDAG(what), p.putDAG("other")
		id, twice, ends := p.add(lost), p.add(lost), p.add(other)
		for _, id := range []string{id, twice, ends} {
			p.awaitStatus(id, pinned)
		}
		if errs := p.api.Unreadable(); len(errs) > 0 {
			t.Errorf("of sound ones it says %v", errs)
		}
		p.close()
		record := filepath.Join(dir, "meta", recordKind, id)
		must(t, os.WriteFile(record, []byte(data), 0o600))
		p = open(t, dir, "/ip4/127.0.0.1/tcp/0").start(Options{})
		if errs := p.api.Unreadable(); len(errs) != 1 || !strings.Contains(errs[0].Error(), id) {
			t.Errorf("%s: it says %v", what, errs)
		}
		for _, id := range []string{twice, ends} {
			p.call("DELETE", "/pins/"+id, "", nil)
		}
		if !p.pinned(lost) || !p.pinned(other) {
			t.Errorf("%s: a pin is gone", what)
		}
		p.close()
		must(t, os.Remove(record)) // by the operator
		p = open(t, dir, "/ip4/127.0.0.1/tcp/0").start(Options{})
		if got := p.pinsOf(Owner); len(got) > 0 {
			t.Errorf("%s: pins of no request: %v", what, got)
		}
		p.close()
	}
}

// A source that sends other bytes than those that were asked for.
func TestLyingSource(t *testing.T) {
	from := newPeer(t)
	root := from.putDAG("one")
	honest := from.net.GatewayURL()
	var car bytes.Buffer
	must(t, dag.WriteNodeCAR(ctx, &car, from.repo.Blocks, root))
	car.Bytes()[car.Len()-1] ^= 1
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(car.Bytes())
	}))
	t.Cleanup(liar.Close)

	alone := newPeer(t).start(Options{Peers: []string{liar.URL}})
	id := alone.add(root)
	got := alone.awaitStatus(id, failed)
	if !strings.Contains(got.Info["status_details"], liar.URL) {
		t.Errorf("why: %v", got.Info)
	}
	if alone.pinned(root) || alone.holds(root) {
		t.Error("it was believed")
	}
	both := newPeer(t).start(Options{Peers: []string{liar.URL, honest}})
	both.awaitStatus(both.add(root), pinned)
	if !both.holds(root) {
		t.Error("the DAG is not complete")
	}
}

// A source that accepts connections and says nothing is left when its request is
// deleted, and when the server is closed.
func TestSilentSource(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	silent := "/ip4/127.0.0.1/tcp/" + strings.Split(l.Addr().String(), ":")[1] + "/p2p/"
	const one, other = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", "12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d"
	p := newPeer(t).start(Options{Workers: 1})
	first := p.add(cid.MustParse(aCID), silent+one)
	p.awaitStatus(first, pinning)
	b := dag.RawBlock([]byte("here"))
	must(t, p.repo.Blocks.Put(ctx, b))
	second := p.add(b.CID)
	p.call("DELETE", "/pins/"+first, "", nil)
	p.awaitStatus(second, pinned) // the only worker is free again
	third := p.add(cid.MustParse(aCID), silent+other)
	p.awaitStatus(third, pinning)
	closed := make(chan error, 1)
	go func() { closed <- p.api.Close() }()
	select {
	case err := <-closed:
		must(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("Close waits for the source")
	}
	// Nothing is taken any more, and what was begun waits for the next start.
	var f failure
	if resp := p.call("POST", "/pins", `{"cid":"`+aCID+`"}`, &f); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after Close: %s", resp.Status)
	}
	var kept request
	data, err := p.repo.Record(recordKind, third)
	must(t, err)
	must(t, json.Unmarshal(data, &kept))
	if kept.Status != queued {
		t.Errorf("on disk it is %s", kept.Status)
	}
}
