package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

func init() {
	children["hold"] = func(dir string) error {
		if _, err := Open(ctx, dir); err != nil {
			return err
		}
		fmt.Println("open")
		select {} // until it is killed
	}
	children["create"] = func(dir string) error {
		for i := 0; ; i++ {
			r, err := Create(ctx, filepath.Join(dir, fmt.Sprint(i)))
			if err != nil {
				return err
			}
			if err := r.Close(); err != nil {
				return err
			}
			fmt.Println(i)
		}
	}
	children["put"] = func(dir string) error {
		r, err := Open(ctx, dir)
		if err != nil {
			return err
		}
		for i := r.Blocks.Len(); ; i++ {
			b := dag.RawBlock(bytesOf(uint64(i), i*997%70_000))
			if err := r.Blocks.Put(ctx, b); err != nil {
				return err
			}
			if i%3 == 0 {
				if err := r.Pin(ctx, b.CID, "x"); err != nil {
					return err
				}
				fmt.Println(i)
			}
		}
	}
}

func TestRepositoryLock(t *testing.T) {
	r := newRepo(t)
	_, err := Open(ctx, r.Dir())
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("second open in the process: %v", err)
	}
	if _, err := Create(ctx, r.Dir()); !errors.Is(err, ErrHeld) {
		t.Fatalf("create where one is open: %v", err)
	}
	must(t, r.Close())

	cmd := child(t, "hold", r.Dir())
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)
	_, err = Open(ctx, r.Dir())
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("open while process %d has it: %v", cmd.Process.Pid, err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait() // killed
	again, err := Open(ctx, r.Dir())
	must(t, err)
	must(t, again.Close())
}

// A process that was forked while a repository was open, and has not executed a program yet,
// does not keep it locked.
func TestLockEndsWithClose(t *testing.T) {
	r := newRepo(t)
	inherited, err := syscall.Dup(int(r.lock.Fd()))
	must(t, err)
	defer syscall.Close(inherited)
	must(t, r.Close())
	again, err := Open(ctx, r.Dir())
	must(t, err)
	must(t, again.Close())
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(ctx, filepath.Join(t.TempDir(), "absent")); !errors.Is(err, ErrNoRepo) {
		t.Errorf("absent folder: %v", err)
	}
	if _, err := Open(ctx, t.TempDir()); !errors.Is(err, ErrNoRepo) {
		t.Errorf("empty folder: %v", err)
	}
	for name, c := range map[string]struct {
		file, text string
		want       error
		say        string
	}{
		"newer version":    {versionFile, fmt.Sprint(Version + 1), ErrNewerRepo, fmt.Sprint(Version + 1)},
		"no number":        {versionFile, "one", nil, versionFile},
		"empty version":    {versionFile, "", nil, versionFile},
		"unknown key":      {configFile, "gatewya = \"127.0.0.1:1\"\n", nil, "gatewya"},
		"key of a table":   {configFile, "[swarm2]\nlisten = 1\n", nil, "swarm2"},
		"no TOML":          {configFile, "gateway = ", nil, configFile},
		"wrong kind":       {configFile, "gateway = 5", nil, configFile},
		"config not there": {configFile, "-", fs.ErrNotExist, configFile},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			must(t, r.Close())
			path := filepath.Join(r.Dir(), c.file)
			if c.text == "-" {
				must(t, os.Remove(path))
			} else {
				must(t, os.WriteFile(path, []byte(c.text), 0o600))
			}
			_, err := Open(ctx, r.Dir())
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("open: %v", err)
			}
			// The lock is free again.
			lock, err := acquire(r.Dir())
			must(t, err)
			must(t, lock.Close())
		})
	}
}

func TestConfig(t *testing.T) {
	r := newRepo(t)
	if r.Config.Gateway != DefaultConfig().Gateway || strings.Join(r.Config.Swarm, " ") != strings.Join(DefaultConfig().Swarm, " ") {
		t.Errorf("the file that Create writes says %+v", r.Config)
	}
	must(t, r.Close())
	must(t, os.WriteFile(filepath.Join(r.Dir(), configFile), []byte("gateway = \"127.0.0.1:0\"\n"), 0o600))
	r, err := Open(ctx, r.Dir())
	must(t, err)
	defer r.Close()
	if r.Config.Gateway != "127.0.0.1:0" || len(r.Config.Swarm) != 1 {
		t.Errorf("%+v", r.Config)
	}
}

