package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// event is a line that a child process prints.
type event struct {
	Serving *servingJSON   `json:"serving,omitempty"`
	Fetched *savepointJSON `json:"fetched,omitempty"`
	Saved   *demoSave      `json:"saved,omitempty"`
	Middle  uint64         `json:"middle,omitempty"` // height of the step it is in
}

func (ev event) kind() string {
	switch {
	case ev.Serving != nil:
		return "serving"
	case ev.Fetched != nil:
		return "fetched"
	}
	return ""
}

// child is a process of the demonstration. Its standard input stays open as long
// as the demonstration lives.
type child struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events chan event
	stderr bytes.Buffer
	ended  bool
}

// spawn starts this program with other arguments as a process of its own.
func (d *demonstration) spawn(name string, args ...string) (*child, error) {
	c := &child{name: name, cmd: exec.Command(d.program, append(args, "--json")...), events: make(chan event, 64)}
	c.cmd.Stderr = &c.stderr
	c.cmd.Dir = d.dir
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.stdin = stdin
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.read(stdout)
	d.running = append(d.running, c)
	return c, nil
}

// read delivers the lines of the process until it closes its output.
func (c *child) read(stdout io.Reader) {
	defer close(c.events)
	for lines := json.NewDecoder(stdout); ; {
		var ev event
		if lines.Decode(&ev) != nil {
			return
		}
		c.events <- ev
	}
}

// next waits for the next event, or for the next of a kind.
func (c *child) next(ctx context.Context, kind string) (event, error) {
	limit := time.NewTimer(demoWait)
	defer limit.Stop()
	for {
		select {
		case ev, ok := <-c.events:
			if !ok {
				return event{}, fmt.Errorf("it ended: %s", c.lastWords())
			}
			if kind == "" || ev.kind() == kind {
				return ev, nil
			}
		case <-limit.C:
			return event{}, fmt.Errorf("nothing heard for %s", demoWait)
		case <-ctx.Done():
			return event{}, ctx.Err()
		}
	}
}

// lastWords is what the process printed to standard error, once it has ended.
func (c *child) lastWords() string {
	c.wait()
	return strings.TrimSpace(c.stderr.String())
}

func (c *child) send(line string) error {
	_, err := io.WriteString(c.stdin, line+"\n")
	return err
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) wait() error {
	if c.ended {
		return nil
	}
	c.ended = true
	return c.cmd.Wait()
}

// kill ends the process by SIGKILL and waits for its end.
func (c *child) kill() error {
	if c.ended {
		return nil
	}
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	for range c.events { // until its output is closed
	}
	if err := c.wait(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return err
		}
	}
	return nil
}

func (d *demonstration) killAll() {
	for _, c := range d.running {
		c.kill() // it may have ended by itself
	}
	d.running = nil
}

// command runs this program to its end and reads the JSON that it prints.
func (d *demonstration) command(ctx context.Context, result any, args ...string) error {
	cmd := exec.CommandContext(ctx, d.program, append(args, "--json")...)
	cmd.Dir = d.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(stdout.Bytes(), result)
}
