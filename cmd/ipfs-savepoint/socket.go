package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// A running serve executes the commands of other processes on the repository that
// it holds. Who may open the socket may do what the owner of the repository may:
// its file mode is the permission.
const (
	socketFile  = "serve.sock"
	commandPath = "/command"
	// commandLimit bounds a command line, in bytes.
	commandLimit = 1 << 20
	// commandGrace is how long commands may go on when serve is to end, and then again
	// how long they may take to notice that they were cancelled.
	commandGrace = 5 * time.Second
)

// command is a command line to be executed.
type command struct {
	Args []string `json:"args"`
	Dir  string   `json:"dir"` // working directory of the caller
}

// frame is a piece of what a command prints, or its exit status.
type frame struct {
	Out  []byte `json:"out,omitempty"`
	Err  []byte `json:"err,omitempty"`
	Exit *int   `json:"exit,omitempty"`
}

// socketPath returns a path for the socket that is short enough for a socket
// address (about 100 bytes), and a function to call when it is not needed any more.
func socketPath(dir string) (string, func() error, error) {
	path := filepath.Join(dir, socketFile)
	if len(path) < 100 {
		return path, func() error { return nil }, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile), d.Close, nil
}

// listenCommands serves the socket of the repository in dir: run executes each command. The
// returned function ends that, and waits for the commands that are running, for grace until
// they are cancelled and for grace after that: one that hangs keeps no serve from ending.
func (e *env) listenCommands(dir string, run http.HandlerFunc, grace time.Duration) (func() error, error) {
	path, release, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	// A socket that a killed serve left: the repository's lock is ours.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, release())
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close(), release())
	}
	mux := http.NewServeMux()
	var running sync.WaitGroup
	mux.HandleFunc("POST "+commandPath, func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		run(w, r)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		err := srv.Shutdown(ctx)
		if err != nil {
			err = srv.Close() // cancels the commands that still run
		}
		<-done
		if !endsWithin(&running, grace) {
			e.note("a command of another process does not end; serve ends without it")
		}
		return errors.Join(err, release())
	}, nil
}

func endsWithin(running *sync.WaitGroup, d time.Duration) bool {
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-time.After(d):
		return false
	}
}

// serveCommand executes a command and streams what it prints. It stops when the
// caller goes away.
func serveCommand(w http.ResponseWriter, r *http.Request, b *savepoints.Bank) {
	var c command
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, commandLimit)).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	frames := &frameWriter{w: w, flush: http.NewResponseController(w)}
	inner := &env{
		out: frameStream{frames, func(p []byte) frame { return frame{Out: p} }},
		err: frameStream{frames, func(p []byte) frame { return frame{Err: p} }},
		dir: c.Dir, bank: b,
	}
	status := inner.run(r.Context(), c.Args)
	frames.send(frame{Exit: &status})
}

// frameWriter sends frames one at a time, each at once.
type frameWriter struct {
	mu    sync.Mutex
	w     io.Writer
	flush *http.ResponseController
}

func (f *frameWriter) send(fr frame) error {
	data, err := json.Marshal(fr)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.w.Write(append(data, '\n')); err != nil {
		return err
	}
	return f.flush.Flush()
}

type frameStream struct {
	f    *frameWriter
	wrap func([]byte) frame
}

func (s frameStream) Write(p []byte) (int, error) { return len(p), s.f.send(s.wrap(p)) }

// forward asks the serve that holds the repository to execute a command, and
// passes on what it prints. It returns the command's exit status.
func (e *env) forward(ctx context.Context, args []string) (int, error) {
	dir, err := e.repoDir()
	if err != nil {
		return 0, err
	}
	path, release, err := socketPath(dir)
	if err != nil {
		return 0, err
	}
	defer release()
	body, err := json.Marshal(command{Args: args, Dir: e.dir})
	if err != nil {
		return 0, err
	}
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://serve"+commandPath, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("serve answers %s", resp.Status)
	}
	return e.replay(ctx, json.NewDecoder(resp.Body))
}

func (e *env) replay(ctx context.Context, frames *json.Decoder) (int, error) {
	for {
		var f frame
		if err := frames.Decode(&f); err != nil {
			if ctx.Err() != nil {
				return exitInterrupted, nil
			}
			return 0, fmt.Errorf("serve went away: %w", err)
		}
		if _, err := e.out.Write(f.Out); err != nil {
			return 0, err
		}
		if _, err := e.err.Write(f.Err); err != nil {
			return 0, err
		}
		if f.Exit != nil {
			return *f.Exit, nil
		}
	}
}
