package node

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// served is a save point behind a gateway.
type served struct {
	t               *testing.T
	repo            *Repo
	url             string
	state, manifest cid.Cid
}

func newServed(t *testing.T, documents map[string]string) served {
	t.Helper()
	s := served{t: t, repo: newRepo(t)}
	var tree dag.Editor
	for path, text := range documents {
		l, _, err := dag.WriteDocument(ctx, s.repo.Blocks, strings.NewReader(text))
		must(t, err)
		must(t, tree.Put(path, l))
	}
	root, err := tree.Apply(ctx, nil, s.repo.Blocks, cid.Undef)
	must(t, err)
	m := dag.Manifest{
		Version: dag.ManifestVersion, Profile: dag.Profile, Policy: dag.Policy{ID: "p"}, Sequence: 1, Time: time.Unix(0, 0).UTC(),
		Triggers: []dag.Trigger{{Kind: dag.TriggerManual}}, State: root.CID,
		Consistency: dag.Consistency{Method: "test", Consistent: true},
		Provider:    dag.Provider{Name: "test", Plugins: []string{}}, Tool: dag.Tool{Name: "test", Version: "0"},
	}
	manifest, err := m.Block()
	must(t, err)
	must(t, s.repo.Blocks.Put(ctx, manifest))
	s.state, s.manifest, s.url = root.CID, manifest.CID, testGateway(t, s.repo, nil)
	return s
}

