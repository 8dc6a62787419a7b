package savepoints_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// In a folder only regular files are a log's: a pipe is not waited for.
func TestPrefixWithAPipe(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	dir := t.TempDir()
	copyLog(t, b, dir)
	pipes := 0
	must(t, filepath.WalkDir(filepath.Join(dir, "tile"), func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		pipes++
		return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600))
	}))
	if pipes == 0 {
		t.Fatal("the log has no tiles")
	}
	to, p := reader(t, b)
	done := make(chan error, 1)
	go func() {
		_, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{dir}})
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, dag.ErrNotFound) {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second): // a pipe held it up for the time of one request, 30 s
		t.Fatal("a pipe is waited for")
	}
}

// Who is known to have nothing but a log's files is asked for nothing else.
func TestBareIsAskedForNothingElse(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	name := "/ipns/" + published(t, b)
	dir := t.TempDir()
	copyLog(t, b, dir)
	c, url := logMirror(t, dir, http.StatusNotFound)
	_, whole := countedGateway(t, b)
	to, p := reader(t, b)
	f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{url, whole, name, rootOf(t, b)}})
	f.await(t, 1)
	looks := func() (all, others int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, ask := range c.asks {
			if strings.Contains(ask, "/ipns/") || strings.Contains(ask, "/ipfs/") {
				others++
			}
		}
		return len(c.asks), others
	}
	before, asked := looks()
	await(t, "more looks", func() bool { all, _ := looks(); return all >= before+6 })
	f.stop(t)
	if _, others := looks(); others != asked {
		t.Errorf("asked for names and IPFS blocks %d times, then %d times more", asked, others-asked)
	}
	// A log root is not there for who has no other source.
	_, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{dir, rootOf(t, b)}})
	if !errors.Is(err, dag.ErrNotFound) || errors.Is(err, anchor.ErrFork) {
		t.Errorf("%v", err)
	}
}
