//go:build unix

package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// TestFolderOddFiles: a FIFO, a link or a folder in place of a file is not opened, and a
// push puts the file where it can.
func TestFolderOddFiles(t *testing.T) {
	for what, put := range map[string]func(path string) error{
		"FIFO":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link":   func(path string) error { return os.Symlink("elsewhere", path) },
		"folder": func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o700) },
	} {
		t.Run(what, func(t *testing.T) {
			f, item := newFolder(t)
			must(t, put(f.path(item)))
			bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			places, err := f.Places(bounded, item)
			must(t, err)
			if err := Serves(bounded, places[0], item, item.Roots[:1]); err == nil || bounded.Err() != nil {
				t.Errorf("it serves: %v", err)
			}
			if err := f.Push(bounded, item); (err == nil) != (what != "folder") || bounded.Err() != nil {
				t.Errorf("push: %v", err)
			}
			if what != "folder" {
				must(t, Serves(bounded, places[0], item, item.Roots[:1]))
			}
		})
	}
}

// TestTokenIsNoFIFO: a token file that nobody writes to is not waited for.
func TestTokenIsNoFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	must(t, syscall.Mkfifo(path, 0o600))
	_, err := tokenFile(path).read()
	mustBe(t, err, ErrToken)
}

// TestFolderHangs: a push whose system call does not return ends with its context, and
// when nothing moved for too long; until the call returns nothing else is begun, and
// then it leaves nothing in the folder.
func TestFolderHangs(t *testing.T) {
	stopped := errors.New("stopped")
	for what, c := range map[string]struct {
		stall time.Duration
		want  error
	}{"stopped": {time.Hour, stopped}, "silent": {50 * time.Millisecond, node.ErrUnreachable}} {
		t.Run(what, func(t *testing.T) {
			f, item := newFolder(t)
			f.io.stall, f.io.grace = c.stall, 10*time.Millisecond
			// Its clock moves only while nothing can be done.
			synctest.Test(t, func(t *testing.T) {
				begun, hang := make(chan bool), make(chan bool)
				write := item.Write
				// In place of a write to a file system whose server is gone, which cannot
				// be had here.
				item.Write = func(ctx context.Context, w io.Writer) error {
					close(begun)
					<-hang
					return write(ctx, w)
				}
				ended, cancel := context.WithCancelCause(ctx)
				go func() {
					<-begun
					if c.want == stopped {
						cancel(stopped)
					}
				}()
				mustBe(t, f.Push(ended, item), c.want)
				mustBe(t, f.Push(ctx, item), node.ErrUnreachable)
				_, err := f.Places(ctx, item)
				mustBe(t, err, node.ErrUnreachable)
				close(hang)
				await(t, "the call has returned", func() bool { return f.io.left.Load() == 0 })
				if got := names(t, f.dir); len(got) > 0 {
					t.Errorf("the folder holds %v", got)
				}
				item.Write = write
				f.io.stall = time.Hour
				must(t, f.Push(ctx, item))
				cancel(nil)
			})
		})
	}
}

// TestPatienceKeepsResults: what ended in time is what it is, also when its context
// ended first.
func TestPatienceKeepsResults(t *testing.T) {
	p := patience{stall: time.Hour, grace: 20 * time.Second}
	ended, cancel := context.WithCancel(ctx)
	got, err := doValue(ended, &p, func(ctx context.Context, _ func()) (int, error) {
		cancel()
		<-ctx.Done()
		return 7, fmt.Errorf("its own: %w", ctx.Err())
	})
	if got != 7 || err == nil || p.left.Load() != 0 {
		t.Errorf("%d, %v", got, err)
	}
}
