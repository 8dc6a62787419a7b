package savepoints_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// withTargets opens the bank again, with tables for folders of these names.
func withTargets(t *testing.T, b *savepoints.Bank, folders ...string) *savepoints.Bank {
	t.Helper()
	text := ""
	for i, dir := range folders {
		text += fmt.Sprintf("[[replicate]]\nname = 'f%d'\nkind = 'folder'\npath = '%s'\n", i, dir)
	}
	must(t, os.WriteFile(filepath.Join(b.Repo().Dir(), "config.toml"), []byte(text), 0o600))
	return reopen(t, b)
}

func health(t *testing.T, b *savepoints.Bank, o savepoints.HealthOptions) savepoints.Checked {
	t.Helper()
	list, err := b.Receipts(ctx)
	must(t, err)
	var last savepoints.Checked
	must(t, b.Health(ctx, list, o, func(c savepoints.Checked) error { last = c; return nil }))
	return last
}

func wantHealth(t *testing.T, c savepoints.Checked, want savepoints.Health, serves ...bool) {
	t.Helper()
	if c.Health != want || len(c.Places) != len(serves) {
		t.Fatalf("it is %s with %+v, want %s", c.Health, c.Places, want)
	}
	for i, p := range c.Places {
		if p.Serves != serves[i] || p.Serves == (p.Reason != "") {
			t.Errorf("place %+v, want it to serve: %t", p, serves[i])
		}
	}
}

// TestHealth: the word goes with the places that have the bytes, and two names of one
// place are one.
func TestHealth(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(one, link))
	b := withTargets(t, initBank(t), one, two, link)
	taken, err := b.Take(ctx, someState(), savepoints.TakeOptions{Policy: "p"})
	must(t, err)
	wantHealth(t, health(t, b, savepoints.HealthOptions{}), savepoints.Fragile, true, false, false)
	_, err = b.Replication().Once(ctx, replication.Selection{Targets: []string{"f0"}}, nil)
	must(t, err)
	wantHealth(t, health(t, b, savepoints.HealthOptions{}), savepoints.Healthy, true, true, false)
	_, err = b.Replication().Once(ctx, replication.Selection{}, nil)
	must(t, err)
	all := savepoints.HealthOptions{Blocks: 10_000}
	wantHealth(t, health(t, b, all), savepoints.Resilient, true, true, true)

	// The bank's own copy is lost, and that it cannot be walked does not hide the others.
	must(t, b.Repo().Unpin(taken.CID))
	wantHealth(t, health(t, b, all), savepoints.Resilient, false, true, true)
	damageManifest(t, b, taken)
	c := health(t, b, all)
	wantHealth(t, c, savepoints.Resilient, false, true, true)
	if c.Savepoint.Manifest != nil {
		t.Error("the manifest is damaged, and was read")
	}
	must(t, os.RemoveAll(two))
	wantHealth(t, health(t, b, all), savepoints.Fragile, false, true, false)
	must(t, os.RemoveAll(one))
	c = health(t, b, all)
	if c.Health != savepoints.Broken {
		t.Errorf("it is %s", c.Health)
	}
}

// damageManifest damages the manifest of a save point on disk.
func damageManifest(t *testing.T, b *savepoints.Bank, s savepoints.Taken) {
	t.Helper()
	data, err := b.Repo().Blocks.Get(ctx, s.CID)
	must(t, err)
	damageBlock(t, b, data)
}

// TestHealthOfOthers: a place that lies, one that has nothing and one that is silent do
// not count; the silent one is waited for once, whatever there is to ask.
func TestHealthOfOthers(t *testing.T) {
	t.Parallel() // it waits most of the time
	b := initBank(t)
	for i := range 5 {
		_, err := b.Take(ctx, smallState(i), savepoints.TakeOptions{Policy: "p"})
		must(t, err)
	}
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("lies")) }))
	defer liar.Close()
	empty := httptest.NewServer(http.NotFoundHandler())
	defer empty.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	asked := make(chan bool, 100)
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			asked <- true
			defer conn.Close()
		}
	}()
	n, err := b.Repo().Serve(ctx, node.ServeOptions{Gateway: "127.0.0.1:0", Swarm: []string{"/ip4/127.0.0.1/tcp/0"}})
	must(t, err)
	defer n.Close()
	c := health(t, b, savepoints.HealthOptions{
		Timeout: 5 * time.Second,
		// The bank itself is no other place.
		Sources: []string{liar.URL, empty.URL, "http://" + silent.Addr().String(), n.Addresses()[0], "http://127.0.0.1:1", liar.URL + "/"},
	})
	wantHealth(t, c, savepoints.Fragile, true, false, false, false, false)
	for i, want := range []string{"", dag.ErrHash.Error(), dag.ErrNotFound.Error(), "no answer within 5s", node.ErrUnreachable.Error()} {
		if got := c.Places[i].Reason; !strings.Contains(got, want) {
			t.Errorf("place %d: %q, want %q", i, got, want)
		}
	}
	if n := len(asked); n != 1 {
		t.Errorf("the silent place was asked %d times", n)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	list, err := b.Receipts(ctx)
	must(t, err)
	err = b.Health(ended, list, savepoints.HealthOptions{}, func(savepoints.Checked) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after the end it says %v", err)
	}
}

