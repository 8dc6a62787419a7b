package savepoints

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

const (
	// publishRetry and publishRetryMax are the first and the longest pause before
	// witnesses that were not enough are asked again.
	publishRetry    = time.Second
	publishRetryMax = 5 * time.Minute
	// publishTimeout bounds one round of asking all witnesses.
	publishTimeout = 30 * time.Second
	// cosignEvery is how often the published head is cosigned anew although the log
	// has not grown, so that readers see that it is still the newest.
	cosignEvery = time.Hour
)

// Publish has the newest head of the bank's own log cosigned by the witnesses of its
// trust policy, after which others believe it, and brings the receipts of the save
// points that it holds up to that. Where the policy has no quorum every head is
// published as it is signed. Errors are those of [anchor.Log.Publish]; the reports say
// what became of each witness.
func (b *Bank) Publish(ctx context.Context) (anchor.Cosigned, error) {
	if b.ledger == nil {
		return anchor.Cosigned{}, fmt.Errorf("publish: %w", ErrNoLogKey)
	}
	log := b.ledger.log.Load()
	if log == nil {
		return anchor.Cosigned{}, fmt.Errorf("publish: %w", b.LogError())
	}
	out, err := log.Publish(ctx, b.ledger.witnesses)
	b.ledger.witnessing.note(out.Reports)
	if err != nil || !b.own.Quorum {
		return out, err
	}
	select {
	case b.taking <- struct{}{}:
		defer func() { <-b.taking }()
	case <-ctx.Done():
		return out, ctx.Err()
	}
	return out, b.ledger.cosign(ctx, out.Head)
}

// cosign makes the receipts anew that the head covers and that have no cosignatures.
func (l *ledger) cosign(ctx context.Context, h anchor.Head) error {
	if l.cosigned.Load() >= h.Size {
		return nil
	}
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(l.b.store, h.Root), l.b.own)
	if err != nil {
		return err
	}
	for e, err := range v.Entries(ctx, l.cosigned.Load()) {
		if err != nil {
			return err
		}
		if _, err := entry.DecodeSavepoint(e.Record); err != nil {
			continue
		}
		key := receiptKey(l.b.own.Origin, e.Index)
		held, err := l.b.repo.Record(receiptKind, key)
		if err != nil {
			return err
		}
		if held == nil {
			continue // the save point is not here
		}
		proof, err := v.Prove(ctx, e.Index, e.Record)
		if err != nil {
			return err
		}
		if err := l.b.repo.PutRecord(receiptKind, key, proof); err != nil {
			return err
		}
	}
	l.cosigned.Store(h.Size)
	return nil
}

// publishWithin publishes, again and again if witnesses are not reached, until the
// time is over.
func (b *Bank) publishWithin(ctx context.Context, d time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for pause := publishRetry / 10; ; pause = min(2*pause, publishRetry) {
		_, err := b.Publish(limited)
		if err == nil || ctx.Err() != nil || !errors.Is(err, anchor.ErrNoQuorum) && limited.Err() == nil {
			return errors.Join(err, ctx.Err())
		}
		select {
		case <-time.After(pause):
		case <-limited.Done():
			return fmt.Errorf("%w within %s: %w", anchor.ErrNoQuorum, d, err)
		}
	}
}

// witnessed reports whether the published head of the own log holds an entry.
func (b *Bank) witnessed(index int64) bool {
	if !b.own.Quorum {
		return false
	}
	log := b.ledger.log.Load()
	if log == nil {
		return false
	}
	h, ok := log.Published()
	return ok && index < h.Size
}

// KeepPublished publishes the bank's own log whenever it has grown, and once an hour
// all the same, until ctx ends: witnesses are asked, and the log's IPNS name is made to
// stand for the newest published head. It is for a process that keeps the repository open.
// failed, if not nil, is called with what went wrong, once for the same trouble; it is
// tried again.
func (b *Bank) KeepPublished(ctx context.Context, failed func(error)) {
	if b.ledger == nil {
		return
	}
	pause, last := publishRetry, ""
	for {
		limited, cancel := context.WithTimeout(ctx, publishTimeout)
		_, err := b.Publish(limited)
		err = errors.Join(err, b.publishName(limited))
		cancel()
		if ctx.Err() != nil {
			return
		}
		wait := cosignEvery
		if err != nil {
			if failed != nil && err.Error() != last {
				failed(err)
			}
			last = err.Error()
			wait, pause = pause, min(2*pause, publishRetryMax)
		} else {
			pause, last = publishRetry, ""
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-b.ledger.grown:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}
