package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memHeads are heads in memory.
type memHeads struct {
	mu   sync.Mutex
	m    map[string][]byte
	fail error // of SwapHead
}

func (h *memHeads) Head(_ context.Context, name string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m[name], nil
}

func (h *memHeads) SwapHead(_ context.Context, name string, old, new []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return h.fail
	}
	if !bytes.Equal(h.m[name], old) {
		return errors.New("head changed")
	}
	h.m[name] = new
	return nil
}

// testLog is a log in memory: it signs any tree that it is told to.
type testLog struct {
	signer note.Signer
	vkey   note.Verifier
	hashes []tlog.Hash
}

func newLog(t testing.TB, origin string) *testLog {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, origin)
	must(t, err)
	s, err := note.NewSigner(skey)
	must(t, err)
	v, err := note.NewVerifier(vkey)
	must(t, err)
	return &testLog{signer: s, vkey: v}
}

func (l *testLog) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = l.hashes[x]
		}
		return out, nil
	})
}

// grow adds records until the log has n.
func (l *testLog) grow(t testing.TB, salt string, n int64) *testLog {
	t.Helper()
	for i := int64(len(l.hashes)); ; i = int64(len(l.hashes)) {
		size := int64(0)
		for tlog.StoredHashCount(size) < i {
			size++
		}
		if size >= n {
			return l
		}
		h, err := tlog.StoredHashes(size, fmt.Appendf(nil, "%s %d", salt, size), l.reader())
		must(t, err)
		l.hashes = append(l.hashes, h...)
	}
}

func (l *testLog) checkpoint(t testing.TB, n int64) []byte {
	t.Helper()
	root := tlog.Hash(sha256.Sum256(nil))
	if n > 0 {
		var err error
		root, err = tlog.TreeHash(n, l.reader())
		must(t, err)
	}
	return l.sign(t, torchwood.Checkpoint{Origin: l.signer.Name(), Tree: tlog.Tree{N: n, Hash: root}}.String())
}

func (l *testLog) sign(t testing.TB, text string) []byte {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: text}, l.signer)
	must(t, err)
	return signed
}

// request shows the tree of n records to a witness that has seen old.
func (l *testLog) request(t testing.TB, old, n int64) []byte {
	t.Helper()
	r := request{old: old, checkpoint: l.checkpoint(t, n)}
	if old > 0 && old < n {
		var err error
		r.proof, err = tlog.ProveTree(n, old, l.reader())
		must(t, err)
	}
	return r.encode()
}

func newServer(t testing.TB, heads Heads, o ServerOptions, logs ...*testLog) (*Server, string) {
	t.Helper()
	skey, err := GenerateKey("witness.example/w")
	must(t, err)
	signer, err := NewSigner(skey)
	must(t, err)
	var keys []note.Verifier
	for _, l := range logs {
		keys = append(keys, l.vkey)
	}
	s := NewServer(signer, heads, keys, o)
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	return s, web.URL
}

// post returns status, media type and body.
func post(t testing.TB, url string, body []byte) (int, string, string) {
	t.Helper()
	resp, err := http.Post(url+"/add-checkpoint", "", bytes.NewReader(body))
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
}

