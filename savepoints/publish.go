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
	// What is put is kept by nothing until the head is stored that names it.
	hold := b.repo.Blocks.Hold()
	out, err := log.Publish(ctx, b.ledger.witnesses)
	hold.Release()
	b.ledger.witnessing.note(out.Reports)
	if mustStop(err) {
		err = b.ledger.stop(err)
	}
	if err != nil || !b.own.Quorum {
		return out, err
	}
	for more := true; more && err == nil; {
		more, err = b.cosignSome(ctx, out.Head)
	}
	return out, err
}

// cosignBatch is how many receipts are made anew while takes wait.
const cosignBatch = 64

// cosignSome makes some of the receipts anew that the head covers and that have no
// cosignatures, and reports whether there are more.
func (b *Bank) cosignSome(ctx context.Context, h anchor.Head) (more bool, err error) {
	select {
	case b.taking <- struct{}{}:
		defer func() { <-b.taking }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	l := b.ledger
	if l.cosigned.Load() >= h.Size {
		return false, nil
	}
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(b.store, h.Root), b.own)
	if err != nil {
		return false, err
	}
	defer b.replicas.queue.Wake() // what others believe from now on can be brought to them
	made := 0
	for e, err := range v.Entries(ctx, l.cosigned.Load()) {
		if err != nil {
			return false, err
		}
		if made == cosignBatch {
			return true, nil
		}
		if err := l.cosign(ctx, v, e); err != nil {
			return false, err
		}
		made++
		l.cosigned.Store(e.Index + 1)
	}
	return false, l.noteCosigned()
}

// cosign makes the receipt of an entry anew, if it is that of a save point that is here.
func (l *ledger) cosign(ctx context.Context, v *anchor.View, e anchor.Entry) error {
	if _, err := entry.DecodeSavepoint(e.Record); err != nil {
		return nil
	}
	key := receiptKey(l.b.own.Origin, e.Index)
	held, err := l.b.repo.Record(receiptKind, key)
	if err != nil || held == nil {
		return err
	}
	proof, err := v.Prove(ctx, e.Index, e.Record)
	if err != nil {
		return err
	}
	return l.b.repo.PutRecord(receiptKind, key, proof)
}

// publishWithin publishes, again and again if witnesses are not reached, until the
// published head holds an entry, or the time is over.
func (b *Bank) publishWithin(ctx context.Context, index int64, d time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for pause := publishRetry / 10; ; pause = min(2*pause, publishRetry) {
		_, err := b.Publish(limited)
		if b.witnessed(index) && !mustStop(err) {
			return nil // whatever else is to be done: the next round does it
		}
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
