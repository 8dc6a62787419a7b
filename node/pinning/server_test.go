package pinning

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

// aCID is of a document that nobody has.
var aCID = dag.RawBlock([]byte("nobody has it")).CID.String()

type failure struct {
	Error struct {
		Reason  string `json:"reason"`
		Details string `json:"details"`
	} `json:"error"`
}

func TestTokens(t *testing.T) {
	p := newPeer(t).start(Options{Tokens: []string{strings.Repeat("0", 64)}})
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + token, token, "Bearer " + token + "x", "Bearer " + strings.Repeat("0", 64)} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			for _, path := range []string{"/pins", "/pins/x", "/", "/other"} {
				req, err := http.NewRequestWithContext(ctx, method, p.endpoint()+path, strings.NewReader(`{"cid":"`+aCID+`"}`))
				must(t, err)
				req.Header.Set("Authorization", header)
				resp, err := http.DefaultClient.Do(req)
				must(t, err)
				resp.Body.Close()
				if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("%s %s with %q: %s", method, path, header, resp.Status)
				}
			}
		}
	}
	if n := len(p.api.requests); n > 0 {
		t.Errorf("%d requests were queued", n)
	}
	for _, bad := range []string{"", "ab", strings.Repeat("g", 64), strings.Repeat("0", 66)} {
		if s, err := Start(p.repo, p.net, Options{Tokens: []string{bad}}); !errors.Is(err, ErrToken) {
			t.Errorf("digest %q: %v, %v", bad, s, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	p := newPeer(t).start(Options{})
	long := strings.Repeat("ü", 256)
	fat := strings.TrimSuffix(strings.Repeat(`"/dns4/`+strings.Repeat("a", 600)+`/tcp/1",`, 20), ",")
	many := strings.TrimSuffix(strings.Repeat(`"/ip4/127.0.0.1/tcp/1",`, 21), ",")
	for _, c := range []struct {
		method, path, body string
		code               int
		reason             string
	}{
		{"POST", "/pins", "", 400, "BAD_REQUEST"},
		{"POST", "/pins", "{", 400, "BAD_REQUEST"},
		{"POST", "/pins", "[]", 400, "BAD_REQUEST"},
		{"POST", "/pins", "{}", 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":5}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"nonsense"}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"` + aCID + `"} {}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"` + aCID + `","name":"` + long + `"}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"` + aCID + `","origins":["nonsense"]}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"` + aCID + `","origins":[` + many + `]}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"` + aCID + `","meta":{"a":1}}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"` + aCID + `","origins":[` + fat + `]}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"` + aCID + `","meta":{"a":"` + strings.Repeat("x", maxMetaBytes) + `"}}`, 400, "BAD_REQUEST"},
		{"POST", "/pins", `{"cid":"` + strings.Repeat("a", maxBody) + `"}`, 413, "REQUEST_TOO_LARGE"},
		{"POST", "/pins/absent", `{"cid":"` + aCID + `"}`, 404, "NOT_FOUND"},
		{"GET", "/pins/absent", "", 404, "NOT_FOUND"},
		{"DELETE", "/pins/absent", "", 404, "NOT_FOUND"},
		{"GET", "/pins/..%2f..%2fpins", "", 404, "NOT_FOUND"},
		{"GET", "/other", "", 404, "NOT_FOUND"},
		{"PUT", "/pins", "", 405, "METHOD_NOT_ALLOWED"},
		{"PATCH", "/pins/absent", "", 405, "METHOD_NOT_ALLOWED"},
		{"GET", "/pins?cid=nonsense", "", 400, "BAD_REQUEST"},
		{"GET", "/pins?cid=" + strings.Repeat(aCID+",", 10) + aCID, "", 400, "BAD_REQUEST"},
		{"GET", "/pins?name=" + long, "", 400, "BAD_REQUEST"},
		{"GET", "/pins?name=x&match=fuzzy", "", 400, "BAD_REQUEST"},
		{"GET", "/pins?status=lost", "", 400, "BAD_REQUEST"},
		{"GET", "/pins?status=", "", 400, "BAD_REQUEST"},
		{"GET", "/pins?before=yesterday", "", 400, "BAD_REQUEST"},
		{"GET", "/pins?after=5", "", 400, "BAD_REQUEST"},
		{"GET", "/pins?limit=0", "", 400, "BAD_REQUEST"},
		{"GET", "/pins?limit=1001", "", 400, "BAD_REQUEST"},
		{"GET", "/pins?limit=x", "", 400, "BAD_REQUEST"},
		{"GET", "/pins?meta=x", "", 400, "BAD_REQUEST"},
		{"GET", `/pins?meta={"a":1}`, "", 400, "BAD_REQUEST"},
	} {
		var f failure
		resp := p.call(c.method, c.path, c.body, &f)
		if resp.StatusCode != c.code || f.Error.Reason != c.reason || f.Error.Details == "" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %.60s %.60s: %s, %+v", c.method, c.path, c.body, resp.Status, f)
		}
	}
	if n := len(p.api.requests); n > 0 {
		t.Errorf("%d requests were queued", n)
	}
}

// A client that floods the queue is told to come back.
func TestQueueIsBounded(t *testing.T) {
	p := newPeer(t).start(Options{})
	p.api.mu.Lock()
	for range maxWaiting {
		p.api.requests = append(p.api.requests, &request{ID: "waits", Created: p.api.now(), Status: queued, notYet: time.Now().Add(time.Hour)})
	}
	p.api.mu.Unlock()
	var f failure
	resp := p.call("POST", "/pins", `{"cid":"`+aCID+`"}`, &f)
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" || f.Error.Reason != "TOO_MANY_REQUESTS" {
		t.Errorf("one more: %s, %+v", resp.Status, f)
	}
	p.api.mu.Lock()
	for len(p.api.requests) < maxRequests {
		p.api.requests = append(p.api.requests, &request{ID: "done", Created: p.api.now(), Status: pinned})
	}
	for _, r := range p.api.requests {
		r.Status = pinned
	}
	p.api.mu.Unlock()
	if resp := p.call("POST", "/pins", `{"cid":"`+aCID+`"}`, &f); resp.StatusCode != http.StatusConflict || f.Error.Reason != "TOO_MANY_PINS" {
		t.Errorf("one more than are kept: %s, %+v", resp.Status, f)
	}
}

// Requests are kept up to a number of bytes in all, whatever their own limits are.
func TestBytesAreBounded(t *testing.T) {
	p := newPeer(t).start(Options{})
	id := p.add(p.putDAG("one"), "/ip4/127.0.0.1/tcp/1")
	p.api.mu.Lock()
	r, err := p.api.find(id)
	must(t, err)
	if data, err := p.repo.Record(recordKind, id); err != nil || r.size != len(data) {
		t.Errorf("its record has %d bytes, and is taken for %d: %v", len(data), r.size, err)
	}
	p.api.requests = append(p.api.requests, &request{ID: "large", Created: p.api.now(), Status: pinned, size: maxBytes})
	p.api.mu.Unlock()
	var f failure
	if resp := p.call("POST", "/pins", `{"cid":"`+aCID+`"}`, &f); resp.StatusCode != http.StatusConflict || f.Error.Reason != "TOO_MANY_PINS" {
		t.Errorf("one more: %s, %+v", resp.Status, f)
	}
}

// The API is on the HTTP listener alone.
func TestNotOverLibp2p(t *testing.T) {
	p := newPeer(t).start(Options{})
	for source, want := range map[string]string{p.address(): "404", p.net.GatewayURL(): "401"} {
		remote, err := newPeer(t).repo.Dial(source)
		must(t, err)
		_, err = remote.Log("x").ReadEndpoint(ctx, "../../pinning/pins")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %s", source, err, want)
		}
		must(t, remote.Close())
	}
}