// get asks for a path without following redirects.
func (s served) get(path string, header ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	must(s.t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := noRedirect.Do(req)
	must(s.t, err)
	return resp, readBody(s.t, resp)
}

// A document of a save point comes with its content type: by its name, and else by
// what it looks like.
func TestDocumentContentTypes(t *testing.T) {
	documents := map[string]struct{ text, kind string }{
		"a.json":      {`{"a":1}`, "application/json"},
		"broken.json": {`{"a":`, "application/json"}, "json": {`{"a":1}`, "application/json"},
		"t.txt": {"text", "text/plain; charset=utf-8"}, "text": {"text", "text/plain; charset=utf-8"},
		"page.html": {"<html><body>x</body></html>", "text/html"}, "page": {"<!DOCTYPE html><html><body>x</body></html>", "text/html"},
		"v.svg": {`<svg xmlns="http://www.w3.org/2000/svg"></svg>`, "image/svg+xml"},
		"pdf":   {"%PDF-1.4\n", "application/pdf"}, "x.pdf": {"%PDF-1.4\n", "application/pdf"},
		"x.png": {"\x89PNG\r\n\x1a\n", "image/png"}, "binary": {"\x00\x01\x02\xff", "application/octet-stream"},
		"ünï côde é#?%.json": {"{}", "application/json"}, "empty": {"", "text/plain"},
	}
	texts := map[string]string{}
	for name, d := range documents {
		texts["c/"+name] = d.text
	}
	s := newServed(t, texts)
	for name, d := range documents {
		for _, top := range []string{s.manifest.String() + "/state/", s.state.String() + "/"} {
			path := "/ipfs/" + top + "c/" + url.PathEscape(name)
			resp, body := s.get(path)
			h := resp.Header
			if resp.StatusCode != 200 || body != d.text || !strings.HasPrefix(h.Get("Content-Type"), d.kind) {
				t.Errorf("%s: %s, Content-Type %q, want %q", path, resp.Status, h.Get("Content-Type"), d.kind)
			}
			want := dag.RawBlock([]byte(d.text)).CID.String()
			if h.Get("Etag") != `"`+want+`"` || h.Get("Cache-Control") != immutable || !strings.HasSuffix(h.Get("X-Ipfs-Roots"), want) ||
				h.Get("Content-Length") != fmt.Sprint(len(d.text)) {
				t.Errorf("%s: %v", path, h)
			}
			head, _ := request(t, "HEAD", s.url+path)
			for _, key := range []string{"Content-Type", "Etag", "Content-Length", "X-Ipfs-Roots"} {
				if head.StatusCode != 200 || head.Header.Get(key) != h.Get(key) {
					t.Errorf("HEAD %s: %s, %s %q, not %q", path, head.Status, key, head.Header.Get(key), h.Get(key))
				}
			}
		}
	}
	for query, want := range map[string]string{
		"?filename=t%C3%A9st.txt":   `inline; filename="t_st.txt"; filename*=UTF-8''t%C3%A9st.txt`,
		"?filename=x&download=true": `attachment; filename="x"; filename*=UTF-8''x`,
		"":                          "",
	} {
		if resp, _ := s.get("/ipfs/" + s.state.String() + "/c/a.json" + query); resp.Header.Get("Content-Disposition") != want {
			t.Errorf("%s: %q", query, resp.Header.Get("Content-Disposition"))
		}
	}
}

func TestDocumentRanges(t *testing.T) {
	large := string(bytesOf(1, 2*dag.ChunkSize+100))
	s := newServed(t, map[string]string{"d/small": "0123456789", "d/large": large})
	etags := map[string]string{}
	for _, name := range []string{"small", "large"} {
		resp, _ := s.get("/ipfs/" + s.state.String() + "/d/" + name)
		etags[name] = resp.Header.Get("Etag")
	}
	const chunk = dag.ChunkSize
	for _, c := range []struct {
		name, header string
		status       int
		from, to     int // of the body
		more         []string
	}{
		{"small", "bytes=0-0", 206, 0, 1, nil},
		{"small", "bytes=2-5", 206, 2, 6, nil},
		{"small", "bytes=7-", 206, 7, 10, nil},
		{"small", "bytes=-3", 206, 7, 10, nil},
		{"small", "bytes=-99", 206, 0, 10, nil},
		{"small", "bytes=5-99", 206, 5, 10, nil},
		{"small", "bytes=10-", 416, 0, 0, nil},
		{"small", "bytes=99-100", 416, 0, 0, nil},
		{"small", "items=0-1", 200, 0, 10, nil},
		{"small", "bytes=0-1,4-5", 206, 0, 2, nil}, // several are optional: the first one
		{"small", "bytes=2-5", 206, 2, 6, []string{"If-Range", etags["small"]}},
		{"small", "bytes=2-5", 200, 0, 10, []string{"If-Range", `"other"`}},
		{"small", "bytes=2-5,0-9,3-7", 200, 0, 10, nil}, // more than the whole
		{"small", "bytes=2-5", 304, 0, 0, []string{"If-None-Match", etags["small"]}},
		{"large", fmt.Sprintf("bytes=%d-%d", chunk-2, chunk+1), 206, chunk - 2, chunk + 2, nil},
		{"large", fmt.Sprintf("bytes=%d-", 2*chunk+90), 206, 2*chunk + 90, 2*chunk + 100, nil},
		{"large", "bytes=-100", 206, 2 * chunk, 2*chunk + 100, nil},
		{"large", "bytes=5-", 206, 5, 2*chunk + 100, nil},
		{"large", "bytes=9999999-", 416, 0, 0, nil},
	} {
		document := map[string]string{"small": "0123456789", "large": large}[c.name]
		resp, body := s.get("/ipfs/"+s.manifest.String()+"/state/d/"+c.name, append([]string{"Range", c.header}, c.more...)...)
		if resp.StatusCode != c.status || c.status < 300 && body != document[c.from:c.to] {
			t.Errorf("%s %s %v: %s, %d bytes", c.name, c.header, c.more, resp.Status, len(body))
		}
		want := ""
		switch c.status {
		case 206:
			want = fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, len(document))
		case 416:
			want = fmt.Sprintf("bytes */%d", len(document))
		}
		if got := resp.Header.Get("Content-Type"); c.status < 300 && !strings.HasPrefix(got, map[string]string{"small": "text/plain", "large": "application/octet-stream"}[c.name]) {
			t.Errorf("%s %s: Content-Type %q", c.name, c.header, got)
		}
		if got := resp.Header.Get("Content-Range"); got != want {
			t.Errorf("%s %s: Content-Range %q, want %q", c.name, c.header, got, want)
		}
	}
}

