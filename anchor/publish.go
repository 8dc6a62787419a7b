package anchor

import (
	"context"
	"errors"
	"fmt"
)

// Publish asks the witnesses to cosign the newest signed head and, once the log's
// policy is satisfied, makes that the published head, durably. It also refreshes the
// cosignatures of a head that was published before. Appends go on meanwhile.
//
// The error wraps ErrNoQuorum if too few witnesses answered: the head stays signed,
// and is to be published by a later call. If a witness has cosigned a larger tree
// (ErrRollback), or one that this head does not extend (ErrFork), the store is an old
// copy, or there is another writer: the log then refuses every append, with
// ErrPoisoned, for as long as it is open.
func (l *Log) Publish(ctx context.Context, witnesses []Witness) (Cosigned, error) {
	if !l.witnessed() {
		return Cosigned{Head: l.Head()}, nil
	}
	select {
	case l.publishing <- struct{}{}:
		defer func() { <-l.publishing }()
	case <-ctx.Done():
		return Cosigned{}, fmt.Errorf("publish log %s: %w", l.signer.Name(), ctx.Err())
	}
	signed, published := l.signed.Load(), l.published.Load()
	v := newView(LocalFetcher(l.store, signed.Root), signed.Head)
	out, err := v.Cosign(ctx, l.opts.Policy, witnesses, published.Size)
	if errors.Is(err, ErrRollback) || errors.Is(err, ErrFork) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.poison = err
	}
	if err != nil {
		return out, fmt.Errorf("publish log %s: %w", signed.Origin, err)
	}
	s, err := commit(context.WithoutCancel(ctx), l.store, HeadName(signed.Origin), signed.tree, out.Head, published.record)
	if err != nil {
		// The store may have it all the same, or what another Log of this process put.
		now, readErr := loadStored(context.WithoutCancel(ctx), l.store, l.policy, HeadName(signed.Origin))
		if readErr == nil && now.record != nil {
			l.published.Store(&now)
		}
		return out, fmt.Errorf("publish log %s: %w", signed.Origin, err)
	}
	l.published.Store(&s)
	out.Head = s.Head
	return out, nil
}
