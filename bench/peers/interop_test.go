package peers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kubo is a kubo with a repository of its own, set to the CID profile
// ipfs-savepoint/v1. No daemon runs until one is started.
type kubo struct {
	program, repo string
}

// The programs that TestMain builds.
var kuboProgram, productProgram string

func TestMain(m *testing.M) { os.Exit(withPrograms(m.Run)) }

// withPrograms builds the programs, which takes a while, once for all tests.
func withPrograms(run func() int) int {
	dir, err := os.MkdirTemp("", "peers-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	kuboProgram, productProgram = filepath.Join(dir, "ipfs"), filepath.Join(dir, "ipfs-savepoint")
	product := exec.Command("go", "build", "-o", productProgram, "./cmd/ipfs-savepoint")
	product.Dir = filepath.Join("..", "..") // a module of its own
	for _, build := range []*exec.Cmd{
		product,
		exec.Command("go", "build", "-o", kuboProgram, "github.com/ipfs/kubo/cmd/ipfs"),
	} {
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
			return 1
		}
	}
	return run()
}

func newKubo(t testing.TB) kubo {
	t.Helper()
	k := kubo{kuboProgram, filepath.Join(t.TempDir(), "repo")}
	for _, args := range [][]string{
		{"init", "--profile", "test"},
		{"config", "Routing.Type", "none"},
		{"config", "profile", "apply", "unixfs-v1-2025"},
		{"config", "--json", "Import.UnixFSHAMTDirectoryMaxFanout", "16"},
		{"config", "Import.UnixFSHAMTDirectorySizeThreshold", "4KiB"},
	} {
		k.run(t, nil, args...)
	}
	return k
}

// env is the environment of a kubo that has this repository and calls nobody.
func (k kubo) env() []string {
	return append(os.Environ(), "IPFS_PATH="+k.repo, "IPFS_TELEMETRY=off")
}

// run returns what kubo prints. It works on the repository, or has a daemon that runs
// do so, without asking peers.
func (k kubo) run(t testing.TB, stdin io.Reader, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(k.program, append([]string{"--offline"}, args...)...)
	cmd.Env = k.env()
	cmd.Stdin = stdin
	return output(t, cmd)
}

// add returns the CID of a state written to a folder and added from there.
func (k kubo) add(t testing.TB, documents map[string]document) string {
	t.Helper()
	return k.addFolder(t, folder(t, documents))
}

// folder writes the documents of a state to a new folder.
func folder(t testing.TB, documents map[string]document) string {
	t.Helper()
	dir := t.TempDir()
	for path, d := range documents {
		file := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, d.bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (k kubo) addFolder(t testing.TB, dir string) string {
	t.Helper()
	return line(k.run(t, nil, "add", "-r", "-H", "--empty-dirs=false", "-Q", dir))
}

// putManifest returns the CID and the bytes that kubo makes of DAG-JSON.
func (k kubo) putManifest(t *testing.T, value []byte) (cid string, data []byte) {
	t.Helper()
	cid = line(k.run(t, bytes.NewReader(value), "dag", "put", "--input-codec=dag-json", "--store-codec=dag-cbor"))
	return cid, k.run(t, nil, "block", "get", cid)
}

// javaScript runs golden.mjs and decodes what it prints into out. It reports
// false, with a reason in the log, where there is no node.
func javaScript(t *testing.T, mode string, stdin []byte, out any) bool {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Logf("JavaScript is not compared: %v", err)
		return false
	}
	if _, err := os.Stat("node_modules"); errors.Is(err, os.ErrNotExist) {
		output(t, exec.Command("npm", "ci"))
	}
	cmd := exec.Command("node", "golden.mjs", mode)
	cmd.Stdin = bytes.NewReader(stdin)
	if err := json.Unmarshal(output(t, cmd), out); err != nil {
		t.Fatal(err)
	}
	return true
}

func output(t testing.TB, cmd *exec.Cmd) []byte {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w\n%s", cmd, err, &stderr))
	}
	return out
}

func line(out []byte) string { return strings.TrimSpace(string(out)) }
