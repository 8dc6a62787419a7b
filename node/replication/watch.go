package replication

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// limited returns a context that ends after a time, for a reason that says so.
func limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("%w: no answer within %s", node.ErrUnreachable, d))
}

// watch ends a context when nothing has moved for a time.
type watch struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// watched returns a context that ends when patience has gone by since the last move.
func watched(ctx context.Context, patience time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{cancel: cancel}
	w.timer = time.AfterFunc(patience, func() {
		cancel(fmt.Errorf("%w: nothing has moved for too long", node.ErrUnreachable))
	})
	return ctx, w
}

// moved gives it patience again.
func (w *watch) moved(patience time.Duration) { w.timer.Reset(patience) }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// minRate is how many bytes must be taken before patience is given again: who takes one
// now and then is as good as silent.
const minRate = 32 << 10

// movingWriter tells a watch of each minRate bytes that were written.
type movingWriter struct {
	io.Writer
	watch    *watch
	patience time.Duration
	some     int // bytes since the watch was told
}

func (m *movingWriter) Write(p []byte) (int, error) {
	n, err := m.Writer.Write(p)
	if m.some += n; m.some >= minRate {
		m.some = 0
		m.watch.moved(m.patience)
	}
	return n, err
}
