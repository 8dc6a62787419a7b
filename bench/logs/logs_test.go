package logs

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state is a source of one document.
type state string

func (s state) Documents(context.Context) iter.Seq2[savepoints.Document, error] {
	return func(yield func(savepoints.Document, error) bool) {
		yield(savepoints.Document{Path: "document", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(string(s))), nil
		}}, nil)
	}
}

func (state) Consistency(context.Context) (dag.Consistency, error) {
	return dag.Consistency{Method: "test", Consistent: true}, nil
}

func newBank(t testing.TB, o savepoints.InitOptions) *savepoints.Bank {
	t.Helper()
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), o)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func take(t testing.TB, b *savepoints.Bank, n int) {
	t.Helper()
	for i := range n {
		_, err := b.Take(ctx, state(fmt.Sprint("state ", i)), savepoints.TakeOptions{Policy: fmt.Sprint("policy-", i%3)})
		must(t, err)
	}
}

// policyOf is the bank's trust policy, and the key of its log.
func policyOf(t testing.TB, b *savepoints.Bank) (text []byte, vkey string) {
	t.Helper()
	text, err := b.TrustPolicy()
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "log" {
			vkey = f[1]
		}
	}
	return text, vkey
}

// flipping is a gateway that flips a bit of what is under a path.
type flipping struct {
	next http.Handler
	path string // what the paths of damaged files end in; none if empty
}

func (f *flipping) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.path == "" || !strings.HasSuffix(r.URL.Path, f.path) {
		f.next.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	f.next.ServeHTTP(answer, r)
	body := answer.Body.Bytes()
	if len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	w.WriteHeader(answer.Code)
	w.Write(body)
}

// TestFsck lets tessera's fsck read the log over the gateway, at each of the three
// places where it is a tlog-tiles prefix. Its exit status says nothing; its line does.
func TestFsck(t *testing.T) {
	b := newBank(t, savepoints.InitOptions{})
	take(t, b, 300)
	publish, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); b.KeepPublished(publish, func(err error) { t.Log(err) }) }()
	defer func() { stop(); <-done }()

	text, vkey := policyOf(t, b)
	p, err := anchor.ParsePolicy(text)
	must(t, err)
	name, ok := strings.CutPrefix(p.URLs[0], "ipns://")
	if !ok {
		t.Fatalf("the policy names %q", p.URLs)
	}
	key := filepath.Join(t.TempDir(), "log.vkey")
	must(t, os.WriteFile(key, []byte(vkey), 0o600))
	gateway, err := b.Repo().Gateway(b.LogRoot)
	must(t, err)
	f := &flipping{next: gateway}
	web := httptest.NewServer(f)
	t.Cleanup(web.Close)
	head, err := b.Head(ctx, "")
	must(t, err)
	until(t, "the name", func() bool {
		n, err := b.Repo().Name(name)
		return err == nil && n.Value == "/ipfs/"+head.Root.String()
	})

	fsck := filepath.Join(t.TempDir(), "fsck")
	if out, err := exec.Command("go", "build", "-o", fsck, "github.com/transparency-dev/tessera/cmd/fsck").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := fmt.Sprintf("Successfully fsck'd log with size %d and root ", head.Size)
	passes := func(prefix string) (bool, string) {
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(limited, fsck, "-N", "4", "-ui=false", "-public_key", key, "-storage_url", web.URL+prefix)
		out, _ := cmd.CombinedOutput()
		_, line, ok := strings.Cut(string(out), want)
		hex, b64 := fmt.Sprintf("%x", head.RootHash[:]), base64.StdEncoding.EncodeToString(head.RootHash[:])
		return ok && (strings.HasPrefix(line, hex) || strings.HasPrefix(line, b64)), string(out)
	}
	prefixes := map[string]string{
		"ipfs": "/ipfs/" + head.Root.String() + "/", "ipns": "/ipns/" + name + "/", "tlog": "/tlog/" + savepoints.LogID(b.Origin()) + "/",
	}
	for kind, prefix := range prefixes {
		f.path = ""
		if ok, out := passes(prefix); !ok {
			t.Errorf("%s: %s", kind, out)
		}
		for _, damaged := range []string{"/tile/entries/000", "/tile/entries/001.p/44", "/tile/0/000", "/checkpoint"} {
			if kind != "tlog" && damaged != "/tile/entries/000" {
				continue // once is enough
			}
			f.path = damaged
			if ok, _ := passes(prefix); ok {
				t.Errorf("%s: fsck passes with a flipped bit in %s", kind, damaged)
			}
		}
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// headOf is the newest head of a bank's log.
func headOf(t testing.TB, b *savepoints.Bank) anchor.Head {
	t.Helper()
	h, err := b.Head(ctx, "")
	must(t, err)
	return h
}

// copyOf opens a copy of a bank, as a backup that is put back would be.
func copyOf(t testing.TB, b *savepoints.Bank) *savepoints.Bank {
	t.Helper()
	must(t, b.Repo().Blocks.Sync(ctx))
	dir := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(dir, os.DirFS(b.Repo().Dir())))
	c, err := savepoints.Open(ctx, dir)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}
