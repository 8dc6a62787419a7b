package logs

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// witnessing is a witness that listens.
type witnessing struct {
	key, url string
	// watch makes it the witness of a log.
	watch func(origin, vkey string)
}

func newOurWitness(t testing.TB) witnessing {
	t.Helper()
	repo, err := node.Create(ctx, filepath.Join(t.TempDir(), "witness"))
	must(t, err)
	t.Cleanup(func() { repo.Close() })
	skey, err := witness.GenerateKey("witness.example/ours")
	must(t, err)
	signer, err := witness.NewSigner(skey)
	must(t, err)
	server := witness.NewServer(signer, repo, nil, witness.ServerOptions{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { server.ServeHTTP(w, r) }))
	t.Cleanup(web.Close)
	return witnessing{server.Key(), web.URL, func(_, vkey string) {
		v, err := note.NewVerifier(vkey)
		must(t, err)
		server = witness.NewServer(signer, repo, []note.Verifier{v}, witness.ServerOptions{})
	}}
}

// newLitewitness starts torchwood's witness with a key in an ssh-agent of its own.
func newLitewitness(t testing.TB) witnessing {
	t.Helper()
	for _, tool := range []string{"sqlite3", "ssh-agent", "ssh-keygen", "ssh-add"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("litewitness cannot run without %s", tool)
		}
	}
	dir := t.TempDir()
	install := exec.Command("go", "install", "filippo.io/torchwood/cmd/litewitness@v0.9.0")
	install.Dir, install.Env = dir, append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	command(t, install)
	key, socket, db := filepath.Join(dir, "key"), filepath.Join(dir, "agent"), filepath.Join(dir, "witness.db")
	command(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key))
	background(t, exec.Command("ssh-agent", "-D", "-a", socket))
	until(t, "ssh-agent", func() bool { _, err := os.Stat(socket); return err == nil })
	add := exec.Command("ssh-add", "-q", key)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	command(t, add)
	fingerprint := strings.Fields(string(command(t, exec.Command("ssh-keygen", "-lf", key+".pub"))))[1]

	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	lite := exec.Command(filepath.Join(dir, "litewitness"), "-name", "witness.example/lite", "-db", db,
		"-ssh-agent", socket, "-key", fingerprint, "-listen", address)
	said := background(t, lite)
	url := "http://" + address
	until(t, "litewitness", func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	vkey := ""
	until(t, "litewitness's key", func() bool {
		for _, word := range strings.FieldsFunc(said(), func(r rune) bool { return strings.ContainsRune(" \n\"=", r) }) {
			if strings.HasPrefix(word, "witness.example/lite+") {
				vkey = word
			}
		}
		return vkey != ""
	})
	return witnessing{vkey, url, func(origin, logKey string) {
		sql := fmt.Sprintf("INSERT INTO log VALUES('%s',0,'47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='); INSERT INTO key VALUES('%s','%s');", origin, origin, logKey)
		command(t, exec.Command("sqlite3", db, sql))
	}}
}

func command(t testing.TB, cmd *exec.Cmd) []byte {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return out
}

// background runs a program until the test ends. What it says is returned by the function.
func background(t testing.TB, cmd *exec.Cmd) (said func() string) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	must(t, err)
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		out.Close()
	})
	return func() string {
		data, err := os.ReadFile(out.Name())
		must(t, err)
		return string(data)
	}
}

// TestWitnesses makes the same requests to litewitness and to "log witness".
func TestWitnesses(t *testing.T) {
	b := newBank(t, savepoints.InitOptions{})
	_, vkey := policyOf(t, b)
	take(t, b, 3)
	fork := copyOf(t, b)
	three := headOf(t, b)
	take(t, b, 4)
	seven := headOf(t, b)
	_, err := fork.Take(ctx, state("another"), savepoints.TakeOptions{Policy: "policy-0"})
	must(t, err)
	take(t, fork, 5)
	forked := headOf(t, fork)
	requests := []struct {
		what   string
		old    int64
		proof  tlog.TreeProof
		head   anchor.Head
		status int
		body   string
	}{
		{"the first head", 0, nil, three, 200, ""},
		{"the same again", 3, nil, three, 200, ""},
		{"a longer one", 3, consistency(t, b, seven, 3), seven, 200, ""},
		{"an older one", 3, nil, three, 409, "7\n"},
		{"a rollback that admits what was seen", 7, nil, three, 400, ""},
		{"a fork with a proof of its own", 7, consistency(t, fork, forked, 7), forked, 422, ""},
		{"the same after all that", 7, nil, seven, 200, ""},
	}
	for name, w := range map[string]witnessing{"litewitness": newLitewitness(t), "ours": newOurWitness(t)} {
		t.Run(name, func(t *testing.T) {
			w.watch(b.Origin(), vkey)
			for _, r := range requests {
				status, body := ask(t, w.url, r.old, r.proof, r.head.Checkpoint)
				if status != r.status || r.body != "" && body != r.body {
					t.Errorf("%s: %d %q, not %d %q", r.what, status, body, r.status, r.body)
				}
			}
		})
	}
}

func consistency(t testing.TB, b *savepoints.Bank, h anchor.Head, old int64) tlog.TreeProof {
	t.Helper()
	text, _ := policyOf(t, b)
	p, err := anchor.ParsePolicy(text)
	must(t, err)
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(b.Repo().Blocks, h.Root), p)
	must(t, err)
	var records [][]byte
	for e, err := range v.Entries(ctx, 0) {
		must(t, err)
		records = append(records, e.Record)
	}
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = hashes[x]
		}
		return out, nil
	})
	for i, r := range records {
		more, err := tlog.StoredHashes(int64(i), r, reader)
		must(t, err)
		hashes = append(hashes, more...)
	}
	proof, err := tlog.ProveTree(h.Size, old, reader)
	must(t, err)
	return proof
}

func ask(t testing.TB, url string, old int64, proof tlog.TreeProof, checkpoint []byte) (status int, body string) {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range proof {
		fmt.Fprintf(&b, "%s\n", h)
	}
	fmt.Fprintf(&b, "\n%s", checkpoint)
	resp, err := (&http.Client{Timeout: 20 * time.Second}).Post(url+"/add-checkpoint", "text/plain", &b)
	must(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(data)
}

// TestWitnessedByLitewitness: a bank whose witness is litewitness is believed, and
// litewitness tells a reader that an old copy is one.
func TestWitnessedByLitewitness(t *testing.T) {
	w := newLitewitness(t)
	b := newBank(t, savepoints.InitOptions{Witnesses: []string{"w " + w.key + " " + w.url}})
	text, vkey := policyOf(t, b)
	w.watch(b.Origin(), vkey)
	take(t, b, 2)
	_, err := b.Publish(ctx)
	must(t, err)
	old := copyOf(t, b)
	p, err := anchor.ParsePolicy(text)
	must(t, err)
	discover := func(of *savepoints.Bank) (savepoints.Discovery, error) {
		gateway, err := of.Repo().Gateway(of.LogRoot)
		must(t, err)
		web := httptest.NewServer(gateway)
		defer web.Close()
		r, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "reader"))
		must(t, err)
		defer r.Close()
		return r.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{web.URL}})
	}
	d, err := discover(b)
	if err != nil || d.Freshness != savepoints.FreshnessWitnessed {
		t.Fatalf("%v %v", d.Freshness, err)
	}
	take(t, b, 1)
	_, err = b.Publish(ctx)
	must(t, err)
	if _, err := discover(old); err == nil || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("an old copy: %v", err)
	}
}
