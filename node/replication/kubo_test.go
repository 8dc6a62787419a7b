package replication

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

// standIn answers as kubo's RPC does, and lets tests answer otherwise.
type standIn struct {
	t *testing.T
	// faults answer commands instead, by name.
	faults map[string]http.HandlerFunc
	ended  chan struct{} // closed at the end of the test

	mu       sync.Mutex
	pins     map[cid.Cid]bool
	blocks   map[cid.Cid][]byte
	received []int // IPFS blocks in each import
	calls    []string
	tokens   []string
}

// newStandIn starts one, and returns it as a target too.
func newStandIn(t *testing.T, blocks dag.Source) (*standIn, *kubo) {
	s := &standIn{t: t, faults: map[string]http.HandlerFunc{}, pins: map[cid.Cid]bool{}, blocks: map[cid.Cid][]byte{}, ended: make(chan struct{})}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		close(s.ended)
		server.Close()
	})
	k := newKubo(node.Replica{Name: "k", Endpoint: server.URL + "/"}, blocks, tokenFile(tokenIn(t)))
	k.stall, k.finish = 20*time.Second, 20*time.Second
	return s, k
}

// fault has a command answered otherwise; nil: as usual.
func (s *standIn) fault(command string, f http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[command] = f
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/api/v0/")
	s.mu.Lock()
	s.calls = append(s.calls, name)
	s.tokens = append(s.tokens, r.Header.Get("Authorization"))
	fault := s.faults[name]
	s.mu.Unlock()
	switch {
	case r.Method != http.MethodPost:
		http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
	case fault != nil:
		fault(w, r)
	case name == "dag/import":
		s.serveImport(w, r)
	case name == "pin/ls":
		s.servePinLs(w, r)
	case name == "pin/update":
		s.servePinUpdate(w, r)
	case name == "id":
		fmt.Fprintln(w, `{"ID":"12D3KooWLaygdAQnRbcVPLJ6myxqS7jr4MPEe2a895Prf1Murtxy","Addresses":null}`)
	case name == "block/get":
		s.serveBlock(w, r)
	}
}

func (s *standIn) refuse(w http.ResponseWriter, text string) {
	w.WriteHeader(http.StatusInternalServerError)
	json.NewEncoder(w).Encode(map[string]any{"Message": text, "Code": 0, "Type": "error"})
}

func (s *standIn) serveImport(w http.ResponseWriter, r *http.Request) {
	parts, err := r.MultipartReader()
	if err != nil {
		s.refuse(w, err.Error())
		return
	}
	part, err := parts.NextPart()
	if err != nil {
		s.refuse(w, err.Error())
		return
	}
	car, err := dag.ReadCAR(part)
	n := 0
	for err == nil {
		var b dag.Block
		if b, err = car.Next(); err == nil {
			s.mu.Lock()
			s.blocks[b.CID] = b.Data
			s.mu.Unlock()
			n++
		}
	}
	if err != io.EOF {
		s.refuse(w, err.Error())
		return
	}
	if _, err := parts.NextPart(); err != io.EOF {
		s.refuse(w, fmt.Sprint("after the CAR: ", err))
		return
	}
	s.mu.Lock()
	s.received = append(s.received, n)
	s.mu.Unlock()
	if r.URL.Query().Get("pin-roots") != "true" {
		return
	}
	for _, root := range car.Roots {
		text := ""
		if err := s.pin(root); err != nil {
			text = err.Error()
		}
		fmt.Fprintf(w, "{\"Root\":{\"Cid\":{\"/\":%q},\"PinErrorMsg\":%q}}\n", root, text)
	}
}

// pin pins what is complete.
func (s *standIn) pin(root cid.Cid) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := dag.ReadAll(ctx, memory(s.blocks), root); err != nil {
		return err
	}
	s.pins[root] = true
	return nil
}

func (s *standIn) servePinLs(w http.ResponseWriter, r *http.Request) {
	c := cid.MustParse(r.URL.Query().Get("arg"))
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.pins[c] {
		s.refuse(w, fmt.Sprintf("path '%s' is not pinned", c))
		return
	}
	fmt.Fprintf(w, "{\"Keys\":{%q:{\"Type\":%q,\"Name\":\"\"}}}\n", c, r.URL.Query().Get("type"))
}

