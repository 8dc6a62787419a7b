package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A command that hangs, and does not notice that it is cancelled, keeps no serve from ending.
func TestServeEndsWithoutCommand(t *testing.T) {
	began, hang := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(hang) })
	var notes bytes.Buffer
	e := &env{err: &notes}
	dir := t.TempDir()
	stop, err := e.listenCommands(dir, func(http.ResponseWriter, *http.Request) {
		close(began)
		<-hang
	}, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, socketFile))
	}}}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if resp, err := client.Post("http://serve"+commandPath, "", nil); err == nil {
			resp.Body.Close()
		}
	}()
	<-began
	if err := stop(); err != nil {
		t.Error(err)
	}
	<-asked
	if !strings.Contains(notes.String(), "does not end") {
		t.Errorf("nothing is said of it: %q", &notes)
	}
}
