package replication

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

const (
	// folderStall is how long a folder may neither take nor give a byte. A mounted
	// bucket may send what it took only when the file is closed.
	folderStall = 10 * time.Minute
	// folderGrace is how long a use of a folder that was ended may take to end.
	folderGrace = 2 * time.Second
)

// patience uses a folder, and waits no longer than a context for a system call that
// never ends, as on a network file system whose server is gone. Such a call cannot be
// ended: its goroutine is left behind and belongs to patience, which begins nothing else
// until it has ended, so that there are never more of them than there were uses at one
// time. What it may still do when it goes on is to find its context ended, and to clean
// up. The zero value is ready. Safe for concurrent use.
type patience struct {
	left atomic.Int64 // goroutines that were left behind
	// stall and grace are folderStall and folderGrace if 0.
	stall, grace time.Duration
}

// do calls use, with a context that ends also when moved was not called for too long.
func (p *patience) do(ctx context.Context, use func(ctx context.Context, moved func()) error) error {
	_, err := doValue(ctx, p, func(ctx context.Context, moved func()) (struct{}, error) {
		return struct{}{}, use(ctx, moved)
	})
	return err
}

// doValue is do of what has a result.
func doValue[T any](ctx context.Context, p *patience, use func(ctx context.Context, moved func()) (T, error)) (T, error) {
	var none T
	if p.left.Load() > 0 {
		return none, fmt.Errorf("%w: an earlier use of it has not ended", node.ErrUnreachable)
	}
	stall, grace := p.stall, p.grace
	if stall == 0 {
		stall, grace = folderStall, folderGrace
	}
	ctx, watch := watched(ctx, stall)
	defer watch.stop()
	type result struct {
		value T
		err   error
	}
	done := make(chan result)
	gone := make(chan struct{})
	go func() {
		value, err := use(ctx, func() { watch.moved(stall) })
		select {
		case done <- result{value, err}:
		case <-gone:
			p.left.Add(-1)
		}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-time.After(grace):
		p.left.Add(1)
		close(gone)
		return none, context.Cause(ctx)
	}
}

// movingIO tells of each read and write, and ends with its context.
type movingIO struct {
	file  *os.File
	ctx   context.Context
	moved func()
}

func (m movingIO) Read(p []byte) (int, error)  { return m.move(m.file.Read, p) }
func (m movingIO) Write(p []byte) (int, error) { return m.move(m.file.Write, p) }

func (m movingIO) Seek(offset int64, whence int) (int64, error) { return m.file.Seek(offset, whence) }

func (m movingIO) move(f func([]byte) (int, error), p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	m.moved()
	return f(p)
}