func (s *standIn) servePinUpdate(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("unpin") != "false" || q.Get("offline") != "true" || len(q["arg"]) != 2 {
		s.t.Errorf("pin/update?%s", r.URL.RawQuery)
	}
	from, to := cid.MustParse(q["arg"][0]), cid.MustParse(q["arg"][1])
	s.mu.Lock()
	pinned := s.pins[from]
	s.mu.Unlock()
	if !pinned {
		s.refuse(w, "'from' cid was not recursively pinned already")
		return
	}
	if err := s.pin(to); err != nil {
		s.refuse(w, err.Error())
		return
	}
	fmt.Fprintf(w, "{\"Pins\":[%q,%q]}\n", from, to)
}

func (s *standIn) serveBlock(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("offline") != "true" {
		s.t.Errorf("block/get?%s", r.URL.RawQuery)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.blocks[cid.MustParse(r.URL.Query().Get("arg"))]
	if !ok {
		s.refuse(w, "block was not found locally (offline): ipld: could not find it")
		return
	}
	w.Write(data)
}

// TestKuboPush: all of a first DAG is sent, of the next one what differs, and nothing
// that is pinned already; where the difference does not do, all is sent.
func TestKuboPush(t *testing.T) {
	repo := newRepo(t)
	one, two := putDAG(t, repo.Blocks, "one"), putDAG(t, repo.Blocks, "two")
	all := len(blocksOf(t, repo.Blocks, one))
	s, k := newStandIn(t, repo.Blocks)
	item := itemOf(repo.Blocks, two)
	item.Previous = one
	must(t, k.Push(ctx, itemOf(repo.Blocks, one)))
	must(t, k.Push(ctx, item))
	must(t, k.Push(ctx, item))
	if want := []int{all, 2}; !slices.Equal(s.received, want) || !s.pins[one] || !s.pins[two] {
		t.Errorf("received %d blocks, want %d; pins %v", s.received, want, s.pins)
	}
	for _, token := range s.tokens {
		if token != "Bearer "+secret {
			t.Fatalf("authorization %q", token)
		}
	}

	// pin/update is refused.
	s, k = newStandIn(t, repo.Blocks)
	must(t, k.Push(ctx, itemOf(repo.Blocks, one)))
	s.fault("pin/update", func(w http.ResponseWriter, _ *http.Request) { s.refuse(w, "no") })
	must(t, k.Push(ctx, item))
	if want := []int{all, 2, all}; !slices.Equal(s.received, want) {
		t.Errorf("received %d blocks, want %d", s.received, want)
	}

	// The previous one is pinned there and not whole there; nothing is here of it.
	s, k = newStandIn(t, repo.Blocks)
	item.Previous = cid.MustParse("bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354")
	s.pins[item.Previous] = true
	must(t, k.Push(ctx, item))
	if want := []int{all}; !slices.Equal(s.received, want) {
		t.Errorf("received %d blocks, want %d", s.received, want)
	}

	// Not pinned there.
	s, k = newStandIn(t, repo.Blocks)
	item.Previous = one
	must(t, k.Push(ctx, item))
	if want := []int{all}; !slices.Equal(s.received, want) {
		t.Errorf("received %d blocks, want %d", s.received, want)
	}
}

// TestKuboFaults: a push that was not done is never taken for one that was, and says
// whether the node or this DAG is the trouble.
func TestKuboFaults(t *testing.T) {
	readAll := func(r *http.Request) { io.Copy(io.Discard, r.Body) }
	answer := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			readAll(r)
			io.WriteString(w, text)
		}
	}
	pinned := func(root cid.Cid) string { return fmt.Sprintf(`{"Root":{"Cid":{"/":%q},"PinErrorMsg":""}}`, root) }
	repo := newRepo(t)
	root := putDAG(t, repo.Blocks, "one")
	for name, c := range map[string]struct {
		command string
		fault   http.HandlerFunc
		want    error
		text    string
	}{
		"500": {"dag/import", func(w http.ResponseWriter, r *http.Request) {
			readAll(r)
			(*standIn)(nil).refuse(w, "disk full")
		}, ErrRefused, "disk full"},
		"not pinned":          {"dag/import", answer(strings.Replace(pinned(root), `Msg":""`, `Msg":"no such block"`, 1)), ErrRefused, "no such block"},
		"nothing":             {"dag/import", answer(""), ErrRefused, "does not say"},
		"another root":        {"dag/import", answer(pinned(dag.RawBlock(nil).CID)), ErrRefused, "does not say"},
		"not JSON":            {"dag/import", answer("<html>"), ErrRefused, "not as expected"},
		"error in the stream": {"dag/import", answer(pinned(root) + "\n" + `{"Message":"cut short","Code":0,"Type":"error"}`), ErrRefused, "cut short"},
		"error in the trailer": {"dag/import", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", streamError)
			readAll(r)
			io.WriteString(w, pinned(root))
			w.Header().Set(streamError, "pinner broke")
		}, ErrRefused, "pinner broke"},
		"only said":      {"dag/import", answer(pinned(root)), ErrRefused, "is not pinned after"},
		"endless":        {"dag/import", endless(`{"Stats":{}}`), ErrRefused, ""},
		"too early":      {"dag/import", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, pinned(root)) }, nil, ""},
		"cut":            {"dag/import", cut, node.ErrUnreachable, ""},
		"cut when asked": {"pin/ls", cut, node.ErrUnreachable, ""},
		"502":            {"pin/ls", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "proxy", http.StatusBadGateway) }, node.ErrUnreachable, "proxy"},
		"403":            {"pin/ls", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "forbidden", http.StatusForbidden) }, node.ErrUnreachable, "403"},
		"redirect": {"pin/ls", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, ErrRefused, "307"},
		"another kind of pin": {"pin/ls", answer(fmt.Sprintf(`{"Keys":{%q:{"Type":"indirect"}}}`, root)), ErrRefused, "is not pinned after"},
		"pins of others":      {"pin/ls", answer(fmt.Sprintf(`{"Keys":{%q:{"Type":"recursive"}}}`, dag.RawBlock(nil).CID)), ErrRefused, "is not pinned after"},
	} {
		t.Run(name, func(t *testing.T) {
			s, k := newStandIn(t, repo.Blocks)
			s.fault(c.command, c.fault)
			err := k.Push(ctx, itemOf(repo.Blocks, root))
			if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), secret) {
				t.Fatalf("the error is %v", err)
			}
			if c.want != nil {
				mustBe(t, err, c.want)
			}
			s.fault(c.command, nil)
			must(t, k.Push(ctx, itemOf(repo.Blocks, root)))
		})
	}
}