func TestConditionalRequests(t *testing.T) {
	s := newServed(t, map[string]string{"c/a.json": "{}", "d/index.html": "<p>home</p>"})
	for _, path := range []string{"/c/a.json", "/c/", "/d/", "/c/?format=raw", "/c/?format=tar", "/c/a.json?format=car"} {
		path = "/ipfs/" + s.state.String() + path
		resp, _ := s.get(path)
		etag := resp.Header.Get("Etag")
		for header, want := range map[string]int{etag: 304, "W/" + strings.TrimPrefix(etag, "W/"): 304, `"a", ` + etag + `, "b"`: 304, "*": 304, `"other"`: 200, "": 200} {
			resp, body := s.get(path, "If-None-Match", header)
			if etag == "" || resp.StatusCode != want || want == 304 && body != "" {
				t.Errorf("%s, If-None-Match %s: %s", path, header, resp.Status)
			}
		}
	}
}

// Directories: the slash, the listing, whatever form they have, and index.html.
func TestDirectories(t *testing.T) {
	documents := map[string]string{"site/index.html": "<p>home</p>", "site/x": "x", "b/<i>&.json": "{}"}
	for i := range 3000 {
		documents[fmt.Sprintf("many/%05d.json", i)] = fmt.Sprint(i)
	}
	s := newServed(t, documents)
	for _, dir := range []string{"", "/site", "/many", "/b"} {
		for _, top := range []string{"/ipfs/" + s.state.String(), "/ipfs/" + s.manifest.String() + "/state"} {
			resp, _ := s.get(top + dir + "?x=y")
			if got := resp.Header.Get("Location"); resp.StatusCode != 301 || got != top+dir+"/?x=y" {
				t.Errorf("%s: %s to %q", top+dir, resp.Status, got)
			}
			resp, body := s.get(top + dir + "/")
			if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%s/: %s, %v", top+dir, resp.Status, resp.Header)
			}
			isListing := strings.HasPrefix(resp.Header.Get("Etag"), `"DirIndex-`)
			if home := dir == "/site"; home != (body == "<p>home</p>") || home == isListing {
				t.Errorf("%s/: Etag %s, %.60q", top+dir, resp.Header.Get("Etag"), body)
			}
			head, _ := request(t, "HEAD", s.url+top+dir+"/")
			if head.StatusCode != 200 || head.Header.Get("Etag") != resp.Header.Get("Etag") {
				t.Errorf("HEAD %s/: %s, %v", top+dir, head.Status, head.Header)
			}
		}
	}
	_, body := s.get("/ipfs/" + s.state.String() + "/many/")
	for i := range 3000 {
		if name := fmt.Sprintf("%05d.json", i); !strings.Contains(body, name) {
			t.Fatalf("%s is not listed", name)
		}
	}
	if _, body := s.get("/ipfs/" + s.state.String() + "/b/"); strings.Contains(body, "<i>&") || !strings.Contains(body, "&lt;i&gt;&amp;.json") {
		t.Error("a name is not escaped in the listing")
	}
}

func TestTar(t *testing.T) {
	documents := map[string]string{"a/b/c.json": "{}", "a/large": string(bytesOf(2, dag.ChunkSize+5)), "top": "top"}
	for i := range 300 {
		documents[fmt.Sprintf("many/%030d", i)] = fmt.Sprint(i)
	}
	s := newServed(t, documents)
	for _, path := range []string{"/ipfs/" + s.state.String(), "/ipfs/" + s.manifest.String() + "/state"} {
		resp, body := s.get(path + "?format=tar")
		h := resp.Header
		if resp.StatusCode != 200 || h.Get("Content-Type") != "application/x-tar" || !strings.HasPrefix(h.Get("Etag"), "W/") ||
			!strings.HasPrefix(h.Get("Content-Disposition"), `attachment; filename="`+s.state.String()+`.tar"`) {
			t.Errorf("%s: %s, %v", path, resp.Status, h)
		}
		got := map[string]string{}
		for r := tar.NewReader(strings.NewReader(body)); ; {
			f, err := r.Next()
			if err == io.EOF {
				break
			}
			must(t, err)
			var text bytes.Buffer
			_, err = io.Copy(&text, r)
			must(t, err)
			if f.Typeflag == tar.TypeReg {
				got[strings.TrimPrefix(f.Name, s.state.String()+"/")] = text.String()
			}
		}
		if len(got) != len(documents) {
			t.Errorf("%s: %d documents, not %d", path, len(got), len(documents))
		}
		for name, want := range documents {
			if got[name] != want {
				t.Errorf("%s: %q differs", path, name)
			}
		}
	}
	// One document, and what is no file.
	resp, body := s.get("/ipfs/" + s.state.String() + "/top?format=tar")
	f, err := tar.NewReader(strings.NewReader(body)).Next()
	if err != nil || f.Size != 3 {
		t.Errorf("one document: %s, %v, %v", resp.Status, f, err)
	}
	if resp, _ := s.get("/ipfs/" + s.manifest.String() + "?format=tar"); resp.StatusCode != 400 {
		t.Errorf("a manifest: %s", resp.Status)
	}
}

