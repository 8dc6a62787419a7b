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
// ipfs-savepoint/v1. No daemon runs: nothing here uses the network.
type kubo struct {
	program, repo string
}

// kuboProgram is the file that TestMain builds.
var kuboProgram string

func TestMain(m *testing.M) { os.Exit(withKubo(m.Run)) }

// withKubo builds kubo, which takes a while, once for all tests.
func withKubo(run func() int) int {
	dir, err := os.MkdirTemp("", "peers-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	kuboProgram = filepath.Join(dir, "ipfs")
	build := exec.Command("go", "build", "-o", kuboProgram, "github.com/ipfs/kubo/cmd/ipfs")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build kubo: %v\n%s", err, out)
		return 1
	}
	return run()
}

func newKubo(t *testing.T) kubo {
	t.Helper()
	k := kubo{kuboProgram, filepath.Join(t.TempDir(), "repo")}
	for _, args := range [][]string{
		{"init"},
		{"config", "profile", "apply", "unixfs-v1-2025"},
		{"config", "--json", "Import.UnixFSHAMTDirectoryMaxFanout", "16"},
		{"config", "Import.UnixFSHAMTDirectorySizeThreshold", "4KiB"},
	} {
		k.run(t, nil, args...)
	}
	return k
}

// run returns what kubo prints.
func (k kubo) run(t *testing.T, stdin io.Reader, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(k.program, append([]string{"--offline"}, args...)...)
	cmd.Env = append(os.Environ(), "IPFS_PATH="+k.repo)
	cmd.Stdin = stdin
	return output(t, cmd)
}

// add returns the CID of a state written to a folder and added from there.
func (k kubo) add(t *testing.T, documents map[string]document) string {
	t.Helper()
	return k.addFolder(t, folder(t, documents))
}

// folder writes the documents of a state to a new folder.
func folder(t *testing.T, documents map[string]document) string {
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

func (k kubo) addFolder(t *testing.T, dir string) string {
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

func output(t *testing.T, cmd *exec.Cmd) []byte {
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
