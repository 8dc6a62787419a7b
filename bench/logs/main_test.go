package logs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var (
	runs = flag.Int("runs", 200, "how many `N` faults are injected, and how many processes are killed")
	seed = flag.Uint64("seed", rand.Uint64(), "`SEED` of what is random in these runs")
)

// built is the folder of the programs that tests build.
var built string

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if built, err = os.MkdirTemp("", "ipfs-savepoint-logs-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(built)
	os.Exit(status)
}

// The programs are built when the first test wants them.
var (
	buildOurs = sync.OnceValues(func() (string, error) {
		return build("ipfs-savepoint", filepath.Join("..", ".."), "./cmd/ipfs-savepoint")
	})
	buildFsck = sync.OnceValues(func() (string, error) {
		return build("fsck", ".", "github.com/transparency-dev/tessera/cmd/fsck")
	})
)

// build builds a program of the module in dir.
func build(name, dir, pkg string) (string, error) {
	path := filepath.Join(built, name)
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

func ours(t testing.TB) string {
	t.Helper()
	path, err := buildOurs()
	must(t, err)
	return path
}

// need skips a test that cannot run without a program; where all is to be tested it fails.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("this cannot be tested without %s", p)
		}
	}
}

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// errHang says that a program had to be killed since it did not end.
var errHang = errors.New("it does not end")
