package peers

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// startTimeout bounds how long a program may take until it is ready.
	startTimeout = time.Minute
	// commandTimeout bounds one command.
	commandTimeout = 2 * time.Minute
	// stopTimeout bounds how long a program may take to end when asked to.
	stopTimeout = time.Minute
)

// process is a program that runs until it is stopped.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // it ended
	err  error         // how, once done

	mu  sync.Mutex
	log strings.Builder
}

// start runs a program and returns the first line of its output that contains ready.
// The program is stopped when the test ends, if it was not before.
func start(t testing.TB, cmd *exec.Cmd, ready string) (p *process, line string) {
	t.Helper()
	p = &process{cmd: cmd, done: make(chan struct{})}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(t) })
	found := make(chan string, 1)
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.mu.Lock()
			p.log.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
			if strings.Contains(lines.Text(), ready) {
				select {
				case found <- lines.Text():
				default: // again
				}
			}
		}
		p.err = errors.Join(lines.Err(), cmd.Wait())
	}()
	select {
	case line = <-found:
	case <-p.done:
		t.Fatalf("%s ended before it was ready: %v\n%s", cmd, p.err, p.output())
	case <-time.After(startTimeout):
		t.Fatalf("%s was not ready in %s\n%s", cmd, startTimeout, p.output())
	}
	return p, line
}

// output is what the program printed so far.
func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// stop ends the program and waits for that.
func (p *process) stop(t testing.TB) {
	t.Helper()
	select {
	case <-p.done:
		return
	default:
	}
	p.cmd.Process.Signal(os.Interrupt) // it may have ended meanwhile
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.cmd.Process.Kill()
		<-p.done
		t.Errorf("%s did not end in %s\n%s", p.cmd, stopTimeout, p.output())
	}
	if t.Failed() {
		t.Logf("%s\n%s", p.cmd, p.output())
	}
}

// command is a command that may take commandTimeout.
func command(t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = stopTimeout
	return cmd
}

// fails runs a command that must not succeed, and returns all that it printed.
func fails(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("%s succeeded\n%s", cmd, out)
	}
	return string(out)
}
