package publish_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hiero-ledger/hiero-sdk-go/v2/proto/services"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs/publish"
)

// buildProgram builds a program of a module, as a user gets it.
func buildProgram(t *testing.T, module, name string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./cmd/"+name)
	build.Dir = module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// operatorKey makes a key for the account that pays, and returns its file.
func (r *rig) operatorKey(t *testing.T) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	r.signers = []ed25519.PublicKey{public}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	file := filepath.Join(t.TempDir(), "operator.key")
	must(t, os.WriteFile(file, []byte(hex.EncodeToString(der)), 0o600))
	return file
}

func (r *rig) nodeFlags() (flags []string) {
	for address, id := range r.nodes {
		flags = append(flags, "--node", address+"="+id.String())
	}
	return flags
}

// TestCommand runs the program, kills it and runs it again, against a ledger that is
// busy at first; readers find what it published.
func TestCommand(t *testing.T) {
	bin := buildProgram(t, ".", "ipfs-savepoint-hcs")
	r, l := newRig(t), newWatched(t)
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, text, 0o600))
		return path
	}
	key := r.operatorKey(t)
	trust := write("trust.policy", fmt.Appendf(nil, "%s# ipfs-savepoint: hcs %s https://a.example https://b.example\n", l.text, r.topic))
	args := append([]string{"--log", l.url, "--trust", trust, "--operator", "0.0.1001", "--key", key, "--receipts", filepath.Join(dir, "receipts"), "--interval", "20ms"}, r.nodeFlags()...)
	var busy atomic.Int64
	r.before = func(int) (services.ResponseCodeEnum, error) {
		if busy.Add(1) <= 2 {
			return services.ResponseCodeEnum_BUSY, nil
		}
		return services.ResponseCodeEnum_OK, nil
	}
	start := func() (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
		cmd := exec.Command(bin, args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		must(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill() }) // it may have ended
		return cmd, &stdout, &stderr
	}
	lines := func() int {
		b, err := os.ReadFile(filepath.Join(dir, "receipts"))
		if err != nil {
			return 0
		}
		return bytes.Count(b, []byte("\n"))
	}

	l.grow(t, 2)
	first, stdout, _ := start()
	await(t, "a receipt", func() bool { return lines() == 1 })
	must(t, first.Process.Kill())
	first.Wait() // killed
	var p publish.Published
	if err := json.NewDecoder(stdout).Decode(&p); err != nil || p.Size != 2 || p.Sequence != 1 {
		t.Errorf("%+v %v", p, err)
	}
	second, stdout, stderr := start()
	l.grow(t, 1)
	await(t, "another receipt", func() bool { return lines() == 2 })
	must(t, second.Process.Signal(syscall.SIGTERM))
	if err := second.Wait(); err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
	if err := json.NewDecoder(stdout).Decode(&p); err != nil || p.Size != 3 || p.Sequence != 2 {
		t.Errorf("%+v %v", p, err)
	}
	report, err := hcs.Read(context.Background(), l.policy, r.topic, r.mirrors(t, nil), hcs.Options{})
	must(t, err)
	if report.Heads != 2 || report.Newest.Head.Size != 3 {
		t.Errorf("%+v", report)
	}

	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"nothing":         {nil, 2},
		"unknown flag":    {[]string{"--colour", "blue"}, 2},
		"two networks":    {append([]string{"--network", "testnet"}, args...), 2},
		"unknown network": {append([]string{"--network", "othernet"}, args[:len(args)-4]...), 2},
		"no topic":        {append(append([]string{}, args...), "--topic", "4711"), 2},
		"no policy":       {append(append([]string{}, args...), "--trust", write("bad.policy", []byte("nonsense\n"))), 3},
		"no key":          {append(append([]string{}, args...), "--key", trust), 2},
		"no receipts":     {append(append([]string{}, args...), "--receipts", dir), 1},
		"no interval":     {append(append([]string{}, args...), "--interval", "0s"), 2},
	} {
		out, err := exec.Command(bin, c.args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.want || !strings.Contains(string(out), "ipfs-savepoint-hcs: ") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if out, err := exec.Command(bin, "--help").CombinedOutput(); err != nil || !strings.Contains(string(out), "--operator") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestWholeWay goes it with both programs: what is taken on one host gets onto the
// ledger, and a fresh host knows from there that it is shown the newest, or that it is not.
func TestWholeWay(t *testing.T) {
	product, program := buildProgram(t, "../../..", "ipfs-savepoint"), buildProgram(t, ".", "ipfs-savepoint-hcs")
	r := newRig(t)
	key, mirrors, dir := r.operatorKey(t), r.mirrors(t, nil), t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	// run runs the product and returns its JSON.
	run := func(want int, args ...string) map[string]any {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, product, append(args, "--json")...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("%q: exit status %d, %v\n%s%s", args, got, err, out, &stderr)
		}
		var v map[string]any
		must(t, json.Unmarshal(out, &v))
		return v
	}
	start := func(bin string, args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		cmd.Stderr = os.Stderr
		must(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) // they may have ended
		return cmd
	}
	serve := func(repo string) (gateway string) {
		start(product, "serve", "--quiet", "--repo", path(repo), "--gateway", "127.0.0.1:0", "--swarm", "/ip4/127.0.0.1/tcp/0")
		await(t, "serve", func() bool {
			var s struct{ Gateway string }
			b, err := os.ReadFile(filepath.Join(path(repo), "serve.json"))
			gateway = ""
			if err == nil && json.Unmarshal(b, &s) == nil {
				gateway = s.Gateway
			}
			return gateway != ""
		})
		return gateway
	}
	state := func(text string) string {
		must(t, os.MkdirAll(path("state/x"), 0o700))
		must(t, os.WriteFile(path("state/x/document"), []byte(text), 0o600))
		return path("state")
	}

	made := run(0, "init", "--repo", path("a"), "--hcs", r.topic.String()+" "+strings.Join(mirrors, " "))
	trust := filepath.Join(path("a"), "trust.policy")
	run(0, "take", state("one"), "--policy", "p", "--repo", path("a"))
	must(t, os.CopyFS(path("old"), os.DirFS(path("a"))))
	gateway := serve("a")
	log := fmt.Sprintf("%s/tlog/%x/", gateway, sha256.Sum256([]byte(made["origin"].(string))))
	start(program, append([]string{"--log", log, "--trust", trust, "--operator", "0.0.1001", "--key", key, "--receipts", path("receipts"), "--interval", "20ms"}, r.nodeFlags()...)...)
	await(t, "a receipt", func() bool { return strings.Count(readFile(t, path("receipts")), "\n") == 1 })
	restore := func(want int, from, to string) map[string]any {
		t.Helper()
		return run(want, "restore", "p@latest", "--from", from, "--trust", trust, "--repo", path("fresh-"+to), "--to", path(to))
	}
	if got := restore(0, gateway, "out1"); got["freshness"] != "ledger" {
		t.Errorf("%v", got)
	}
	run(0, "take", state("two"), "--policy", "p", "--repo", path("a"))
	await(t, "another receipt", func() bool { return strings.Count(readFile(t, path("receipts")), "\n") == 2 })
	if got := restore(0, gateway, "out2"); got["freshness"] != "ledger" || readFile(t, path("out2/x/document")) != "two" {
		t.Errorf("%v", got)
	}
	if got := restore(5, serve("old"), "out3"); !strings.Contains(fmt.Sprint(got), "log_rollback") {
		t.Errorf("%v", got)
	}
	if got := run(0, "log", "audit", "--repo", path("a")); got["freshness"] != "ledger" || got["ledger"].(map[string]any)["heads"] != 2.0 {
		t.Errorf("%v", got)
	}
}