// cut ends the connection in the middle of an answer.
func cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	io.WriteString(w, `{"Root":`)
	w.(http.Flusher).Flush()
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

// endless repeats a text until nobody reads it any more.
func endless(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
		}
	}
}

// hang takes nothing and answers nothing.
func (s *standIn) hang(http.ResponseWriter, *http.Request) { <-s.ended }

// TestKuboSilent: a node that takes nothing, or does not answer, is not waited for
// without limit, and the end of the context is not waited for at all.
func TestKuboSilent(t *testing.T) {
	repo := newRepo(t)
	root := putDAG(t, repo.Blocks, "one")
	s, k := newStandIn(t, repo.Blocks)
	k.stall, k.finish = 50*time.Millisecond, 50*time.Millisecond
	s.fault("dag/import", s.hang)
	mustBe(t, k.Push(ctx, itemOf(repo.Blocks, root)), node.ErrUnreachable)
	s.fault("dag/import", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		s.hang(w, r)
	})
	mustBe(t, k.Push(ctx, itemOf(repo.Blocks, root)), node.ErrUnreachable)

	k.stall, k.finish = time.Hour, time.Hour
	ended, cancel := context.WithCancel(ctx)
	s.fault("dag/import", func(w http.ResponseWriter, r *http.Request) {
		cancel()
		s.hang(w, r)
	})
	mustBe(t, k.Push(ended, itemOf(repo.Blocks, root)), context.Canceled)
}

