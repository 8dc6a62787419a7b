package savepoints

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// ledger keeps the bank's own log: it knows what its entries say and admits only what
// may follow. Guarded by Bank.taking.
type ledger struct {
	b      *Bank
	signer anchor.Signer
	// more is the key that is to replace signer's, while both sign.
	more    []anchor.Signer
	log     atomic.Pointer[anchor.Log]
	broken  atomic.Pointer[error] // why the log has to be opened again, if it has
	history *entry.History        // of the first done entries
	// done is the size of the log up to which every entry that is here has its receipt.
	done int64
	// whole is the size of the log up to which an earlier open found that.
	whole int64
	// wholeCosigned is the size up to which it found that they have their cosignatures.
	wholeCosigned int64
	// cosigned is the size of the log up to which receipts have the cosignatures
	// that the trust policy demands.
	cosigned atomic.Int64
	// asked: the witnesses were asked, before the first append, whether they have
	// seen more of the log than there is here.
	asked      bool
	witnesses  []anchor.Witness
	witnessing witnessing
	topic      atomic.Pointer[LedgerStatus] // as WatchTopic found it; nil before
	// grown has a value when the log has grown.
	grown chan struct{}
}

func newLedger(b *Bank, signer anchor.Signer) *ledger {
	return &ledger{b: b, signer: signer, witnesses: witness.Clients(b.own, witness.ClientOptions{}), grown: make(chan struct{}, 1)}
}

// head is the newest signed head, if the log could be opened.
func (l *ledger) head() (anchor.Head, bool) {
	if log := l.log.Load(); log != nil {
		return log.Head(), true
	}
	return anchor.Head{}, false
}

// open opens the log anew, and reads what it holds.
func (l *ledger) open(ctx context.Context) error {
	l.history, l.done = entry.NewHistory(l.b.own.Origin), 0
	log, err := anchor.Open(ctx, l.b.store, l.signer, anchor.Options{Admit: l.admit, Policy: l.b.own, Published: l.b.publishedSize(), More: l.more})
	l.log.Store(log)
	if errors.Is(err, anchor.ErrUnavailable) {
		// Tiles of the own log are nowhere else to be asked for.
		err = fmt.Errorf("%w: %w", node.ErrDamaged, err)
	}
	if err == nil {
		err = l.load(ctx)
	}
	return l.failed(err)
}

// failed notes why the log has to be opened again before it is used; nil if it has not.
func (l *ledger) failed(err error) error {
	l.broken.Store(&err)
	return err
}