func TestSecretsAreTheOwners(t *testing.T) {
	r := newRepo(t)
	must(t, r.WriteFile("sub/secret", []byte("x")))
	for _, name := range []string{identityFile, configFile, versionFile, lockFile, "sub/secret", "packs/00000001.car"} {
		st, err := os.Stat(filepath.Join(r.Dir(), name))
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	for _, name := range []string{".", packsDir, metaDir, "sub"} {
		st, err := os.Stat(filepath.Join(r.Dir(), name))
		if err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

// A Create that was killed leaves no repository; Create finishes it.
func TestHalfMadeRepository(t *testing.T) {
	steps := []func(dir string) error{
		func(dir string) error { return os.WriteFile(filepath.Join(dir, lockFile), []byte("1\n"), 0o600) },
		func(dir string) error { return os.Mkdir(filepath.Join(dir, packsDir), 0o700) },
		func(dir string) error { return os.Mkdir(filepath.Join(dir, metaDir), 0o700) },
		func(dir string) error { return os.WriteFile(filepath.Join(dir, ".tmp-1"), []byte("ha"), 0o600) },
		func(dir string) error { return os.WriteFile(filepath.Join(dir, identityFile), []byte("key"), 0o600) },
		func(dir string) error { return os.WriteFile(filepath.Join(dir, configFile), nil, 0o600) },
		func(dir string) error { return os.WriteFile(filepath.Join(dir, ".tmp-2"), []byte("1"), 0o600) },
	}
	for n := range len(steps) + 1 {
		dir := t.TempDir()
		for _, step := range steps[:n] {
			must(t, step(dir))
		}
		if _, err := Open(ctx, dir); Exists(dir) || !errors.Is(err, ErrNoRepo) {
			t.Fatalf("after %d steps: exists %v, open: %v", n, Exists(dir), err)
		}
		r, err := Create(ctx, dir)
		if err != nil {
			t.Fatalf("after %d steps: %v", n, err)
		}
		if _, err := r.identity(); err != nil {
			t.Errorf("after %d steps: %v", n, err)
		}
		must(t, r.Close())
		if left, err := filepath.Glob(filepath.Join(dir, ".tmp-*")); err != nil || len(left) > 0 {
			t.Errorf("after %d steps: left %v, %v", n, left, err)
		}
	}
}

// Nothing of somebody else is overwritten.
func TestCreateInFolderInUse(t *testing.T) {
	for _, files := range [][]string{
		{"readme.txt"}, {configFile}, {identityFile}, {".tmp-x", "readme.txt"}, {packsDir + "/00000001.car"},
		{packsDir + "/.keep"}, {metaDir + "/pins/x"}, {packsDir + "/", metaDir + "/", configFile}, {packsDir}, {versionFile},
	} {
		dir := t.TempDir()
		for _, f := range files {
			path := filepath.Join(dir, f)
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			if strings.HasSuffix(f, "/") {
				must(t, os.MkdirAll(path, 0o700))
				continue
			}
			must(t, os.WriteFile(path, []byte("mine"), 0o600))
		}
		if r, err := Create(ctx, dir); !errors.Is(err, ErrRepoExists) {
			t.Errorf("%v: %v, %v", files, r, err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "/") {
				continue
			}
			if data, err := os.ReadFile(filepath.Join(dir, f)); err != nil || string(data) != "mine" {
				t.Errorf("%v: %s holds %q, %v", files, f, data, err)
			}
		}
	}
	r := newRepo(t)
	must(t, r.Close())
	if _, err := Create(ctx, r.Dir()); !errors.Is(err, ErrRepoExists) {
		t.Errorf("a repository: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := Create(ctx, file); err == nil {
		t.Error("a file")
	}
}

// killed runs a child, kills it at a random moment after its first line, and
// returns the lines that it wrote.
func killed(t *testing.T, name, dir string) []string {
	t.Helper()
	cmd := child(t, name, dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	in := bufio.NewReader(out)
	first, err := in.ReadString('\n')
	must(t, err)
	time.AfterFunc(rand.N(40*time.Millisecond), func() { cmd.Process.Kill() })
	rest, err := io.ReadAll(in)
	must(t, err)
	cmd.Wait() // killed
	all := first + string(rest)
	return strings.Split(strings.TrimSuffix(all[:strings.LastIndex(all, "\n")+1], "\n"), "\n")
}

// A process is killed while it makes repositories, again and again: those that
// it had made are there, the last one is whole or not there and can be made.
func TestKilledWhileCreating(t *testing.T) {
	for range 8 {
		dir := t.TempDir()
		made := killed(t, "create", dir)
		for i := range len(made) {
			r, err := Open(ctx, filepath.Join(dir, fmt.Sprint(i)))
			must(t, err)
			must(t, r.Close())
		}
		last := filepath.Join(dir, fmt.Sprint(len(made)))
		open := Open
		if !Exists(last) {
			open = Create
		}
		r, err := open(ctx, last)
		must(t, err)
		must(t, r.Close())
	}
}

// A process is killed while it puts and pins: what it had pinned is there.
func TestKilledWhilePutting(t *testing.T) {
	r := newRepo(t)
	must(t, r.Close())
	for range 8 {
		lines := killed(t, "put", r.Dir())
		var n int
		fmt.Sscan(lines[len(lines)-1], &n)
		r, err := Open(ctx, r.Dir())
		must(t, err)
		var blocks []dag.Block
		for i := range n + 1 {
			blocks = append(blocks, dag.RawBlock(bytesOf(uint64(i), i*997%70_000)))
		}
		for i, b := range blocks {
			if _, err := r.Blocks.Get(ctx, b.CID); err != nil {
				t.Fatalf("%d of %d: %v", i, len(blocks), err)
			}
		}
		if ok, err := r.Pinned(blocks[n].CID); err != nil || !ok {
			t.Fatalf("pin %d: %v, %v", n, ok, err)
		}
		for _, d := range r.Blocks.Damage() {
			if !d.Torn {
				t.Errorf("%v", d)
			}
		}
		must(t, r.Close())
	}
}
