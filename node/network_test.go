package node

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	anyGateway = "127.0.0.1:0"
	anySwarm   = "/ip4/127.0.0.1/tcp/0"
)

func serve(t *testing.T, r *Repo, logs LogRoot) *Network {
	t.Helper()
	n, err := r.Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: []string{anySwarm}, Logs: logs})
	must(t, err)
	t.Cleanup(func() {
		must(t, n.Close())
		select {
		case err := <-n.Errs():
			t.Errorf("a server ended by itself: %v", err)
		default:
		}
	})
	return n
}

func dial(t *testing.T, source string) *Remote {
	t.Helper()
	r, err := newRepo(t).Dial(source)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

// Over HTTP and over libp2p a node gives the same: a whole DAG, one IPFS block,
// the files of a log.
func TestServeAndDial(t *testing.T) {
	r := newRepo(t)
	root, docs := putState(t, r.Blocks, 1)
	const origin = "log.example/served"
	n := serve(t, r, func(context.Context, string) (cid.Cid, bool) { return root, true })
	if len(n.Addresses()) != 1 || !strings.HasSuffix(n.Addresses()[0], "/p2p/"+n.PeerID().String()) {
		t.Fatalf("addresses %v", n.Addresses())
	}
	for name, source := range map[string]string{"HTTP": n.GatewayURL(), "HTTP with slash": n.GatewayURL() + "/", "libp2p": n.Addresses()[0]} {
		t.Run(name, func(t *testing.T) {
			remote := dial(t, source)
			rc, err := remote.CAR(ctx, root)
			must(t, err)
			car, err := dag.ReadCAR(rc)
			must(t, err)
			to := newRepo(t).Blocks
			_, err = car.CopyDAG(ctx, to, []cid.Cid{root}, nil)
			must(t, err)
			must(t, rc.Close())
			checkState(t, to, root, docs)

			data, err := remote.Block(ctx, root)
			must(t, err)
			want, err := r.Blocks.Get(ctx, root)
			must(t, err)
			if !bytes.Equal(data, want) {
				t.Error("Block gives other bytes")
			}
			data, err = remote.Log(origin).ReadEndpoint(ctx, "credentials/007.json")
			must(t, err)
			if !bytes.Equal(data, docs["credentials/007.json"]) {
				t.Error("a file of the log differs")
			}
			for what, err := range map[string]error{
				"Block": secondOf(remote.Block(ctx, dag.RawBlock([]byte("unknown")).CID)),
				"Log":   secondOf(remote.Log(origin).ReadEndpoint(ctx, "tile/0/000")),
			} {
				if !errors.Is(err, ErrUnreachable) || !errors.Is(err, dag.ErrNotFound) {
					t.Errorf("%s of what is not there: %v", what, err)
				}
			}
		})
	}
}

func secondOf[T any](_ T, err error) error { return err }

// Without Open nobody but this machine can connect.
func TestExposedAddresses(t *testing.T) {
	r := newRepo(t)
	for _, o := range []ServeOptions{
		{Gateway: "0.0.0.0:0"}, {Gateway: ":0"}, {Gateway: "[::]:0"}, {Gateway: "192.0.2.1:0"}, {Gateway: "gateway.example:0"},
		{Gateway: anyGateway, Swarm: []string{"/ip4/0.0.0.0/tcp/0"}},
		{Gateway: anyGateway, Swarm: []string{anySwarm, "/ip6/::/tcp/0"}},
		{Gateway: anyGateway, Swarm: []string{"/ip4/0.0.0.0/udp/0/quic-v1"}},
		{Gateway: anyGateway, Swarm: []string{"/dns4/host.example/tcp/0"}},
	} {
		n, err := r.Serve(ctx, o)
		if !errors.Is(err, ErrExposed) {
			t.Errorf("%+v: %v", o, err)
		}
		if n != nil {
			n.Close()
		}
	}
	for _, o := range []ServeOptions{{Gateway: "no port"}, {Gateway: anyGateway, Swarm: []string{"no multiaddr"}}} {
		if _, err := r.Serve(ctx, o); err == nil {
			t.Errorf("%+v is served", o)
		}
	}
	n, err := r.Serve(ctx, ServeOptions{Gateway: "0.0.0.0:0", Swarm: []string{"/ip4/0.0.0.0/tcp/0"}, Open: true})
	must(t, err)
	must(t, n.Close())
}

// No swarm address means no swarm, not libp2p's default of every interface.
func TestServeWithoutSwarm(t *testing.T) {
	r := newRepo(t)
	n, err := r.Serve(ctx, ServeOptions{Gateway: anyGateway})
	must(t, err)
	for _, a := range n.Addresses() {
		m, err := multiaddr.NewMultiaddr(a)
		must(t, err)
		if !manet.IsIPLoopback(m) {
			t.Errorf("listens on %s", a)
		}
	}
	if len(n.Addresses()) != 0 {
		t.Errorf("listens on %v", n.Addresses())
	}
	resp, err := http.Get(n.GatewayURL() + "/ipfs/bafkqaaa")
	must(t, err)
	resp.Body.Close()
	must(t, n.Close())
	select {
	case err := <-n.Errs():
		t.Errorf("a server ended by itself: %v", err)
	default:
	}
}

// A port that is taken is an error, and what had been started is ended.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", anyGateway)
	must(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	r := newRepo(t)
	for _, o := range []ServeOptions{
		{Gateway: l.Addr().String(), Swarm: []string{anySwarm}},
		{Gateway: anyGateway, Swarm: []string{"/ip4/127.0.0.1/tcp/" + port}},
	} {
		if n, err := r.Serve(ctx, o); err == nil {
			n.Close()
			t.Errorf("%+v: served on a port in use", o)
		}
	}
}

// Close ends everything that Serve and Dial began, whatever was in use.
func TestCloseLeavesNothing(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	round := func(use bool) {
		n, err := r.Serve(ctx, ServeOptions{Gateway: anyGateway, Swarm: []string{anySwarm}})
		must(t, err)
		if use {
			for _, source := range []string{n.GatewayURL(), n.Addresses()[0]} {
				remote, err := newRepo(t).Dial(source)
				must(t, err)
				_, err = remote.Block(ctx, root)
				must(t, err)
				rc, err := remote.CAR(ctx, root) // left unread
				must(t, err)
				rc.Close() // over libp2p it says that it was not read
				must(t, remote.Close())
			}
			local, err := Local("here", r, nil)
			must(t, err)
			_, err = local.Block(ctx, root)
			must(t, err)
			must(t, local.Close())
		}
		must(t, n.Close())
	}
	round(true) // what libraries start once and keep
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()
	for range 3 {
		round(true)
		round(false)
	}
	var n int
	defer func() {
		if t.Failed() {
			buf := make([]byte, 1<<20)
			t.Logf("%d goroutines before, %d after:\n%s", before, n, buf[:runtime.Stack(buf, true)])
		}
	}()
	await(t, "the goroutines to end", func() bool { n = runtime.NumGoroutine(); return n <= before })
}

func TestDialRefuses(t *testing.T) {
	for _, source := range []string{"", "ftp://host/", "host:80", "http://", "/ip4/127.0.0.1/tcp/1", "/p2p/x", "http://[::1"} {
		if r, err := newRepo(t).Dial(source); err == nil {
			r.Close()
			t.Errorf("%q is taken for a source", source)
		}
	}
}

// A name that somebody else points at this host gets nothing.
func TestGatewayAnswersItsOwnHostOnly(t *testing.T) {
	handler := loopbackOnly(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	for host, want := range map[string]int{
		"127.0.0.1:8481": 200, "localhost:8481": 200, "localhost": 200, "[::1]:8481": 200, "[::1]": 200, "127.1.2.3": 200,
		"evil.example": 421, "evil.example:8481": 421, "10.0.0.1:8481": 421, "": 421, "localhost.evil.example": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/ipfs/x", nil)
		r.Host = host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, want %d", host, w.Code, want)
		}
	}
}
