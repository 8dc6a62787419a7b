package node

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

// noRedirect is a client that shows a redirect instead of following it.
var noRedirect = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func TestGatewayIPNS(t *testing.T) {
	r := newRepo(t)
	root, docs := putState(t, r.Blocks, 1)
	url := testGateway(t, r, nil)
	put := func(value string, lifetime, ttl time.Duration) owner {
		o := newOwner(t)
		must(t, r.PutName(o.name, o.sign(value, 1, lifetime, ttl)))
		return o
	}
	state := put("/ipfs/"+root.String(), time.Hour, time.Minute)
	collection := put("/ipfs/"+root.String()+"/credentials", time.Hour, 0)
	second := put("/ipns/"+collection.name, time.Hour, 2*time.Minute)
	short := put("/ipns/"+state.name, 58*time.Second, time.Hour)
	domain := put("/ipns/example.com", time.Hour, 0)
	loop := newOwner(t)
	must(t, r.PutName(loop.name, loop.sign("/ipns/"+loop.name, 1, time.Hour, 0)))
	expired := newOwner(t)
	must(t, r.PutRecord(nameKind, expired.name, expired.sign("/ipfs/"+root.String(), 1, -time.Minute, 0)))

	doc := string(docs["credentials/007.json"])
	for _, c := range []struct {
		path   string
		status int
		body   string // "" for any
		cache  string // of a 200: a regular expression
	}{
		{"/ipns/" + state.name + "/credentials/007.json", 200, doc, "public, max-age=60"},
		{"/ipns/" + collection.name + "/007.json", 200, doc, ""},
		{"/ipns/" + second.name + "/007.json", 200, doc, ""},
		{"/ipns/" + short.name + "/credentials/007.json", 200, doc, "public, max-age=[1-5][0-9]"},
		{"/ipns/" + state.name + "/credentials", 301, "", ""},
		{"/ipns/" + state.name + "/", 200, "", "public, max-age=60, stale-while-revalidate=2678400"},
		{"/ipns/" + state.id.String() + "/credentials/007.json", 302, "", ""},
		{"/ipns/" + state.name + "/nobody", 404, "", ""},
		{"/ipns/" + loop.name, 404, "", ""},
		{"/ipns/" + domain.name, 404, "", ""},
		{"/ipns/" + expired.name, 404, "", ""},
		{"/ipns/" + expired.name + "?format=ipns-record", 404, "", ""},
		{"/ipns/" + newOwner(t).name, 404, "", ""},
		{"/ipns/" + newOwner(t).name + "?format=ipns-record", 404, "", ""},
		{"/ipns/example.com/x", 404, "", ""},
		{"/ipns/" + state.name + "/credentials?format=ipns-record", 400, "", ""},
		{"/ipfs/" + root.String() + "?format=ipns-record", 400, "", ""},
	} {
		resp, err := noRedirect.Get(url + c.path)
		must(t, err)
		body := readBody(t, resp)
		if resp.StatusCode != c.status || c.body != "" && body != c.body {
			t.Errorf("%s: %s %.100q", c.path, resp.Status, body)
		}
		if got := resp.Header.Get("Cache-Control"); c.status == 200 && !regexp.MustCompile("^"+c.cache+"$").MatchString(got) {
			t.Errorf("%s: Cache-Control %q, want %q", c.path, got, c.cache)
		}
	}

	// What the name says changes, and with it what the gateway gives.
	next := dag.RawBlock([]byte("next"))
	must(t, r.Blocks.Put(ctx, next))
	must(t, r.PutName(state.name, state.sign("/ipfs/"+next.CID.String(), 2, time.Hour, 0)))
	if _, body := request(t, "GET", url+"/ipns/"+state.name); body != "next" {
		t.Errorf("after a newer record: %q", body)
	}
	// A cache may ask whether what it has is still right.
	for header, want := range map[string]int{`"` + next.CID.String() + `"`: 304, `"` + root.String() + `"`: 200} {
		if resp, _ := request(t, "GET", url+"/ipns/"+state.name, "If-None-Match", header); resp.StatusCode != want {
			t.Errorf("If-None-Match %s: %s", header, resp.Status)
		}
	}
	for path, want := range map[string]int{state.name: 200, newOwner(t).name: 412} {
		if resp, _ := request(t, "HEAD", url+"/ipns/"+path, "Cache-Control", "only-if-cached"); resp.StatusCode != want {
			t.Errorf("only-if-cached %s: %s", path, resp.Status)
		}
	}
}

// The record itself is given as it was signed, by the gateway and by the routing API.
func TestIPNSRecordResponse(t *testing.T) {
	r := newRepo(t)
	o := newOwner(t)
	record := o.sign(someValue, 3, time.Hour, time.Minute)
	must(t, r.PutName(o.name, record))
	n, err := r.Serve(ctx, ServeOptions{Gateway: anyGateway, Routing: true})
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	const kind = "application/vnd.ipfs.ipns-record"
	for _, c := range []struct{ path, accept string }{
		{"/ipns/" + o.name + "?format=ipns-record", ""},
		{"/ipns/" + o.name, kind},
		{"/ipns/" + o.name + "/?format=ipns-record", ""},
		{"/routing/v1/ipns/" + o.name, kind},
	} {
		resp, body := request(t, "GET", n.GatewayURL()+c.path, "Accept", c.accept)
		if resp.StatusCode != 200 || body != string(record) || resp.Header.Get("Content-Type") != kind ||
			!strings.Contains(resp.Header.Get("Cache-Control"), "max-age=") {
			t.Errorf("%s: %s, %v", c.path, resp.Status, resp.Header)
		}
		if strings.HasPrefix(c.path, "/routing") {
			continue
		}
		etag := resp.Header.Get("Etag")
		if len(etag) < 3 || etag[0] != '"' || etag[len(etag)-1] != '"' || !strings.Contains(resp.Header.Get("Content-Disposition"), "attachment") {
			t.Errorf("%s: %v", c.path, resp.Header)
		}
		for known, want := range map[string]int{etag: 304, `"x", ` + etag: 304, "*": 304, `"x"`: 200} {
			resp, body := request(t, "GET", n.GatewayURL()+c.path, "Accept", c.accept, "If-None-Match", known)
			if resp.StatusCode != want || want == 304 && body != "" {
				t.Errorf("%s, If-None-Match %s: %s", c.path, known, resp.Status)
			}
		}
	}
	// The routing API says by another type that there is none (IPIP-513).
	if resp, _ := request(t, "GET", n.GatewayURL()+"/routing/v1/ipns/"+newOwner(t).name, "Accept", kind); resp.Header.Get("Content-Type") == kind {
		t.Errorf("a name that is not held: %s", resp.Status)
	}
	// Nobody can put a record from outside.
	req, err := http.NewRequest("PUT", n.GatewayURL()+"/routing/v1/ipns/"+o.name, strings.NewReader(string(o.sign(someValue, 4, time.Hour, 0))))
	must(t, err)
	req.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	readBody(t, resp)
	if held, err := r.Name(o.name); resp.StatusCode < 400 || err != nil || held.Sequence != 3 {
		t.Errorf("PUT: %s, %+v, %v", resp.Status, held, err)
	}
}
