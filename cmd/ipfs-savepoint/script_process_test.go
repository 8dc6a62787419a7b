package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// processes are those that a script has started, by name.
type processes map[string]*process

// processesKey finds them among the script's values.
type processesKey struct{}

type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended with err
	err   error
}

// program is the program with arguments, as the script would execute it.
func program(ts *testscript.TestScript, args ...string) *exec.Cmd {
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), string(os.PathListSeparator)) {
		path := filepath.Join(dir, "ipfs-savepoint")
		if _, err := os.Stat(path); err != nil {
			continue
		}
		cmd := exec.Command(path, args...)
		cmd.Dir = ts.MkAbs(".")
		for _, name := range []string{"PATH", "HOME", "TMPDIR", "IPFS_SAVEPOINT_REPO"} {
			if v := ts.Getenv(name); v != "" {
				cmd.Env = append(cmd.Env, name+"="+v)
			}
		}
		return cmd
	}
	ts.Fatalf("the program is not on PATH")
	return nil
}

// start runs the program in the background; its output goes to NAME.out and
// NAME.err. At the end of the script it is killed.
func start(ts *testscript.TestScript, name string, args ...string) *process {
	stdout, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer stdout.Close()
	stderr, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	defer stderr.Close()
	p := &process{cmd: program(ts, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	ts.Check(p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	ts.Defer(func() {
		p.cmd.Process.Kill() // it may have ended
		<-p.ended
	})
	ts.Value(processesKey{}).(processes)[name] = p
	return p
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func cmdStart(ts *testscript.TestScript, _ bool, args []string) { start(ts, args[0], args[1:]...) }

// cmdServe starts serve on free ports, named PREFIX, and waits until it listens.
// Then PREFIX_GATEWAY and PREFIX_SWARM say where.
func cmdServe(ts *testscript.TestScript, _ bool, args []string) {
	prefix, repo := args[0], args[1]
	file := filepath.Join(ts.MkAbs(repo), "serve.json")
	old, _ := os.ReadFile(file) // of a serve that was killed
	p := start(ts, prefix, append([]string{"serve", "--json", "--repo", repo,
		"--gateway", "127.0.0.1:0", "--swarm", "/ip4/127.0.0.1/tcp/0"}, args[2:]...)...)
	var s servingJSON
	until(ts, "serve.json", func() bool {
		if !p.running() {
			ts.Fatalf("serve ended: %v\n%s", p.err, ts.ReadFile(prefix+".err"))
		}
		data, err := os.ReadFile(file)
		return err == nil && string(data) != string(old) && json.Unmarshal(data, &s) == nil
	})
	ts.Setenv(prefix+"_GATEWAY", s.Gateway)
	ts.Setenv(prefix+"_SWARM", s.Swarm[0])
}

var signals = map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT}

// cmdEnd sends a signal to a process that must still run, and waits for its end.
func cmdEnd(ts *testscript.TestScript, _ bool, args []string) {
	p := ts.Value(processesKey{}).(processes)[args[0]]
	if !p.running() {
		ts.Fatalf("%s has ended: %v\n%s", args[0], p.err, ts.ReadFile(args[0]+".err"))
	}
	ts.Check(p.cmd.Process.Signal(signals[args[1]]))
	select {
	case <-p.ended:
	case <-time.After(waitLimit):
		ts.Fatalf("%s does not stop", args[0])
	}
	if len(args) > 2 && fmt.Sprint(exitStatus(ts, p.err)) != args[2] {
		ts.Fatalf("exit status %d, want %s\n%s", exitStatus(ts, p.err), args[2], ts.ReadFile(args[0]+".err"))
	}
}

// cmdKillWriting runs a restore to TARGET and kills it when it has written NUMBER
// documents and not all. One that was quicker than the kill is repeated.
func cmdKillWriting(ts *testscript.TestScript, _ bool, args []string) {
	target := ts.MkAbs(args[0])
	number, err := strconv.Atoi(args[1])
	ts.Check(err)
	staging := filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".restoring", "documents")
	for range 10 {
		p := start(ts, "killed", args[2:]...)
		for p.running() && countFiles(staging) < number {
			time.Sleep(pollEvery / 10)
		}
		p.cmd.Process.Kill() // it may have ended
		<-p.ended
		if _, err := os.Stat(target); err != nil {
			if n := countFiles(staging); n < number {
				ts.Fatalf("it ended with %d documents written: %v\n%s", n, p.err, ts.ReadFile("killed.err"))
			}
			return
		}
		ts.Check(os.RemoveAll(target))
	}
	ts.Fatalf("the restore was always quicker than the kill")
}

// countFiles is the number of files two levels below a folder.
func countFiles(dir string) int {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*")) // the pattern is well formed
	return len(files)
}

// cmdTakes takes save points of different policies, all at once. Each must get a
// log entry of its own.
func cmdTakes(ts *testscript.TestScript, _ bool, args []string) {
	number, err := strconv.Atoi(args[0])
	ts.Check(err)
	entries := make([]int64, number)
	errs := make([]error, number)
	var wg sync.WaitGroup
	for i := range number {
		cmd := program(ts, "take", args[1], "--policy", fmt.Sprintf("policy-%d", i), "--json")
		wg.Go(func() {
			out, err := cmd.Output()
			var taken takenJSON
			if err == nil {
				err = json.Unmarshal(out, &taken)
			}
			entries[i], errs[i] = taken.LogIndex, err
		})
	}
	wg.Wait()
	seen := map[int64]bool{}
	for i, err := range errs {
		if err != nil {
			ts.Fatalf("take %d: %v", i, err)
		}
		if seen[entries[i]] {
			ts.Fatalf("two takes have log entry %d", entries[i])
		}
		seen[entries[i]] = true
	}
}

// cmdHold takes the lock of a repository, as a process does that cannot be asked.
func cmdHold(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(filepath.Join(ts.MkAbs(args[0]), "repo.lock"), os.O_RDWR, 0)
	ts.Check(err)
	ts.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	ts.Defer(func() { f.Close() })
}

// cmdTmpfs mounts a file system of SIZE bytes.
func cmdTmpfs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o777))
	ts.Check(mountTmpfs(dir, args[1]))
	ts.Defer(func() {
		if err := exec.Command("umount", dir).Run(); err != nil {
			ts.Logf("umount: %v", err)
		}
	})
}

func mountTmpfs(dir, size string) error {
	return exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).Run()
}

// canMount reports whether a small file system can be made to be full.
func canMount() bool {
	dir, err := os.MkdirTemp("", "ipfs-savepoint-mount-")
	if err != nil {
		return false
	}
	defer os.Remove(dir)
	return mountTmpfs(dir, "1m") == nil && exec.Command("umount", dir).Run() == nil
}
