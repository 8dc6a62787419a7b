package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit is how long a program may take that is expected to end.
const limit = 60 * time.Second

// ended is what became of a program.
type ended struct {
	status   int // -1 after a signal
	out, err string
}

// execute runs a program until it ends. What it has started ends with it at the latest.
func execute(name string, args ...string) (ended, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(limited, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	failed := cmd.Run()
	e := ended{0, out.String(), err.String()}
	var exit *exec.ExitError
	switch {
	case limited.Err() != nil:
		return e, fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), errHang)
	case errors.As(failed, &exit):
		e.status = exit.ExitCode()
	case failed != nil:
		return e, failed
	}
	return e, nil
}

// panicked reports whether a Go program ended as none should.
func (e ended) panicked() bool {
	return strings.Contains(e.err, "panic:") || strings.Contains(e.err, "fatal error:") || strings.Contains(e.err, "goroutine 1 ")
}

// command runs a program that must succeed.
func command(t testing.TB, cmd *exec.Cmd) []byte {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return out
}

// process is a program that runs in the background.
type process struct {
	cmd  *exec.Cmd
	out  string        // the file of what it says
	over chan struct{} // closed when it has ended
}

// background runs a program until the test ends.
func background(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	must(t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	p := &process{cmd, out.Name(), make(chan struct{})}
	go func() { defer close(p.over); cmd.Wait() }()
	t.Cleanup(func() { p.end(t, syscall.SIGKILL) })
	return p
}

// end sends the signal to the program, if it still runs, and waits for its end.
func (p *process) end(t testing.TB, s syscall.Signal) {
	t.Helper()
	p.cmd.Process.Signal(s)
	select {
	case <-p.over:
	case <-time.After(limit):
		t.Fatalf("%v: %v", p.cmd.Args, errHang)
	}
}

func (p *process) running() bool {
	select {
	case <-p.over:
		return false
	default:
		return true
	}
}

// said is what the program has said so far.
func (p *process) said(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(p.out)
	must(t, err)
	return string(data)
}

// says waits for a line of JSON of the program.
func (p *process) says(t testing.TB, v any) {
	t.Helper()
	until(t, p.cmd.Args[1], func() bool {
		if !p.running() {
			t.Fatalf("%v ended:\n%s", p.cmd.Args, p.said(t))
		}
		for line := range strings.Lines(p.said(t)) {
			if strings.HasPrefix(line, "{") && strings.HasSuffix(line, "\n") {
				must(t, json.Unmarshal([]byte(line), v))
				return true
			}
		}
		return false
	})
}
