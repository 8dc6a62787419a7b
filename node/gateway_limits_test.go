package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// A client that reads nothing of an answer without end does not hold the handler, and
// one that announces a body and does not send it does not hold the connection.
func TestSlowClients(t *testing.T) {
	ended := make(chan error, 1)
	endless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_, err := io.ReadAll(r.Body)
			ended <- err
			return
		}
		for piece := make([]byte, 100_000); ; {
			if _, err := w.Write(piece); err != nil {
				ended <- err
				return
			}
		}
	})
	srv := httptest.NewServer(unhurried(endless, 200*time.Millisecond))
	t.Cleanup(srv.Close)
	for name, head := range map[string]string{
		"reads nothing": "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"sends nothing": "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
		"sends a part":  "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			must(t, err)
			defer conn.Close()
			_, err = conn.Write([]byte(head))
			must(t, err)
			select {
			case err := <-ended:
				if err == nil {
					t.Error("it ended without an error")
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the handler is held")
			}
		})
	}
	// A body that the handler does not read is not waited for either.
	srv = httptest.NewServer(unhurried(http.NotFoundHandler(), 200*time.Millisecond))
	t.Cleanup(srv.Close)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"))
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the connection stays: %v", err)
	}
}

// A client that reads slowly, but reads, gets everything, on a connection that is used
// again.
func TestPatientAnswers(t *testing.T) {
	const size = 3 << 20
	srv := httptest.NewServer(unhurried(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		w.Write(make([]byte, size))
	}), 5*time.Second))
	t.Cleanup(srv.Close)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	in := bufio.NewReader(conn)
	for range 3 {
		_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
		must(t, err)
		resp, err := http.ReadResponse(in, nil)
		must(t, err)
		if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

// More requests than are served at a time are told to come back, whatever they are for,
// before anything is done for them.
func TestConcurrencyLimit(t *testing.T) {
	r := newRepo(t)
	l, _, err := dag.WriteDocument(ctx, r.Blocks, strings.NewReader(strings.Repeat("x", dag.ChunkSize)))
	must(t, err)
	looked := 0
	n := serve(t, r, func(context.Context, string) (cid.Cid, bool) { looked++; return cid.Undef, false })
	listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} // without buffers
	srv := &http.Server{Handler: n.server.Handler}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(listener) }()
	t.Cleanup(func() { srv.Close(); <-done })
	ask := func(path string) *http.Response {
		conn, err := listener.dial(ctx, "", "")
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		_, err = conn.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n"))
		must(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		return resp
	}
	for i := range gatewayRequests {
		if resp := ask("/ipfs/" + l.CID.String()); resp.StatusCode != 200 { // and does not read the body
			t.Fatalf("request %d: %s", i, resp.Status)
		}
	}
	for _, path := range []string{"/ipfs/" + l.CID.String(), "/tlog/" + strings.Repeat("0", 64) + "/checkpoint", "/pinning/pins"} {
		if resp := ask(path); resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
			t.Errorf("one more, %s: %s, %v", path, resp.Status, resp.Header)
		}
	}
	if _, err := dial(t, n.Addresses()[0]).Block(ctx, l.CID); err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("one more, over libp2p: %v", err)
	}
	if looked > 0 {
		t.Error("a log was looked for")
	}
}

// Headers and URLs have a length.
func TestHeaderLimit(t *testing.T) {
	n := serve(t, newRepo(t), nil)
	for what, change := range map[string]func(*http.Request){
		"URL":    func(r *http.Request) { r.URL.Path += strings.Repeat("a", 128<<10) },
		"header": func(r *http.Request) { r.Header.Set("X", strings.Repeat("a", 128<<10)) },
	} {
		req, err := http.NewRequest("GET", n.GatewayURL()+"/ipfs/"+emptyCID, nil)
		must(t, err)
		change(req)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		readBody(t, resp)
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %s", what, resp.Status)
		}
	}
}

// A CAR that damage on disk cuts ends with the connection, over HTTP and over libp2p.
func TestDamagedCARIsCut(t *testing.T) {
	r := newRepo(t)
	root, docs := putState(t, r.Blocks, 1)
	must(t, r.Blocks.Sync(ctx))
	damage(t, r, dag.RawBlock(docs["credentials/050.json"]))
	n := serve(t, r, nil)
	for _, source := range []string{n.GatewayURL(), n.Addresses()[0]} {
		rc, err := dial(t, source).CAR(ctx, root)
		must(t, err)
		car, err := dag.ReadCAR(rc)
		must(t, err)
		got, err := car.CopyDAG(ctx, newRepo(t).Blocks, []cid.Cid{root}, nil)
		if got.Blocks == 0 || err == nil {
			t.Errorf("%s: %d nodes, %v", source, got.Blocks, err)
		}
		must(t, rc.Close())
	}
}