// TestHealthCountsOnce: the bank's own gateway is no other place, and another node counts
// once, by whatever names it is reached, whether it says who it is or not.
func TestHealthCountsOnce(t *testing.T) {
	b := initBank(t)
	taken, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p"})
	must(t, err)
	other := initBank(t)
	for c, err := range dag.Walk(ctx, b.Repo().Blocks, dag.Limits{}, taken.CID) {
		must(t, err)
		data, err := b.Repo().Blocks.Get(ctx, c)
		must(t, err)
		must(t, other.Repo().Blocks.Put(ctx, dag.Block{CID: c, Data: data}))
	}
	must(t, other.Repo().Blocks.Sync(ctx))
	own, there := serve(t, b), serve(t, other)
	handler, err := other.Repo().Gateway(nil)
	must(t, err)
	silent := httptest.NewServer(handler) // as a gateway of other make
	defer silent.Close()
	byName := func(u string) string { return strings.Replace(u, "127.0.0.1", "localhost", 1) }
	for what, c := range map[string]struct {
		sources []string
		want    savepoints.Health
		serves  []bool
	}{
		"own":           {[]string{own.GatewayURL(), byName(own.GatewayURL()), own.Addresses()[0]}, savepoints.Fragile, []bool{true}},
		"another":       {[]string{there.GatewayURL(), byName(there.GatewayURL()), there.Addresses()[0]}, savepoints.Healthy, []bool{true, true}},
		"of other make": {[]string{silent.URL, byName(silent.URL)}, savepoints.Healthy, []bool{true, true}},
		"two":           {[]string{silent.URL, own.GatewayURL(), there.GatewayURL()}, savepoints.Resilient, []bool{true, true, true}},
		"also where one of its ways is closed": {[]string{"/ip4/127.0.0.1/tcp/1/p2p/" + there.PeerID().String(), there.GatewayURL()},
			savepoints.Healthy, []bool{true, true}},
	} {
		t.Run(what, func(t *testing.T) {
			wantHealth(t, health(t, b, savepoints.HealthOptions{Sources: c.sources}), c.want, c.serves...)
		})
	}
}

// TestHealthWithoutOwnCopy: where the bank's own copy is lost, a place that has the
// manifest alone does not serve the save point.
func TestHealthWithoutOwnCopy(t *testing.T) {
	b := initBank(t)
	taken, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p"})
	must(t, err)
	manifest, err := b.Repo().Blocks.Get(ctx, taken.CID)
	must(t, err)
	some, all := initBank(t), initBank(t)
	must(t, some.Repo().Blocks.Put(ctx, dag.Block{CID: taken.CID, Data: manifest}))
	for c, err := range dag.Walk(ctx, b.Repo().Blocks, dag.Limits{}, taken.CID) {
		must(t, err)
		data, err := b.Repo().Blocks.Get(ctx, c)
		must(t, err)
		must(t, all.Repo().Blocks.Put(ctx, dag.Block{CID: c, Data: data}))
	}
	must(t, errors.Join(some.Repo().Blocks.Sync(ctx), all.Repo().Blocks.Sync(ctx)))
	o := savepoints.HealthOptions{Sources: []string{serve(t, some).GatewayURL(), serve(t, all).GatewayURL()}}
	wantHealth(t, health(t, b, o), savepoints.Healthy, true, false, true)
	damageManifest(t, b, taken)
	wantHealth(t, health(t, b, o), savepoints.Fragile, false, false, true)
}

// TestReplicationItems: each save point names the one before it; what is damaged is
// said to be, is tried again, and does not keep back what follows.
func TestReplicationItems(t *testing.T) {
	dir := t.TempDir()
	b := withTargets(t, initBank(t), dir)
	var taken []savepoints.Taken
	for i := range 3 {
		s, err := b.Take(ctx, smallState(i), savepoints.TakeOptions{Policy: "p"})
		must(t, err)
		taken = append(taken, s)
		item, err := b.Item(ctx, s.Savepoint)
		must(t, err)
		if i > 0 && item.Previous != taken[i-1].CID {
			t.Errorf("the one before %d is %s", i, item.Previous)
		}
		if want := fmt.Sprintf("p-%d", i+1); item.Name != want {
			t.Errorf("its name is %q, want %q", item.Name, want)
		}
	}
	damageManifest(t, b, taken[1])
	list, err := b.Replication().Once(ctx, replication.Selection{}, nil)
	must(t, err)
	for i, s := range list {
		if s.Root != taken[i].CID || (s.State == replication.Done) != (i != 1) {
			t.Errorf("%d: %+v", i, s)
		}
	}
	if !errors.Is(list[1].Err, savepoints.ErrDamaged) {
		t.Errorf("the error is %v", list[1].Err)
	}
	if at, err := b.Replication().DoneAt(taken[2].CID); err != nil || len(at) != 1 {
		t.Errorf("done at %v, %v", at, err)
	}
}
