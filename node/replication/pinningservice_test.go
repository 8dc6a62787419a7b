package replication

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

// standInService answers as a pinning service does, and lets tests answer otherwise.
type standInService struct {
	t *testing.T
	// fault answers everything instead.
	fault http.HandlerFunc
	// statuses are what a request goes through, one each time it is asked for.
	statuses  []string
	delegates []string
	// byCID: requests have the CID for an id.
	byCID bool
	ended chan struct{}

	mu       sync.Mutex
	requests []*standInRequest
	posted   int
	origins  []string
}

type standInRequest struct {
	id, cid  string
	statuses []string
}

const onePeer = "12D3KooWLaygdAQnRbcVPLJ6myxqS7jr4MPEe2a895Prf1Murtxy"

func newStandInService(t *testing.T, statuses ...string) (*standInService, *pinningService) {
	s := &standInService{t: t, statuses: statuses, delegates: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + onePeer}, ended: make(chan struct{})}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		close(s.ended)
		server.Close()
	})
	r := node.Replica{Name: "s", Kind: node.ReplicaPinningService, Endpoint: server.URL + "/api/"}
	p := newPinningService(newRepo(t), r, &hosts{}, tokenFile(tokenIn(t)))
	p.wait = 20 * time.Second
	return s, p
}

func (s *standInService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	id, named := strings.CutPrefix(r.URL.Path, "/api/pins/")
	switch {
	case r.Header.Get("Authorization") != "Bearer "+secret:
		s.t.Errorf("authorization %q", r.Header.Get("Authorization"))
	case s.fault != nil:
		s.fault(w, r)
	case !named && r.URL.Path != "/api/pins":
		http.NotFound(w, r)
	case !named && r.Method == http.MethodGet:
		s.list(w, r)
	case !named && r.Method == http.MethodPost:
		s.post(w, r)
	default:
		s.one(w, r, id)
	}
}

func (s *standInService) list(w http.ResponseWriter, r *http.Request) {
	if got := r.URL.Query().Get("status"); got != "queued,pinning,pinned,failed" {
		s.t.Errorf("asked for status %q", got)
	}
	results := []any{}
	for _, q := range s.requests {
		if q.cid == r.URL.Query().Get("cid") {
			results = append(results, s.status(q))
		}
	}
	json.NewEncoder(w).Encode(map[string]any{"count": len(results), "results": results})
}

func (s *standInService) post(w http.ResponseWriter, r *http.Request) {
	var pin struct {
		CID     string   `json:"cid"`
		Name    string   `json:"name"`
		Origins []string `json:"origins"`
	}
	if err := json.NewDecoder(r.Body).Decode(&pin); err != nil || pin.Name != "policy-1" {
		s.t.Errorf("%v: pin %+v", err, pin)
	}
	s.posted++
	s.origins = pin.Origins
	q := &standInRequest{id: fmt.Sprint("request ", s.posted), cid: pin.CID, statuses: s.statuses}
	if s.byCID {
		q.id = pin.CID
		s.requests = nil
	}
	s.requests = append(s.requests, q)
	w.WriteHeader(http.StatusAccepted)
	json.NewEncoder(w).Encode(s.status(q))
}