// The answers are those of the specification.
func TestAddCheckpoint(t *testing.T) {
	l := newLog(t, "log.example/a").grow(t, "a", 40)
	fork := newLog(t, "log.example/a").grow(t, "b", 40)
	fork.signer = l.signer
	stranger := newLog(t, "log.example/stranger").grow(t, "a", 3)
	thief := newLog(t, "log.example/a").grow(t, "a", 40)
	s, url := newServer(t, &memHeads{m: map[string][]byte{}}, ServerOptions{Rate: 1e6, Burst: 1e6}, l)
	empty := l.sign(t, torchwood.Checkpoint{Origin: "log.example/a", Tree: tlog.Tree{}}.String())
	good := l.request(t, 10, 20)
	steps := []struct {
		name   string
		body   []byte
		status int
		size   string // of a 409
	}{
		{"unknown log", stranger.request(t, 0, 3), 404, ""},
		{"another key", thief.request(t, 0, 10), 403, ""},
		{"empty tree of another root", request{0, nil, empty}.encode(), 422, ""},
		{"a proof of nothing", request{0, tlog.TreeProof{{1}}, l.checkpoint(t, 10)}.encode(), 422, ""},
		{"not what it has seen", l.request(t, 3, 10), 409, "0\n"},
		{"the empty tree", l.request(t, 0, 0), 200, ""},
		{"first", l.request(t, 0, 10), 200, ""},
		{"first again", l.request(t, 0, 10), 409, "10\n"},
		{"the same", l.request(t, 10, 10), 200, ""},
		{"a fork of the same size", fork.request(t, 10, 10), 422, ""},
		{"a fork that is larger", fork.request(t, 10, 20), 422, ""},
		{"without a proof", request{10, nil, l.checkpoint(t, 20)}.encode(), 422, ""},
		{"a proof for the same", request{10, tlog.TreeProof{{1}}, l.checkpoint(t, 10)}.encode(), 422, ""},
		{"old larger than new", request{11, nil, l.checkpoint(t, 10)}.encode(), 400, ""},
		{"larger", good, 200, ""},
		{"the same request again", good, 409, "20\n"},
		{"rollback", l.request(t, 10, 15), 409, "20\n"},
		{"rollback to the same", l.request(t, 10, 10), 409, "20\n"},
		{"to the end", l.request(t, 20, 40), 200, ""},
		{"no checkpoint", []byte("old 40\n\n"), 404, ""},
		{"no old size", l.checkpoint(t, 40), 400, ""},
		{"leading zero", bytes.Replace(l.request(t, 40, 40), []byte("old 40"), []byte("old 040"), 1), 400, ""},
		{"a negative size", bytes.Replace(l.request(t, 40, 40), []byte("old 40"), []byte("old -1"), 1), 400, ""},
		{"a hash that is none", bytes.Replace(l.request(t, 40, 40), []byte("old 40\n"), []byte("old 40\nhash\n"), 1), 400, ""},
		{"too many hashes", request{40, make(tlog.TreeProof, 64), l.checkpoint(t, 40)}.encode(), 400, ""},
		{"too long", append(l.request(t, 40, 40), make([]byte, maxBody)...), 400, ""},
		{"signed text that is no checkpoint", request{40, nil, l.sign(t, "log.example/a\nx\n")}.encode(), 400, ""},
		{"a signature that is cut", bytes.TrimSuffix(l.request(t, 40, 40), []byte("\n")), 400, ""},
	}
	for _, step := range steps {
		status, media, body := post(t, url, step.body)
		if status != step.status || step.size != "" && (body != step.size || media != "text/x.tlog.size") {
			t.Errorf("%s: %d %s %q, not %d %q", step.name, status, media, body, step.status, step.size)
		}
		if status != 200 {
			continue
		}
		// The lines added to the checkpoint are a cosignature of it.
		_, signed, _ := bytes.Cut(step.body, []byte("\n\n"))
		n, err := note.Open(append(bytes.Clone(signed), body...), note.VerifierList(l.vkey, s.signer.Verifier()))
		if err != nil || len(n.Sigs) != 2 {
			t.Errorf("%s: %v, %d signatures", step.name, err, len(n.Sigs))
		}
	}
	for path, want := range map[string]int{
		"/" + originHash("log.example/a") + "/checkpoint":        200,
		"/" + originHash("log.example/stranger") + "/checkpoint": 404,
		"/add-checkpoint": 405,
	} {
		resp, err := http.Get(url + path)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		must(t, err)
		if resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if want != 200 {
			continue
		}
		n, err := note.Open(body, note.VerifierList(l.vkey, s.signer.Verifier()))
		if err != nil || len(n.Sigs) != 2 || !strings.HasPrefix(n.Text, "log.example/a\n40\n") {
			t.Errorf("latest checkpoint %q: %v", body, err)
		}
	}
}

