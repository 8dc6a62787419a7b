package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
)

const (
	rawType   = "application/vnd.ipld.raw"
	immutable = "public, max-age=29030400, immutable"
	emptyCID  = "bafkqaaa" // the probe path of the specification
)

func readBody(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(t, err)
	return string(data)
}

// Trustless Gateway, block responses.
func TestTrustlessRaw(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	block, err := r.Blocks.Get(ctx, root)
	must(t, err)
	url := testGateway(t, r, nil)
	here, gone := "/ipfs/"+root.String(), "/ipfs/"+dag.RawBlock([]byte("unknown")).CID.String()
	for _, c := range []struct {
		path, accept string
		header       []string
		status       int
		body         string
	}{
		{here + "?format=raw", "", nil, 200, string(block)},
		{here, rawType, nil, 200, string(block)},
		{here + "?format=raw", "application/vnd.ipld.car", nil, 200, string(block)}, // format goes first
		{"/ipfs/" + emptyCID + "?format=raw", "", nil, 200, ""},
		{here + "?format=raw", "", []string{"Range", "bytes=2-5"}, 206, string(block[2:6])},
		{here + "?format=raw", "", []string{"Range", "bytes=-3"}, 206, string(block[len(block)-3:])},
		{here + "?format=raw", "", []string{"If-None-Match", `"` + root.String() + `.raw"`}, 304, ""},
		{here + "?format=raw", "", []string{"If-None-Match", `"` + root.String() + `"`}, 200, string(block)},
		{gone + "?format=raw", "", nil, 404, ""},
		{gone, rawType, nil, 404, ""},
		{"/ipfs/nonsense?format=raw", "", nil, 400, ""},
		{here + "?format=raw", "", []string{"Cache-Control", "only-if-cached"}, 200, string(block)},
		{gone + "?format=raw", "", []string{"Cache-Control", "only-if-cached"}, 412, ""},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			status := c.status
			if method == "HEAD" && status == 206 {
				continue // ranges are for GET
			}
			resp, body := request(t, method, url+c.path, append([]string{"Accept", c.accept}, c.header...)...)
			if resp.StatusCode != status || method == "GET" && status < 400 && body != c.body {
				t.Errorf("%s %s %v: %s, %d bytes", method, c.path, c.header, resp.Status, len(body))
			}
			if status != 200 || method == "HEAD" && len(c.header) > 0 {
				continue
			}
			h := resp.Header
			if h.Get("Content-Type") != rawType || !strings.Contains(h.Get("Content-Disposition"), `attachment; filename="`) ||
				!strings.Contains(h.Get("Content-Disposition"), `.bin"`) || h.Get("X-Content-Type-Options") != "nosniff" ||
				h.Get("Cache-Control") != immutable || !strings.HasSuffix(h.Get("Etag"), `.raw"`) ||
				h.Get("Content-Length") != fmt.Sprint(len(c.body)) {
				t.Errorf("%s %s: %v", method, c.path, h)
			}
			if wants := c.accept == rawType; wants != strings.Contains(h.Get("Content-Location"), "format=raw") {
				t.Errorf("%s %s: Content-Location %q", method, c.path, h.Get("Content-Location"))
			}
		}
	}
	// Bytes are found by whatever CID has their hash.
	for _, c := range []cid.Cid{cid.NewCidV0(root.Hash()), cid.NewCidV1(cid.Raw, root.Hash())} {
		if resp, body := request(t, "GET", url+"/ipfs/"+c.String()+"?format=raw"); resp.StatusCode != 200 || body != string(block) {
			t.Errorf("%s: %s", c, resp.Status)
		}
	}
}