func (s *standInService) one(w http.ResponseWriter, r *http.Request, id string) {
	i := slices.IndexFunc(s.requests, func(q *standInRequest) bool { return q.id == id })
	switch {
	case i < 0:
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"error":{"reason":"NOT_FOUND","details":"no such request"}}`)
	case r.Method == http.MethodDelete:
		s.requests = slices.Delete(s.requests, i, i+1)
		w.WriteHeader(http.StatusAccepted)
	default:
		json.NewEncoder(w).Encode(s.status(s.requests[i]))
	}
}

func (s *standInService) status(q *standInRequest) any {
	now := q.statuses[0]
	if len(q.statuses) > 1 {
		q.statuses = q.statuses[1:]
	}
	return map[string]any{
		"requestid": q.id, "status": now, "created": "2026-01-02T03:04:05Z", "delegates": s.delegates,
		"pin": map[string]any{"cid": q.cid}, "info": map[string]string{"status_details": "no providers\x1b[2J"},
	}
}

// host is a Host that remembers.
type host struct {
	connected [][]string
	admitted  map[string]int
}

func (h *host) Admit(addrs []string) (release func()) {
	count := func(n int) {
		for id := range node.PeersOf(addrs) {
			if h.admitted[id] += n; h.admitted[id] == 0 {
				delete(h.admitted, id)
			}
		}
	}
	if h.admitted == nil {
		h.admitted = map[string]int{}
	}
	count(1)
	return func() { count(-1) }
}

func (h *host) Addresses() []string { return []string{"/ip4/127.0.0.1/tcp/2/p2p/" + onePeer} }

func (h *host) Connect(_ context.Context, addrs []string) error {
	h.connected = append(h.connected, addrs)
	return nil
}

var someItem = Item{Root: dag.RawBlock([]byte("some")).CID, Name: "policy-1"}

// TestPinningService: the service is told where to fetch from, and asked until it has
// pinned; what it has pinned is not asked for again.
func TestPinningService(t *testing.T) {
	s, p := newStandInService(t, "queued", "pinning", "pinned")
	h := &host{}
	p.hosts.set(h)
	must(t, p.Push(ctx, someItem))
	must(t, p.Push(ctx, someItem))
	if s.posted != 1 {
		t.Errorf("it was asked to pin %d times", s.posted)
	}
	if !slices.Equal(s.origins, h.Addresses()) {
		t.Errorf("origins %v", s.origins)
	}
	if len(h.connected) != 1 || !slices.Equal(h.connected[0], s.delegates) {
		t.Errorf("connected to %v", h.connected)
	}
	if len(h.admitted) > 0 {
		t.Errorf("when all is done these may read: %v", h.admitted)
	}
	places, err := p.Places(ctx, someItem)
	must(t, err)
	if len(places) != 1 || places[0].ID() != "/p2p/"+onePeer || places[0].Name() != "s" {
		t.Errorf("places %v", places)
	}
}

// TestPinningServiceReads: the peers that a service names may read until it has pinned,
// or has failed, also between two tries.
func TestPinningServiceReads(t *testing.T) {
	s, p := newStandInService(t, "pinning")
	h := &host{}
	p.hosts.set(h)
	p.wait = 0
	for range 2 {
		mustBe(t, p.Push(ctx, someItem), ErrPending)
		if len(h.admitted) != 1 || h.admitted[onePeer] != 1 {
			t.Errorf("while it fetches these may read: %v", h.admitted)
		}
	}
	for _, end := range []string{"failed", "pinned"} {
		s.mu.Lock()
		s.statuses = []string{"pinning", end}
		if len(s.requests) > 0 {
			s.requests[0].statuses = s.statuses
		}
		s.mu.Unlock()
		p.wait = 20 * time.Second
		if err := p.Push(ctx, someItem); (err == nil) != (end == "pinned") {
			t.Fatalf("%s: %v", end, err)
		}
		if len(h.admitted) > 0 {
			t.Errorf("after it %s these may read: %v", end, h.admitted)
		}
	}
	if len(h.connected) != 4 {
		t.Errorf("connected %d times", len(h.connected))
	}
}

// TestPinningServiceSaysAtOnce: a service that says "pinned" when it is asked to pin is
// asked again.
func TestPinningServiceSaysAtOnce(t *testing.T) {
	_, p := newStandInService(t, "pinned", "failed")
	mustBe(t, p.Push(ctx, someItem), ErrRefused)
}

// TestPinningServiceResumes: a push that goes on after a restart uses the request that
// is there.
func TestPinningServiceResumes(t *testing.T) {
	s, p := newStandInService(t, "pinning")
	p.wait = 0
	mustBe(t, p.Push(ctx, someItem), ErrPending)
	mustBe(t, p.Push(ctx, someItem), ErrPending)
	s.mu.Lock()
	s.requests[0].statuses = []string{"pinning", "pinned"}
	s.mu.Unlock()
	p.wait = 20 * time.Second
	must(t, p.Push(ctx, someItem))
	if s.posted != 1 {
		t.Errorf("it was asked to pin %d times", s.posted)
	}
}

// TestPinningServiceFailed: a request that failed is made anew, and the old one removed,
// unless the service has one request a CID, as ipfs-cluster.
func TestPinningServiceFailed(t *testing.T) {
	for _, byCID := range []bool{false, true} {
		s, p := newStandInService(t, "queued", "failed")
		s.byCID = byCID
		err := p.Push(ctx, someItem)
		mustBe(t, err, ErrRefused)
		if text := Reason(err); !strings.Contains(text, "no providers") || strings.Contains(text, "\x1b") {
			t.Errorf("the reason is %q", text)
		}
		s.statuses = []string{"queued", "pinned"}
		must(t, p.Push(ctx, someItem))
		if s.posted != 2 || len(s.requests) != 1 || s.requests[0].statuses[0] != "pinned" {
			t.Errorf("by CID %t: %d requests were made, %d are left", byCID, s.posted, len(s.requests))
		}
	}
}

// TestPinningServiceFaults: nothing that is not the answer of a service is taken for
// one, or kept without limit, and no token is shown.
func TestPinningServiceFaults(t *testing.T) {
	text := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	other := fmt.Sprintf(`{"count":1,"results":[{"requestid":"x","status":"pinned","created":"2026-01-02T03:04:05Z","delegates":[],"pin":{"cid":%q}}]}`, dag.RawBlock(nil).CID)
	for name, c := range map[string]struct {
		fault http.HandlerFunc
		want  error
		text  string
	}{
		"401":       {text(401, "application/json", `{"error":{"reason":"UNAUTHORIZED","details":"token expired"}}`), node.ErrUnreachable, "UNAUTHORIZED: token expired"},
		"500":       {text(500, "text/plain", "oops"), ErrRefused, "500"},
		"503":       {text(503, "text/html", "<html>"), node.ErrUnreachable, "503"},
		"HTML":      {text(200, "text/html", "<html>welcome</html>"), ErrRefused, "not one of the Pinning Service API"},
		"not JSON":  {text(200, "application/json", "{"), ErrRefused, "not one of the Pinning Service API"},
		"redirect":  {text(302, "text/plain", ""), ErrRefused, "302"},
		"no status": {text(200, "application/json", `{"count":1,"results":[{"status":"eaten"}]}`), ErrRefused, "not one of"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			endless(strings.Repeat(" ", 1<<12))(w, r)
		}, node.ErrUnreachable, "too large"},
		"cut": {cut, node.ErrUnreachable, ""},
		// It is then asked to pin, and confuses that too.
		"another pin": {text(200, "application/json", other), ErrRefused, "as one for"},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := newStandInService(t, "pinned")
			s.fault = c.fault
			err := p.Push(ctx, someItem)
			mustBe(t, err, c.want)
			if !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), secret) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestPinningServiceConfused: a request that turns out to be for something else is not
// one for this.
func TestPinningServiceConfused(t *testing.T) {
	s, p := newStandInService(t, "pinning")
	p.hosts.set(confusing{s})
	mustBe(t, p.Push(ctx, someItem), ErrRefused)
}

// confusing is a Host: after its connection every request is for something else.
type confusing struct{ s *standInService }

func (confusing) Addresses() []string   { return nil }
func (confusing) Admit([]string) func() { return func() {} }

func (h confusing) Connect(context.Context, []string) error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.s.requests[0].cid = dag.RawBlock(nil).CID.String()
	h.s.requests[0].statuses = []string{"pinned"}
	return nil
}

// TestPinningServiceEnds: neither a service that is silent nor one that goes on pinning
// keeps a push from ending.
func TestPinningServiceEnds(t *testing.T) {
	s, p := newStandInService(t, "pinning")
	ended, cancel := context.WithCancel(ctx)
	p.hosts.set(cancelling{cancel})
	mustBe(t, p.Push(ended, someItem), context.Canceled)

	ended, cancel = context.WithCancel(ctx)
	s.mu.Lock()
	s.fault = func(http.ResponseWriter, *http.Request) {
		cancel()
		<-s.ended
	}
	s.mu.Unlock()
	mustBe(t, p.Push(ended, someItem), context.Canceled)
}

// cancelling is a Host that ends a context when it is to connect.
type cancelling struct{ cancel context.CancelFunc }

func (cancelling) Addresses() []string                       { return nil }
func (cancelling) Admit([]string) func()                     { return func() {} }
func (c cancelling) Connect(context.Context, []string) error { c.cancel(); return nil }

// TestPlaces: several addresses of one peer are one place, and one that is no peer's is
// none.
func TestPlaces(t *testing.T) {
	s, p := newStandInService(t, "pinned")
	must(t, p.Push(ctx, someItem))
	s.delegates = []string{
		"/ip4/127.0.0.1/tcp/1/p2p/" + onePeer, "/ip4/127.0.0.2/tcp/1/p2p/" + onePeer, "/ip4/127.0.0.1/tcp/3",
		"/ip4/127.0.0.1/tcp/1/p2p/12D3KooWSCNMbGGRQ37tTLf3UvyTkP2ttWDYaypkfeuyPPjr7Lfz", "nonsense",
	}
	places, err := p.Places(ctx, someItem)
	must(t, err)
	if len(places) != 2 || places[0].Name() != "s /p2p/"+onePeer {
		t.Errorf("%d places, the first %q", len(places), places[0].Name())
	}
	s.delegates = nil
	_, err = p.Places(ctx, someItem)
	mustBe(t, err, ErrRefused)
	p.gateway = "http://127.0.0.1:1"
	places, err = p.Places(ctx, someItem)
	must(t, err)
	if places[0].ID() != p.gateway {
		t.Errorf("its ID is %s", places[0].ID())
	}
	p.ask = []string{"http://127.0.0.1:2/"}
	places, err = p.Places(ctx, someItem)
	must(t, err)
	if places[0].ID() != "http://127.0.0.1:2" {
		t.Errorf("its ID is %s", places[0].ID())
	}
	_, err = p.Places(ctx, Item{Root: cid.MustParse("bafkqaaa")})
	must(t, err) // "ask" is asked whatever the service says
}
