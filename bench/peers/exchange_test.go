package peers

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// exchanged is a folder that has what travels differently: nested collections, one
// that is a HAMT, a document of several chunks, an empty one.
func exchanged(t testing.TB) string {
	t.Helper()
	documents := numbered("vc_document/", 300, 29)
	documents["attachments/large"] = generated(5<<20 + 1)
	documents["empty"] = text("")
	for _, s := range states() {
		if s.Name == nested {
			for path, d := range s.Documents {
				documents[path] = d
			}
		}
	}
	return folder(t, documents)
}

// pins fails the test unless the daemon pins a save point that another node gives it.
func (d daemon) pins(t *testing.T, s taken) {
	t.Helper()
	d.ask(t, "pin", "add", s.Savepoint)
	if got := d.ask(t, "pin", "ls", "--type=recursive", "--quiet", s.Savepoint); got != s.Savepoint {
		t.Errorf("kubo pins %q", got)
	}
}

// TestKuboPinsByBitswap connects kubo to a node that serves a save point.
func TestKuboPinsByBitswap(t *testing.T) {
	dir, p := exchanged(t), newProduct(t)
	first := p.take(t, dir)
	server, d := p.serve(t), newKubo(t).start(t)
	d.ask(t, "swarm", "connect", server.swarm())
	d.pins(t, first)
	d.holds(t, first.State, dir)

	// What was taken while it serves, of which kubo holds all but the difference.
	change(t, dir)
	second := p.take(t, dir)
	d.ask(t, "pin", "update", "--unpin=false", first.Savepoint, second.Savepoint)
	server.stop(t)
	d.holds(t, second.State, dir)
}

// TestKuboFindsByDelegatedRouting tells kubo of nobody but the node's answers to
// delegated routing requests.
func TestKuboFindsByDelegatedRouting(t *testing.T) {
	dir, p := exchanged(t), newProduct(t)
	s := p.take(t, dir)
	server := p.serve(t, "--routing")
	d := newKubo(t).start(t,
		"Routing.Type", `"delegated"`,
		"Routing.DelegatedRouters", fmt.Sprintf("[%q]", server.Gateway),
		"Provide.Enabled", "false",
	)
	if got := d.ask(t, "routing", "findprovs", s.Savepoint); !strings.HasSuffix(server.swarm(), "/p2p/"+got) {
		t.Errorf("kubo finds %q, not %s", got, server.swarm())
	}
	d.pins(t, s)
	server.stop(t)
	d.holds(t, s.State, dir)
}

// TestFetchFromKubo fetches a save point whose log is shown by a mirror that has
// nothing else, and whose IPFS blocks are at a kubo, which knows of no log.
func TestFetchFromKubo(t *testing.T) {
	dir, p := exchanged(t), newProduct(t)
	s := p.take(t, dir)
	archive := filepath.Join(t.TempDir(), "save.car")
	p.run(t, "export", s.Savepoint, archive)
	mirror := logMirror(t, p.serve(t).Gateway)

	for name, from := range map[string]func(daemon) string{
		"gateway over HTTP":   func(d daemon) string { return d.gateway },
		"gateway over libp2p": func(d daemon) string { return d.swarm },
		"bitswap":             func(d daemon) string { return d.swarm },
	} {
		t.Run(name, func(t *testing.T) {
			k := newKubo(t)
			k.run(t, nil, "dag", "import", archive)
			d := k.start(t, "Experimental.GatewayOverLibp2p", fmt.Sprint(name == "gateway over libp2p"))
			reader := product{p.program, filepath.Join(t.TempDir(), "repo")}
			fails(t, reader.command(t, "fetch", s.Savepoint, "--trust", p.trust(), "--from", mirror))
			reader.run(t, "fetch", s.Savepoint, "--trust", p.trust(), "--from", mirror, "--from", from(d))
			restored := filepath.Join(t.TempDir(), "restored")
			reader.run(t, "restore", s.Savepoint, "--to", restored, "--trust", p.trust())
			equalFolders(t, dir, restored)
		})
	}
}

// logMirror passes on the logs of a gateway, and nothing else.
func logMirror(t *testing.T, gateway string) string {
	t.Helper()
	to, err := url.Parse(gateway)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	mux := http.NewServeMux()
	mux.Handle("/tlog/", proxy)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// TestSwarmKey gives kubo and a node the same swarm key, and then one of them none.
func TestSwarmKey(t *testing.T) {
	key := filepath.Join(t.TempDir(), "swarm.key")
	const content = "/key/swarm/psk/1.0.0/\n/base16/\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"
	if err := os.WriteFile(key, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, p := exchanged(t), newProduct(t)
	s := p.take(t, dir)
	server := p.serve(t, "--swarm-key", key)

	member := newKubo(t)
	if err := os.WriteFile(filepath.Join(member.repo, "swarm.key"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	d := member.start(t)
	d.ask(t, "swarm", "connect", server.swarm())
	d.pins(t, s)
	d.holds(t, s.State, dir)

	stranger := newKubo(t).start(t)
	fails(t, stranger.command(t, "swarm", "connect", server.swarm()))
	fails(t, stranger.command(t, "pin", "add", "--timeout=3s", s.Savepoint))

	reader := func() product { return product{p.program, filepath.Join(t.TempDir(), "repo")} }
	fetch := []string{"fetch", s.Savepoint, "--trust", p.trust(), "--from", server.swarm()}
	fails(t, reader().command(t, fetch...))
	reader().run(t, append(fetch, "--swarm-key", key)...)
}

// change replaces, adds and removes documents of a folder.
func change(t testing.TB, dir string) {
	t.Helper()
	write(t, dir, "README", 33)
	write(t, dir, "vc_document/new.json", 34)
	if err := os.RemoveAll(filepath.Join(dir, "vc_document", "archive")); err != nil {
		t.Fatal(err)
	}
}
