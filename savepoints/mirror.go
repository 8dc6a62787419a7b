package savepoints

import (
	"context"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// turns lets one at a time bring the copy of a log up.
type turns struct {
	mu   sync.Mutex
	logs map[string]chan struct{} // by origin; each holds one token
}

func newTurns() *turns { return &turns{logs: map[string]chan struct{}{}} }

func (t *turns) of(origin string) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.logs[origin] == nil {
		t.logs[origin] = make(chan struct{}, 1)
	}
	return t.logs[origin]
}

// mirror brings the copy of a log up to what f shows. It waits for its turn.
func (b *Bank) mirror(ctx context.Context, f anchor.Fetcher, p *anchor.Policy) (anchor.Head, error) {
	turn := b.copying.of(p.Origin)
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return anchor.Head{}, ctx.Err()
	}
	return anchor.Mirror(ctx, b.store, f, p, b.earlier[p.Origin]...)
}

// mirrorUnlessBusy does so unless somebody else is at it.
func (b *Bank) mirrorUnlessBusy(ctx context.Context, f anchor.Fetcher, p *anchor.Policy) error {
	turn := b.copying.of(p.Origin)
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	default:
		return nil
	}
	_, err := anchor.Mirror(ctx, b.store, f, p, b.earlier[p.Origin]...)
	return err
}
