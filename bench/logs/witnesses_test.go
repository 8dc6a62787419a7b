package logs

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
)

// ourWitness is a process of "log witness".
type ourWitness struct {
	key, url string
	dir      string
	process  *process
}

// newOurWitness starts a witness that knows no log yet but one that is not used.
func newOurWitness(t testing.TB) *ourWitness {
	t.Helper()
	w := &ourWitness{dir: filepath.Join(t.TempDir(), "witness")}
	_, unused, err := anchor.GenerateKey("log.example/unused")
	must(t, err)
	file := filepath.Join(t.TempDir(), "trust.policy")
	must(t, os.WriteFile(file, anchor.FormatPolicy(unused), 0o600))
	w.start(t, "--name", "witness.example/ours", "--trust", file)
	return w
}

func (w *ourWitness) start(t testing.TB, more ...string) {
	t.Helper()
	args := []string{"log", "witness", "--repo", w.dir, "--json", "--listen", "127.0.0.1:0", "--rate", "1e6", "--burst", "1000000"}
	w.process = background(t, exec.Command(ours(t), append(args, more...)...))
	var out struct{ URL, Key string }
	w.process.says(t, &out)
	w.url, w.key = out.URL, out.Key
}

// watch makes the witness one of the log of a trust policy too. Its address is another one
// after that: others may have taken the one before.
func (w *ourWitness) watch(t testing.TB, policyFile string) {
	t.Helper()
	w.process.end(t, syscall.SIGTERM)
	w.start(t, "--trust", policyFile)
}

var buildLitewitness = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "install", "filippo.io/torchwood/cmd/litewitness@v0.9.0")
	cmd.Dir, cmd.Env = built, append(os.Environ(), "GOBIN="+built, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install litewitness: %w\n%s", err, out)
	}
	return filepath.Join(built, "litewitness"), nil
})

// otherWitness is a process of somebody else's witness.
type otherWitness struct{ key, url, db string }

// newLitewitness starts torchwood's witness with a key in an ssh-agent of its own.
func newLitewitness(t testing.TB) *otherWitness {
	t.Helper()
	need(t, "sqlite3", "ssh-agent", "ssh-keygen", "ssh-add")
	program, err := buildLitewitness()
	must(t, err)
	dir := t.TempDir()
	key, socket := filepath.Join(dir, "key"), filepath.Join(dir, "agent")
	command(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key))
	background(t, exec.Command("ssh-agent", "-D", "-a", socket))
	until(t, "ssh-agent", func() bool { _, err := os.Stat(socket); return err == nil })
	add := exec.Command("ssh-add", "-q", key)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	command(t, add)
	fingerprint := strings.Fields(string(command(t, exec.Command("ssh-keygen", "-lf", key+".pub"))))[1]
	address := freeAddress(t)
	w := &otherWitness{url: "http://" + address, db: filepath.Join(dir, "witness.db")}
	p := background(t, exec.Command(program, "-name", "witness.example/lite", "-db", w.db,
		"-ssh-agent", socket, "-key", fingerprint, "-listen", address))
	listening(t, p, address)
	until(t, "litewitness's key", func() bool {
		for _, word := range strings.FieldsFunc(p.said(t), func(r rune) bool { return strings.ContainsRune(" \n\"=", r) }) {
			if strings.HasPrefix(word, "witness.example/lite+") {
				w.key = word
			}
		}
		return w.key != ""
	})
	return w
}

// watch makes litewitness the witness of a log.
func (w *otherWitness) watch(t testing.TB, vkey string) {
	t.Helper()
	origin, _, _ := strings.Cut(vkey, "+")
	sql := fmt.Sprintf("INSERT INTO log VALUES('%s',0,'47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='); INSERT INTO key VALUES('%s','%s');", origin, origin, vkey)
	command(t, exec.Command("sqlite3", w.db, sql))
}

var buildOmniwitness = sync.OnceValues(func() (string, error) {
	return build("omniwitness", "omniwitness", "github.com/transparency-dev/witness/cmd/omniwitness")
})

// newOmniwitness starts transparency-dev's witness for logs.
func newOmniwitness(t testing.TB, vkeys ...string) *otherWitness {
	t.Helper()
	program, err := buildOmniwitness()
	must(t, err)
	dir := t.TempDir()
	skey, err := witness.GenerateKey("witness.example/omni")
	must(t, err)
	signer, err := witness.NewSigner(skey)
	must(t, err)
	keyFile, logs := filepath.Join(dir, "key"), filepath.Join(dir, "logs.yaml")
	must(t, os.WriteFile(keyFile, []byte(skey), 0o600))
	yaml := "Logs:\n"
	for _, vkey := range vkeys {
		origin, _, _ := strings.Cut(vkey, "+")
		quoted, err := json.Marshal(origin)
		must(t, err)
		yaml += fmt.Sprintf("  - Origin: %s\n    PublicKey: %s\n    URL: http://127.0.0.1:9/\n", quoted, vkey)
	}
	must(t, os.WriteFile(logs, []byte(yaml), 0o600))
	address := freeAddress(t)
	p := background(t, exec.Command(program, "-listen", address, "-metrics_listen", "", "-private_key_path", keyFile,
		"-db_file", filepath.Join(dir, "witness.db"), "-additional_logs", logs))
	listening(t, p, address)
	return &otherWitness{key: signer.Verifier().String(), url: "http://" + address}
}

// freeAddress is an address on which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func listening(t testing.TB, p *process, address string) {
	t.Helper()
	until(t, p.cmd.Args[0], func() bool {
		if !p.running() {
			t.Fatalf("%v ended:\n%s", p.cmd.Args, p.said(t))
		}
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}