// A directory of more entries than are listed is said to be so, and can be had as CAR.
func TestListingLimit(t *testing.T) {
	r := newRepo(t)
	l, _, err := dag.WriteDocument(ctx, r.Blocks, strings.NewReader("x"))
	must(t, err)
	for _, n := range []int{maxListing, maxListing + 1} {
		var tree dag.Editor
		for i := range n {
			must(t, tree.Put(fmt.Sprint(i), l))
		}
		root, err := tree.Apply(ctx, nil, r.Blocks, cid.Undef)
		must(t, err)
		url := testGateway(t, r, nil) + "/ipfs/" + root.CID.String() + "/"
		want := map[bool]int{true: 200, false: 410}[n == maxListing]
		resp, body := request(t, "GET", url)
		if resp.StatusCode != want || want == 410 && (!strings.Contains(body, "?format=car") || resp.Header.Get("Etag") != "" || resp.Header.Get("Cache-Control") != "") {
			t.Errorf("%d entries: %s, %v, %.200q", n, resp.Status, resp.Header, body)
		}
		for _, path := range []string{"0", fmt.Sprint(n - 1), "?format=car&dag-scope=entity"} {
			if resp, _ := request(t, "GET", url+path); resp.StatusCode != 200 {
				t.Errorf("%d entries, %s: %s", n, path, resp.Status)
			}
		}
		// HEAD makes no tar, and says no length that it would not have.
		if resp, _ := request(t, "HEAD", url+"?format=tar"); resp.StatusCode != 200 || resp.Header.Get("Content-Length") != "" {
			t.Errorf("HEAD of a tar: %s, %v", resp.Status, resp.Header)
		}
	}
}

// What a node is, it is given as; nothing is converted (IPIP-524).
func TestCodecs(t *testing.T) {
	s := newServed(t, map[string]string{"a.json": `{"a":1}`})
	manifest, err := s.repo.Blocks.Get(ctx, s.manifest)
	must(t, err)
	for _, c := range []struct {
		path, accept string
		status       int
		kind, body   string
	}{
		{s.manifest.String(), "", 200, "application/vnd.ipld.dag-cbor", string(manifest)},
		{s.manifest.String() + "?format=dag-cbor", "", 200, "application/vnd.ipld.dag-cbor", string(manifest)},
		{s.manifest.String(), "application/vnd.ipld.dag-cbor", 200, "application/vnd.ipld.dag-cbor", string(manifest)},
		{s.manifest.String() + "?format=dag-json", "", 406, "", ""},
		{s.manifest.String(), "application/vnd.ipld.dag-json", 406, "", ""},
		{s.state.String() + "?format=dag-json", "", 406, "", ""},
		{s.state.String() + "/?format=dag-cbor", "", 406, "", ""},
		{s.manifest.String() + "?format=raw", "", 200, rawType, string(manifest)},
		{s.state.String() + "/a.json", "application/json", 200, "application/json", `{"a":1}`},
		{s.manifest.String() + "/totals", "", 501, "", ""}, // no link, so no node of its own
		{s.manifest.String() + "/policy/id", "", 501, "", ""},
		{s.manifest.String() + "/nothing", "", 404, "", ""},
	} {
		resp, body := s.get("/ipfs/"+c.path, "Accept", c.accept)
		if resp.StatusCode != c.status || c.status == 200 && (body != c.body || resp.Header.Get("Content-Type") != c.kind) {
			t.Errorf("%s, Accept %q: %s, %s", c.path, c.accept, resp.Status, resp.Header.Get("Content-Type"))
		}
	}
}