// err is what failed was given last. It waits for nothing.
func (l *ledger) err() error {
	if err := l.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// ready opens the log if that failed before, and finishes what an earlier take left
// undone after its entry was in the log.
func (l *ledger) ready(ctx context.Context) error {
	if l.err() != nil {
		if err := l.open(ctx); err != nil {
			return err
		}
	}
	if err := l.ask(ctx); err != nil {
		return err
	}
	if err := l.finish(ctx, nil); err != nil {
		return err
	}
	return l.takeOver(ctx)
}

// append adds an entry to the log and returns its index and its record. An error may
// leave open which head is on disk, as a full disk in the wrong moment does: the next
// take reads it again.
func (l *ledger) append(ctx context.Context, e entry.Entry) (int64, []byte, error) {
	record, err := entry.Encode(e)
	if err != nil {
		return 0, nil, err
	}
	index, _, err := l.log.Load().Append(ctx, record)
	if err == nil {
		if err = l.history.Add(index, e); err != nil {
			err = fmt.Errorf("entry %d: %w", index, err)
		}
	}
	if errors.Is(err, ErrConflict) {
		return 0, nil, err // refused, and nothing has happened
	}
	l.failed(err)
	select {
	case l.grown <- struct{}{}:
	default: // somebody is to look already
	}
	return index, record, err
}

// finish reads the entries from done on. It gives each its receipt that has none and is
// not in held, and sees to it that what was retired is, and that it is known what was erased.
func (l *ledger) finish(ctx context.Context, held map[int64]bool) error {
	h, _ := l.head()
	size := h.Size
	l.uncosigned(size)
	if l.done >= size {
		return nil
	}
	v, err := l.b.view(ctx, l.b.own)
	if err != nil {
		return err
	}
	var lost, erased []anchor.Entry
	var retired []*entry.Retire
	for e, err := range v.Entries(ctx, l.done) {
		if err != nil {
			return err
		}
		said, err := entry.Decode(e.Record)
		if err != nil || l.history.Add(e.Index, said) != nil {
			continue // of a type not known here, or broken: it counts for nothing
		}
		switch said := said.(type) {
		case *entry.Savepoint:
			if e.Index >= l.whole && !held[e.Index] {
				lost = append(lost, e)
			}
		case *entry.Retire:
			if e.Index >= l.whole {
				retired = append(retired, said)
			}
		case *entry.Erase:
			erased = append(erased, e)
		}
	}
	for _, e := range erased {
		if err := l.b.keepErasure(ctx, v, e); err != nil {
			return fmt.Errorf("finish erasing by log entry %d: %w", e.Index, err)
		}
	}
	for _, e := range lost {
		if err := l.regain(ctx, v, e); err != nil {
			return fmt.Errorf("finish save point of log entry %d: %w", e.Index, err)
		}
	}
	for _, r := range retired {
		if err := l.settle(r); err != nil {
			return fmt.Errorf("finish retiring %s: %w", r.Savepoint, err)
		}
	}
	l.done = size
	return nil
}

// uncosigned notes that the receipt at an index may have no cosignatures.
func (l *ledger) uncosigned(index int64) { l.cosigned.Store(min(l.cosigned.Load(), index)) }

// regain writes the receipt of a save point that has none. One whose IPFS blocks are not
// here gets none: the repository came from an old backup, perhaps, or the log was begun
// by another host. Fetching the save point brings the receipt.
func (l *ledger) regain(ctx context.Context, v *anchor.View, e anchor.Entry) error {
	s, err := entry.DecodeSavepoint(e.Record)
	if err != nil {
		return err
	}
	if _, retired := l.history.Retired(s.Policy, s.Sequence); retired {
		proof, err := v.Prove(ctx, e.Index, e.Record)
		if err != nil {
			return err
		}
		return l.b.repo.PutRecord(retiredKind, receiptKey(s.Origin, e.Index), proof)
	}
	here, err := l.b.repo.Blocks.Has(ctx, s.Savepoint)
	if err != nil || !here {
		return err
	}
	l.uncosigned(e.Index)
	_, err = l.receipt(ctx, v, e.Index, e.Record)
	if errors.Is(err, dag.ErrNotFound) {
		return nil
	}
	return err
}

// receipt writes the receipt of an entry of the own log.
func (l *ledger) receipt(ctx context.Context, v *anchor.View, index int64, record []byte) (Savepoint, error) {
	proof, err := v.Prove(ctx, index, record)
	if err != nil {
		return Savepoint{}, err
	}
	s, err := openProof(l.b.own.KeyOnly(), proof)
	if err != nil {
		return Savepoint{}, err
	}
	if s, err = l.b.withManifest(ctx, s); err != nil {
		return Savepoint{}, err
	}
	if err := l.b.keepReceipt(ctx, s); err != nil {
		return Savepoint{}, err
	}
	return s, l.b.repo.DeleteRecord(pendingKind, pendingKey(s.Entry.Policy))
}

// savepoint returns a save point of the own log, with its receipt if it has one here.
func (l *ledger) savepoint(a *entry.Anchored) (Savepoint, error) {
	s := Savepoint{CID: a.Entry.Savepoint, Origin: l.b.own.Origin, LogIndex: a.Index, Entry: a.Entry}
	proof, err := l.b.repo.Record(receiptKind, receiptKey(s.Origin, s.LogIndex))
	s.Proof = proof
	return s, err
}

// admit is asked by the log before each append.
func (l *ledger) admit(_ anchor.Head, record []byte) error {
	e, err := entry.Decode(record)
	if err != nil {
		return err
	}
	return l.check(e)
}

// check reports whether an entry may come next in the bank's own log.
func (l *ledger) check(e entry.Entry) error {
	if c := e.Base(); c.Instance != l.b.instance {
		return fmt.Errorf("%w: entry of another instance", entry.ErrContradiction)
	}
	if err := l.history.Check(e); errors.Is(err, entry.ErrFrozen) {
		return frozenError{l.b.own.Origin}
	} else if err != nil {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return nil
}

// now is the time of an entry that is made now: a clock that went back must not make
// time do so.
func (l *ledger) now(clock func() time.Time) time.Time {
	t := clock().UTC()
	if newest := l.history.Time(); t.Before(newest) {
		return newest
	}
	return t
}
