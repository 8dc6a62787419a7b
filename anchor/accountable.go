package anchor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Accountable is a [Witness] that shows what it cosigned last.
type Accountable interface {
	Witness
	// Latest returns the newest checkpoint of a log that the witness cosigned
	// (c2sp.org/tlog-witness), of which nothing is believed.
	Latest(ctx context.Context, origin string) ([]byte, error)
}

// showTimeout is how long a witness that contradicts a head has to show what it has seen:
// one that does not must not hold up what the others answer.
const showTimeout = 2 * time.Second

// contradicted returns what a witness that refused the head shows against it, signed by
// the log itself: a larger head, or one that this one does not extend. Everybody can say
// that there is such a head.
func (v *View) contradicted(ctx context.Context, p *Policy, witnesses []Witness, reports []WitnessReport) error {
	ctx, cancel := context.WithTimeout(ctx, showTimeout)
	defer cancel()
	found := make([]error, len(witnesses))
	var wg sync.WaitGroup
	for i, w := range witnesses {
		said := reports[i].Err
		if a, ok := w.(Accountable); ok && (errors.Is(said, ErrRollback) || errors.Is(said, ErrFork)) {
			wg.Go(func() { found[i] = v.shownBy(ctx, p, a) })
		}
	}
	wg.Wait()
	return errors.Join(found...)
}

// shownBy returns what the newest checkpoint of a witness proves against the head; nil if
// it proves nothing.
func (v *View) shownBy(ctx context.Context, p *Policy, w Accountable) error {
	signed, err := w.Latest(ctx, v.head.Origin)
	if err != nil {
		return nil
	}
	seen, err := verifyCheckpoint(p.KeyOnly(), signed)
	if err != nil {
		return nil
	}
	if err := v.Extends(ctx, seen); errors.Is(err, ErrRollback) || errors.Is(err, ErrFork) {
		return fmt.Errorf("witness %s: %w", w.Name(), err)
	}
	return nil
}
