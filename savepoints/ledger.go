package savepoints

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// ledger knows the last save point of each policy in the bank's own log and
// admits to the log only what may follow it. Guarded by Bank.taking.
type ledger struct {
	b    *Bank
	last map[entry.PolicyKey]Savepoint // without manifest
	time time.Time                     // of the newest entry
}

func newLedger(b *Bank) *ledger { return &ledger{b: b, last: map[entry.PolicyKey]Savepoint{}} }

// load reads the receipts, and finishes what a crash left between the log and
// them: an entry whose receipt is missing gets it.
func (l *ledger) load(ctx context.Context) error {
	next := int64(0)
	err := l.b.each(ctx, func(s Savepoint) (bool, error) {
		if s.Origin == l.b.own.Origin {
			l.note(s)
			next = s.LogIndex + 1
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	if next < l.b.log.Head().Size {
		if err := l.catchUp(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) catchUp(ctx context.Context, next int64) error {
	v, err := l.b.view(ctx, l.b.own)
	if err != nil {
		return err
	}
	for e, err := range v.Entries(ctx, next) {
		if err != nil {
			return err
		}
		if _, err := entry.Decode(e.Record); errors.Is(err, entry.ErrUnknownType) {
			continue
		}
		if _, err := l.receipt(ctx, v, e.Index, e.Record); err != nil {
			return fmt.Errorf("finish save point of log entry %d: %w", e.Index, err)
		}
	}
	return nil
}

// receipt writes the receipt of an entry of the own log.
func (l *ledger) receipt(ctx context.Context, v *anchor.View, index int64, record []byte) (Savepoint, error) {
	proof, err := v.Prove(ctx, index, record)
	if err != nil {
		return Savepoint{}, err
	}
	s, err := openProof(l.b.own, proof)
	if err != nil {
		return Savepoint{}, err
	}
	if s, err = l.b.withManifest(ctx, s); err != nil {
		return Savepoint{}, err
	}
	if err := l.b.keepReceipt(ctx, s); err != nil {
		return Savepoint{}, err
	}
	l.note(s)
	return s, l.b.repo.DeleteRecord(pendingKind, pendingKey(s.Entry.Policy))
}

func (l *ledger) note(s Savepoint) {
	l.last[s.Entry.Policy] = s
	if s.Entry.Time.After(l.time) {
		l.time = s.Entry.Time
	}
}

// admit is asked by the log before each append.
func (l *ledger) admit(_ anchor.Head, record []byte) error {
	e, err := entry.Decode(record)
	if err != nil {
		return err
	}
	if e.Origin != l.b.own.Origin {
		return fmt.Errorf("%w: entry says log %q, this is %q", entry.ErrContradiction, e.Origin, l.b.own.Origin)
	}
	if e.Instance != l.b.instance {
		return fmt.Errorf("%w: entry of another instance", entry.ErrContradiction)
	}
	if e.Time.Before(l.time) {
		return fmt.Errorf("%w: time %v is before the newest entry's %v", ErrConflict, e.Time, l.time)
	}
	last, ok := l.last[e.Policy]
	if !ok {
		if e.Sequence != 1 {
			return fmt.Errorf("%w: sequence %d is the policy's first", ErrConflict, e.Sequence)
		}
		return nil
	}
	if e.Epoch != last.Entry.Epoch || e.Sequence != last.Entry.Sequence+1 {
		return fmt.Errorf("%w: epoch %d, sequence %d after epoch %d, sequence %d",
			ErrConflict, e.Epoch, e.Sequence, last.Entry.Epoch, last.Entry.Sequence)
	}
	if h, was := e.Height, last.Entry.Height; h != nil && was != nil && *h <= *was {
		return fmt.Errorf("%w: height %d does not follow height %d", ErrConflict, *h, *was)
	}
	return nil
}
