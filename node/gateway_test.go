package node

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

func testGateway(t *testing.T, r *Repo, logs LogRoot) string {
	t.Helper()
	h, err := r.Gateway(logs)
	must(t, err)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func request(t *testing.T, method, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("body"))
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(data)
}

func TestGatewayIsReadOnly(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	before := r.Blocks.Len()
	url := testGateway(t, r, func(context.Context, string) (cid.Cid, bool) { return root, true })
	for _, method := range []string{"PUT", "POST", "DELETE", "PATCH"} {
		for _, path := range []string{"/ipfs/", "/ipfs/" + root.String(), "/ipfs/" + root.String() + "/new.json", "/tlog/00/credentials/007.json", "/api/v0/add", "/"} {
			if resp, _ := request(t, method, url+path); resp.StatusCode < 400 || resp.StatusCode >= 500 {
				t.Errorf("%s %s: %s", method, path, resp.Status)
			}
		}
	}
	if r.Blocks.Len() != before {
		t.Errorf("%d IPFS blocks became %d", before, r.Blocks.Len())
	}
	bs := readOnly{r.Blocks}
	if bs.Put(ctx, nil) == nil || bs.PutMany(ctx, nil) == nil || bs.DeleteBlock(ctx, root) == nil {
		t.Error("what boxo is given can be written")
	}
}

// What is not here is said to be not here, without a look at the network.
func TestGatewayIsOffline(t *testing.T) {
	r := newRepo(t)
	url := testGateway(t, r, nil)
	unknown := dag.RawBlock([]byte("unknown")).CID.String()
	for _, path := range []string{
		"/ipfs/" + unknown, "/ipfs/" + unknown + "?format=raw",
		"/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "/tlog/00/checkpoint", "/tlog/", "/ipns/example.com", "/",
	} {
		if resp, body := request(t, "GET", url+path); resp.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s %q", path, resp.Status, body)
		}
	}
}

// Bytes that are damaged on disk do not leave the node.
func TestGatewayOfDamagedBlock(t *testing.T) {
	r := newRepo(t)
	b := dag.RawBlock(bytesOf(1, 500))
	must(t, r.Blocks.Put(ctx, b))
	must(t, r.Blocks.Sync(ctx))
	damage(t, r, b)
	url := testGateway(t, r, nil)
	for range 2 {
		if resp, _ := request(t, "GET", url+"/ipfs/"+b.CID.String()+"?format=raw"); resp.StatusCode == http.StatusOK {
			t.Error("damaged bytes are served")
		}
	}
}

// What lies under /tlog/ changes with the log: no cache may keep the checkpoint.
func TestLogPrefix(t *testing.T) {
	r := newRepo(t)
	write := func(checkpoint string) cid.Cid {
		var tree dag.Editor
		for path, text := range map[string]string{"checkpoint": checkpoint, "tile/0/000": "full", "tile/0/001.p/5": "partial"} {
			l, _, err := dag.WriteDocument(ctx, r.Blocks, strings.NewReader(text))
			must(t, err)
			must(t, tree.Put(path, l))
		}
		l, err := tree.Apply(ctx, nil, r.Blocks, cid.Undef)
		must(t, err)
		return l.CID
	}
	root := write("one")
	url := testGateway(t, r, func(_ context.Context, hex string) (cid.Cid, bool) { return root, hex == "ab" }) + "/tlog/ab/"
	resp, body := request(t, "GET", url+"checkpoint")
	if body != "one" || resp.Header.Get("Cache-Control") != "no-cache" || resp.Header.Get("Etag") != "" {
		t.Errorf("checkpoint: %q, %v", body, resp.Header)
	}
	if !strings.HasPrefix(resp.Header.Get("X-Ipfs-Roots"), root.String()) {
		t.Errorf("roots %q, not %s", resp.Header.Get("X-Ipfs-Roots"), root)
	}
	if resp, body := request(t, "GET", url+"tile/0/001.p/5"); body != "partial" || resp.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("partial tile: %q, %v", body, resp.Header)
	}
	if resp, body := request(t, "GET", url+"tile/0/000"); body != "full" || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("full tile: %q, %v", body, resp.Header)
	}
	root = write("two")
	if _, body := request(t, "GET", url+"checkpoint", "If-None-Match", "*"); body != "two" {
		t.Errorf("checkpoint after the log grew: %q", body)
	}
	if resp, _ := request(t, "GET", strings.Replace(url, "/ab/", "/cd/", 1)+"checkpoint"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("another log: %s", resp.Status)
	}
}
