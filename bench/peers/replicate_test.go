package peers

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// replicatesTo names a target in the repository's configuration, and whom to ask for
// what it has.
func (p product) replicatesTo(t testing.TB, kind, endpoint string, ask ...string) {
	t.Helper()
	file := filepath.Join(p.repo, "config.toml")
	config := fmt.Sprintf("%s\n\n[[replicate]]\nname = \"target\"\nkind = %q\nendpoint = %q\n", readLine(t, file), kind, endpoint)
	for _, place := range ask {
		config += fmt.Sprintf("ask = [%q]\n", place)
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replicate brings a save point to the target, which must have it after that.
func (p product) replicate(t *testing.T, s taken) {
	t.Helper()
	var out struct {
		Replication []struct{ Target, Savepoint, State, Error string }
	}
	decode(t, p.run(t, "replicate", s.Savepoint), &out)
	if len(out.Replication) != 1 || out.Replication[0].Target != "target" || out.Replication[0].Savepoint != s.Savepoint || out.Replication[0].State != "done" {
		t.Fatalf("replicate says %+v", out)
	}
}

// health is what health says of a save point.
type health struct {
	Savepoint, Health string
	Places            []struct {
		Name, Reason string
		Serves       bool
	}
}

func healthOf(t *testing.T, data []byte) health {
	t.Helper()
	var out struct{ Savepoints []health }
	decode(t, data, &out)
	if len(out.Savepoints) != 1 {
		t.Fatalf("health says %s", data)
	}
	return out.Savepoints[0]
}

// isHealthy fails the test unless a save point is at the target and here, and is
// served by both.
func (p product) isHealthy(t *testing.T, s taken) {
	t.Helper()
	out, err := p.command(t, "health", s.Savepoint).Output()
	if h := healthOf(t, out); err != nil || h.Savepoint != s.Savepoint || h.Health != "Healthy" {
		t.Errorf("%v: health says %+v", err, h)
	}
}

// decode reads the first JSON document.
func decode(t *testing.T, data []byte, out any) {
	t.Helper()
	if err := json.NewDecoder(strings.NewReader(string(data))).Decode(out); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
}

// TestReplicateToKubo brings two save points to a kubo over its RPC. Of the second only
// what differs is sent.
func TestReplicateToKubo(t *testing.T) {
	dir, p := exchanged(t), newProduct(t)
	d := newKubo(t).start(t)
	rpc := newRPC(t, urlOf(t, readLine(t, filepath.Join(d.repo, "api"))))
	p.replicatesTo(t, "kubo", rpc.url)

	first := p.take(t, dir)
	p.replicate(t, first)
	p.isHealthy(t, first)
	whole := rpc.sent("/api/v0/dag/import")
	if whole < 5<<20 {
		t.Fatalf("%d bytes were imported", whole)
	}

	change(t, dir)
	second := p.take(t, dir)
	p.replicate(t, second)
	p.isHealthy(t, second)
	if part := rpc.sent("/api/v0/dag/import"); part == 0 || part > 64<<10 {
		t.Errorf("of the second save point %d bytes were imported", part)
	}
	d.holds(t, second.State, dir)
	for _, s := range []taken{first, second} {
		if got := d.ask(t, "pin", "ls", "--type=recursive", "--quiet", s.Savepoint); got != s.Savepoint {
			t.Errorf("kubo pins %q", got)
		}
	}

	d.stop(t)
	if out, err := p.command(t, "health", second.Savepoint).Output(); err == nil || healthOf(t, out).Health != "Fragile" {
		t.Errorf("without kubo: %v: health says %s", err, out)
	}
}

// rpc passes on what a kubo's RPC is asked, and counts.
type rpc struct {
	url string

	mu    sync.Mutex
	bytes map[string]int64 // of request bodies, by path, since sent
}

func newRPC(t *testing.T, to string) *rpc {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	r := &rpc{bytes: map[string]int64{}}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(u)
		if p.Out.Body != nil {
			p.Out.Body = &counted{p.Out.Body, r, p.In.URL.Path}
		}
	}}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// counted is the body of a request.
type counted struct {
	io.ReadCloser
	r    *rpc
	path string
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.bytes[c.path] += int64(n)
	return n, err
}

// sent is how many bytes were sent to a path since the last call.
func (r *rpc) sent(path string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.bytes[path]
	r.bytes[path] = 0
	return n
}

// TestReplicateToCluster has an ipfs-cluster pin a save point: its kubo fetches it from
// here, whose address it is told by the Pinning Service API. The addresses of its kubo,
// which are on loopback, it tells nobody.
func TestReplicateToCluster(t *testing.T) {
	dir, p := exchanged(t), newProduct(t)
	d := newKubo(t).start(t)
	c := startCluster(t, d)
	p.replicatesTo(t, "pinning-service", c.api, d.swarm)
	server := p.serve(t)
	s := p.take(t, dir)
	p.replicate(t, s)
	p.isHealthy(t, s)
	if got := d.ask(t, "pin", "ls", "--type=recursive", "--quiet", s.Savepoint); got != s.Savepoint {
		t.Errorf("kubo pins %q", got)
	}
	server.stop(t)
	d.holds(t, s.State, dir)
}