// What cannot be kept is not cosigned.
func TestStateComesFirst(t *testing.T) {
	l := newLog(t, "log.example/a").grow(t, "a", 10)
	heads := &memHeads{m: map[string][]byte{}, fail: errors.New("disk full")}
	_, url := newServer(t, heads, ServerOptions{}, l)
	if status, _, body := post(t, url, l.request(t, 0, 10)); status != 500 || strings.Contains(body, "\u2014") {
		t.Errorf("%d %q", status, body)
	}
	heads.fail = nil
	if status, _, _ := post(t, url, l.request(t, 0, 10)); status != 200 {
		t.Errorf("%d", status)
	}
	// A state that is damaged is not forgotten.
	for name := range heads.m {
		heads.m[name] = []byte("damaged")
	}
	if status, _, _ := post(t, url, l.request(t, 0, 10)); status != 500 {
		t.Errorf("%d", status)
	}
}

// Of requests that come together each sees what the one before it left.
func TestConcurrentRequests(t *testing.T) {
	l := newLog(t, "log.example/a").grow(t, "a", 40)
	heads := &memHeads{m: map[string][]byte{}}
	s, url := newServer(t, heads, ServerOptions{Rate: 1e6, Burst: 1e6}, l)
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	for n := range int64(40) {
		body := l.request(t, 0, n+1)
		wg.Go(func() {
			status, _, _ := post(t, url, body)
			mu.Lock()
			defer mu.Unlock()
			if status == 200 {
				accepted++
			} else if status != 409 {
				t.Errorf("%d", status)
			}
		})
	}
	wg.Wait()
	if accepted != 1 {
		t.Errorf("%d heads accepted as the first one", accepted)
	}
	if last, err := s.latest(ctx, s.logs["log.example/a"]); err != nil || last.N == 0 {
		t.Errorf("%v %v", last, err)
	}
}

// The client tells what the answers of any server mean.
func TestClient(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
		size   int64
	}{
		"larger":         {409, "12\n", nil, 12},
		"smaller":        {409, "0\n", nil, 0},
		"same, refused":  {409, "5\n", anchor.ErrFork, 0},
		"not a size":     {409, "many\n", anchor.ErrUnavailable, 0},
		"fork":           {422, "no", anchor.ErrFork, 0},
		"unknown log":    {404, "", anchor.ErrUntrusted, 0},
		"another key":    {403, "", anchor.ErrUntrusted, 0},
		"down":           {503, "", anchor.ErrUnavailable, 0},
		"too many":       {429, "", anchor.ErrUnavailable, 0},
		"a long answer":  {200, strings.Repeat("x", maxAnswer+1), anchor.ErrUnavailable, 0},
		"somewhere else": {302, "", anchor.ErrUnavailable, 0},
	} {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		_, err := NewClient("w", web.URL+"/", ClientOptions{}).Cosign(ctx, 5, nil, []byte("checkpoint"))
		var size *anchor.SizeError
		if c.want != nil && !errors.Is(err, c.want) || c.want == nil && (!errors.As(err, &size) || size.Size != c.size) {
			t.Errorf("%s: %v", name, err)
		}
		web.Close()
	}
	hanging := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-hanging:
		}
	}))
	defer web.Close()
	defer close(hanging)
	if _, err := NewClient("w", web.URL, ClientOptions{Timeout: 1}).Cosign(ctx, 0, nil, nil); !errors.Is(err, anchor.ErrUnavailable) {
		t.Errorf("no answer: %v", err)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := NewClient("w", web.URL, ClientOptions{}).Cosign(stopped, 0, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestKeys(t *testing.T) {
	for _, bad := range []string{"", "a b", "a+b"} {
		if _, err := GenerateKey(bad); !errors.Is(err, anchor.ErrOrigin) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "PRIVATE+KEY+secret", "PRIVATE+KEY+w+00000000+AAAA"} {
		if _, err := NewSigner(bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for range 50 { // the base64 of some keys holds a plus sign
		skey, err := GenerateKey("witness.example/w")
		must(t, err)
		_, err = NewSigner(skey)
		must(t, err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("old 0\n\nlog.example/a\n1\nAAAA\n"))
	f.Add([]byte("old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\nexample.com\n"))
	f.Add([]byte("old 007\n\n"))
	f.Add([]byte("old 1\n\n\n\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err == nil && !bytes.Equal(r.encode(), body) {
			t.Errorf("%q is read as %+v", body, r)
		}
	})
}