// Trustless Gateway, CAR responses: scopes, ranges, duplicates, refusals.
func TestTrustlessCAR(t *testing.T) {
	r := newRepo(t)
	file := bytesOf(5, 3*dag.ChunkSize+10)
	write := func(data []byte) dag.Link {
		l, _, err := dag.WriteDocument(ctx, r.Blocks, bytes.NewReader(data))
		must(t, err)
		return l
	}
	large, twin := write(file), write([]byte("twin"))
	var tree dag.Editor
	for path, l := range map[string]dag.Link{"d/large": large, "d/one": twin, "d/two": twin} {
		must(t, tree.Put(path, l))
	}
	root, err := tree.Apply(ctx, nil, r.Blocks, cid.Undef)
	must(t, err)
	links := func(c cid.Cid) []cid.Cid {
		data, err := r.Blocks.Get(ctx, c)
		must(t, err)
		out, err := dag.Links(dag.Block{CID: c, Data: data})
		must(t, err)
		return out
	}
	d, chunks := links(root.CID)[0], links(large.CID)
	path := []cid.Cid{root.CID, d}
	joined := func(parts ...[]cid.Cid) []cid.Cid { return slices.Concat(parts...) }
	whole := joined([]cid.Cid{large.CID}, chunks)
	all := joined(path, whole, []cid.Cid{twin.CID})
	url := testGateway(t, r, nil) + "/ipfs/" + root.CID.String()

	for query, want := range map[string][]cid.Cid{
		"":                                          all,
		"&dag-scope=all":                            all,
		"&dag-scope=block":                          {root.CID},
		"&dag-scope=entity":                         {root.CID},
		"/d&dag-scope=block":                        path,
		"/d&dag-scope=entity":                       path,
		"/d/large":                                  joined(path, whole),
		"/d/large&dag-scope=block":                  joined(path, []cid.Cid{large.CID}),
		"/d/large&dag-scope=entity":                 joined(path, whole),
		"/d/one&dag-scope=entity":                   joined(path, []cid.Cid{twin.CID}),
		"/d/large&entity-bytes=0:*":                 joined(path, whole),
		"/d/large&entity-bytes=0:0":                 joined(path, []cid.Cid{large.CID}, chunks[:1]),
		"/d/large&entity-bytes=1048575:1048576":     joined(path, []cid.Cid{large.CID}, chunks[:2]),
		"/d/large&entity-bytes=1048576:1048577":     joined(path, []cid.Cid{large.CID}, chunks[1:2]),
		"/d/large&entity-bytes=-5:*":                joined(path, []cid.Cid{large.CID}, chunks[3:]),
		"/d/large&entity-bytes=2097152:99999999999": joined(path, []cid.Cid{large.CID}, chunks[2:]),
		"/d&entity-bytes=0:5":                       path,
		"/d&car-dups=y":                             joined(path, whole, []cid.Cid{twin.CID, twin.CID}),
		"/d&car-dups=n&car-order=dfs&car-version=1": all,
		"/d&car-order=unk":                          all,
	} {
		where, params, _ := strings.Cut(query, "&")
		resp, body := request(t, "GET", url+where+"?format=car&"+params)
		if got := carNodes(t, []byte(body)); resp.StatusCode != 200 || !slices.Equal(got, want) {
			t.Errorf("%s: %s, %v, not %v", query, resp.Status, got, want)
		}
		h := resp.Header
		dups := map[bool]string{true: "y", false: "n"}[strings.Contains(query, "dups=y")]
		order := map[bool]string{true: "unk", false: "dfs"}[strings.Contains(query, "order=unk")]
		if h.Get("Content-Type") != "application/vnd.ipld.car; version=1; order="+order+"; dups="+dups ||
			!strings.Contains(h.Get("Content-Disposition"), "attachment") || h.Get("X-Content-Type-Options") != "nosniff" ||
			h.Get("Cache-Control") != immutable || h.Get("Etag") == "" || h.Get("Accept-Ranges") != "none" {
			t.Errorf("%s: %v", query, h)
		}
		if again, body := request(t, "GET", url+where+"?format=car&"+params, "If-None-Match", h.Get("Etag")); again.StatusCode != 304 || body != "" {
			t.Errorf("%s, If-None-Match: %s", query, again.Status)
		}
		head, body := request(t, "HEAD", url+where+"?format=car&"+params)
		if head.StatusCode != 200 || body != "" || head.Header.Get("Etag") != h.Get("Etag") || head.Header.Get("Content-Type") != h.Get("Content-Type") {
			t.Errorf("HEAD %s: %s, %v", query, head.Status, head.Header)
		}
	}
	for accept, want := range map[string]string{"": "n", "; dups=y": "y", "; version=1; order=dfs; dups=n": "n"} {
		resp, _ := request(t, "GET", url, "Accept", "application/vnd.ipld.car"+accept)
		if got := resp.Header.Get("Content-Type"); !strings.HasSuffix(got, "dups="+want) {
			t.Errorf("Accept %s: %s", accept, got)
		}
	}
	for _, params := range []string{
		"dag-scope=some", "car-version=2", "car-order=bfs", "car-dups=maybe", "entity-bytes=x", "entity-bytes=5", "entity-bytes=5:x",
	} {
		if resp, _ := request(t, "GET", url+"?format=car&"+params); resp.StatusCode != 400 {
			t.Errorf("%s: %s", params, resp.Status)
		}
	}
}