// TestKuboOwnDamage: what cannot be read here is said, and is no fault of the node.
func TestKuboOwnDamage(t *testing.T) {
	blocks := memory{}
	root := putDAG(t, blocks, "one")
	delete(blocks, dag.RawBlock([]byte("document 7")).CID)
	_, k := newStandIn(t, blocks)
	err := k.Push(ctx, Item{Root: root})
	mustBe(t, err, dag.ErrNotFound)
	if ofTarget(err) {
		t.Errorf("the node is taken for unreachable: %v", err)
	}
}

// TestKuboServes: what a node sends counts only with the right hash.
func TestKuboServes(t *testing.T) {
	repo := newRepo(t)
	root := putDAG(t, repo.Blocks, "one")
	item := itemOf(repo.Blocks, root)
	s, k := newStandIn(t, repo.Blocks)
	must(t, k.Push(ctx, item))
	places, err := k.Places(ctx, item)
	must(t, err)
	if id := places[0].ID(); id != "/p2p/12D3KooWLaygdAQnRbcVPLJ6myxqS7jr4MPEe2a895Prf1Murtxy" {
		t.Errorf("its ID is %s", id)
	}
	all := slices.Collect(maps.Keys(blocksOf(t, repo.Blocks, root)))
	must(t, Serves(ctx, places[0], item, all))
	lost := dag.RawBlock([]byte("document 7"))
	s.mu.Lock()
	delete(s.blocks, lost.CID)
	s.mu.Unlock()
	mustBe(t, Serves(ctx, places[0], item, all), dag.ErrNotFound)
	s.mu.Lock()
	s.blocks[lost.CID] = []byte("document 8")
	s.mu.Unlock()
	mustBe(t, Serves(ctx, places[0], item, all), dag.ErrHash)
	s.fault("block/get", endless(strings.Repeat("x", 1<<16)))
	mustBe(t, Serves(ctx, places[0], item, all), dag.ErrUnsupported) // too long
	s.fault("block/get", s.hang)
	short, cancel := limited(ctx, 50*time.Millisecond)
	defer cancel()
	err = Serves(short, places[0], item, all)
	mustBe(t, err, node.ErrUnreachable)
	if !IsDown(err) {
		t.Errorf("silence is not taken for it: %v", err)
	}
	s.fault("id", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") })
	_, err = k.Places(ctx, item)
	mustBe(t, err, ErrRefused)
}

// TestTokenFile: a token that others can read, or that is none, is not used, and is not
// shown.
func TestTokenFile(t *testing.T) {
	_, k := newStandIn(t, memory{})
	path := string(k.token)
	for what, spoil := range map[string]func() error{
		"readable by others": func() error { return os.Chmod(path, 0o644) },
		"two tokens":         func() error { return os.WriteFile(path, []byte(secret+" "+secret), 0o600) },
		"empty":              func() error { return os.WriteFile(path, []byte(" \n"), 0o600) },
		"long":               func() error { return os.WriteFile(path, []byte(strings.Repeat(secret, 1000)), 0o600) },
		"a second header":    func() error { return os.WriteFile(path, []byte(secret+"\r\nX: y"), 0o600) },
		"absent":             func() error { return os.Remove(path) },
	} {
		must(t, os.WriteFile(path, []byte(secret), 0o600))
		must(t, os.Chmod(path, 0o600))
		must(t, spoil())
		err := k.Push(ctx, Item{Root: dag.RawBlock(nil).CID})
		mustBe(t, err, ErrToken)
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzReadImport: whatever a node answers is an error, or says that this root is pinned.
func FuzzReadImport(f *testing.F) {
	root := dag.RawBlock([]byte("x")).CID
	f.Add(fmt.Sprintf(`{"Root":{"Cid":{"/":%q},"PinErrorMsg":""}}`+"\n"+`{"Stats":{}}`, root))
	f.Add(`{"Message":"m","Code":0,"Type":"error"}`)
	f.Add(`{"Root":null}[]`)
	f.Fuzz(func(t *testing.T, text string) {
		if err := readImport(strings.NewReader(text), root, true); err == nil && !strings.Contains(text, "/") {
			t.Errorf("believed: %q", text)
		}
	})
}