func TestPathStatuses(t *testing.T) {
	s := newServed(t, map[string]string{"c/a.json": "{}"})
	gone := dag.RawBlock([]byte("gone")).CID.String()
	for path, want := range map[string]int{
		"/ipfs/" + s.state.String() + "/nobody":            404,
		"/ipfs/" + s.state.String() + "/c/nobody/x":        404,
		"/ipfs/" + s.state.String() + "/c/a.json/x":        404,
		"/ipfs/" + s.manifest.String() + "/state/c/nobody": 404,
		"/ipfs/" + gone:                      404,
		"/ipfs/" + gone + "/x/y":             404,
		"/ipfs/" + gone + "?format=tar":      404,
		"/ipfs/" + gone + "?format=dag-cbor": 404,
		"/ipfs/nonsense":                     400,
		"/ipfs/nonsense/x":                   400,
		"/ipfs/":                             400,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			if resp, _ := request(t, method, s.url+path); resp.StatusCode != want {
				t.Errorf("%s %s: %s, want %d", method, path, resp.Status, want)
			}
		}
	}
	// Nobody registers a service worker for all of a root.
	if resp, _ := s.get("/ipfs/"+s.state.String(), "Service-Worker", "script"); resp.StatusCode != 400 {
		t.Errorf("Service-Worker: %s", resp.Status)
	}
	for _, method := range []string{"PUT", "POST", "DELETE", "PATCH", "TRACE"} {
		resp, _ := request(t, method, s.url+"/ipfs/"+s.state.String())
		if resp.StatusCode != 405 || !strings.Contains(strings.Join(resp.Header.Values("Allow"), ","), "GET") {
			t.Errorf("%s: %s, Allow %v", method, resp.Status, resp.Header.Values("Allow"))
		}
	}
}

// A node that is missing in the middle of a document cuts the answer, and nothing waits
// for it. In the middle of a path it is 404.
func TestMissingNodes(t *testing.T) {
	large := bytesOf(3, 3*dag.ChunkSize)
	s := newServed(t, map[string]string{"d/large": string(large)})
	chunk := dag.RawBlock(large[dag.ChunkSize : 2*dag.ChunkSize])
	must(t, s.repo.Blocks.Delete(ctx, chunk.CID))
	url := s.url + "/ipfs/" + s.state.String()
	resp, err := http.Get(url + "/d/large")
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(body) > 2*dag.ChunkSize {
		t.Errorf("%s, %d bytes, %v", resp.Status, len(body), err)
	}
	if resp, body := s.get("/ipfs/"+s.state.String()+"/d/large", "Range", fmt.Sprintf("bytes=%d-", 2*dag.ChunkSize)); resp.StatusCode != 206 || body != string(large[2*dag.ChunkSize:]) {
		t.Errorf("what is behind it: %s", resp.Status)
	}
	data, err := s.repo.Blocks.Get(ctx, s.state)
	must(t, err)
	links, err := dag.Links(dag.Block{CID: s.state, Data: data})
	must(t, err)
	must(t, s.repo.Blocks.Delete(ctx, links...))
	for _, path := range []string{"/d", "/d/", "/d/large"} {
		if resp, _ := s.get("/ipfs/" + s.state.String() + path); resp.StatusCode != 404 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// Pages from elsewhere may read what is public by its CID, and not the logs.
func TestCORS(t *testing.T) {
	s := newServed(t, map[string]string{"a": "a"})
	url := testGateway(t, s.repo, func(context.Context, string) (cid.Cid, bool) { return s.state, true })
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		for path, open := range map[string]bool{"/ipfs/" + s.state.String() + "/a": true, "/ipfs/" + s.state.String() + "/none": true, "/ipns/none": true, "/tlog/00/a": false} {
			h, _ := request(t, method, url+path, "Origin", "https://elsewhere.example")
			got := strings.Join(h.Header.Values("Access-Control-Allow-Methods"), " ")
			if open != (h.Header.Get("Access-Control-Allow-Origin") == "*") || open != (got == "GET HEAD OPTIONS") {
				t.Errorf("%s %s: %v", method, path, h.Header)
			}
			exposed := strings.Join(h.Header.Values("Access-Control-Expose-Headers"), " ")
			for _, name := range []string{"Content-Length", "Content-Range", "X-Ipfs-Roots", "X-Ipfs-Path"} {
				if open != strings.Contains(exposed, name) {
					t.Errorf("%s %s: exposed %q", method, path, exposed)
				}
			}
		}
	}
}