// Etags of different answers differ.
func TestCAREtags(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	url := testGateway(t, r, nil) + "/ipfs/" + root.String()
	seen := map[string]string{}
	for _, q := range []string{
		"?format=raw", "?format=car", "?format=car&dag-scope=block", "?format=car&dag-scope=entity", "?format=tar", "/large.bin?format=car",
		"/large.bin?format=car&entity-bytes=0:5", "/large.bin?format=car&entity-bytes=0:6", "/large.bin?format=car&car-dups=y", "/large.bin", "/",
	} {
		resp, _ := request(t, "HEAD", url+q)
		etag := resp.Header.Get("Etag")
		if other, dup := seen[etag]; dup || etag == "" {
			t.Errorf("%s has the Etag %q of %s", q, etag, other)
		}
		seen[etag] = q
	}
}

// A root that is not here is 404, whatever is asked of it; what is missing below one
// that is here shows in the CAR.
func TestTrustlessCARIncomplete(t *testing.T) {
	r := newRepo(t)
	full := newRepo(t)
	root, _ := putState(t, full.Blocks, 1)
	url := testGateway(t, r, nil)
	ask := func(method, query string) (*http.Response, string) {
		return request(t, method, url+"/ipfs/"+root.String()+"?format=car"+query)
	}
	for _, method := range []string{"GET", "HEAD"} {
		for _, query := range []string{"", "&dag-scope=block", "&dag-scope=entity", "&car-dups=y", "&entity-bytes=0:*"} {
			if resp, _ := ask(method, query); resp.StatusCode != 404 {
				t.Errorf("%s %q of what is not here: %s", method, query, resp.Status)
			}
		}
	}
	data, err := full.Blocks.Get(ctx, root)
	must(t, err)
	must(t, r.Blocks.Put(ctx, dag.Block{CID: root, Data: data}))
	for _, query := range []string{"", "&car-dups=y"} {
		resp, err := http.Get(url + "/ipfs/" + root.String() + "?format=car" + query)
		must(t, err)
		car, err := dag.ReadCAR(resp.Body)
		must(t, err)
		got, err := car.CopyDAG(ctx, newRepo(t).Blocks, []cid.Cid{root}, nil)
		if resp.StatusCode != 200 || got.Blocks != 1 || !errors.Is(err, dag.ErrTruncated) {
			t.Errorf("%q with nodes missing: %s, %d nodes, %v", query, resp.Status, got.Blocks, err)
		}
		must(t, resp.Body.Close())
		if resp, _ := ask("HEAD", query); resp.StatusCode != 200 {
			t.Errorf("HEAD %q: %s", query, resp.Status)
		}
	}
}

// HEAD writes no CAR, be it ours or boxo's.
func TestHeadReadsNoDAG(t *testing.T) {
	r := newRepo(t)
	root, _ := putState(t, r.Blocks, 1)
	bs := readOnly{r.Blocks}
	inner := &carCounter{}
	b := backend{IPFSBackend: inner, blocks: bs, repo: r}
	head := context.WithValue(ctx, gatewayRequestKey{}, &gatewayRequest{head: true})
	for _, scope := range []gateway.DagScope{gateway.DagScopeAll, gateway.DagScopeEntity} {
		_, stream, err := b.GetCAR(head, path.FromCid(root), gateway.CarParams{Scope: scope})
		must(t, err)
		if n, err := io.Copy(io.Discard, stream); n != 0 || err != nil {
			t.Errorf("scope %s: %d bytes, %v", scope, n, err)
		}
	}
	if inner.asked != 1 || inner.closed != 1 || inner.read != 0 {
		t.Errorf("boxo's stream: %+v", inner)
	}
}

// carCounter gives a stream that says what is done with it.
type carCounter struct {
	gateway.IPFSBackend
	asked, closed, read int
}

func (c *carCounter) GetCAR(context.Context, path.ImmutablePath, gateway.CarParams) (gateway.ContentPathMetadata, io.ReadCloser, error) {
	c.asked++
	return gateway.ContentPathMetadata{}, c, nil
}

func (c *carCounter) Read(p []byte) (int, error) { c.read++; return len(p), nil }
func (c *carCounter) Close() error               { c.closed++; return nil }

// The probe of the specification says that this is a trustless gateway.
func TestProbe(t *testing.T) {
	url := testGateway(t, newRepo(t), nil) + "/ipfs/" + emptyCID
	for _, method := range []string{"GET", "HEAD"} {
		for _, query := range []string{"?format=raw", "?format=car"} {
			resp, body := request(t, method, url+query)
			if resp.StatusCode != 200 {
				t.Errorf("%s %s: %s", method, query, resp.Status)
			}
			if method == "GET" && strings.HasSuffix(query, "car") {
				car, err := dag.ReadCAR(strings.NewReader(body))
				if err != nil || len(car.Roots) != 1 || car.Roots[0].String() != emptyCID {
					t.Errorf("CAR: %v, %v", car, err)
				}
			}
		}
	}
}
