package savepoints

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// ledger keeps the bank's own log: it knows the last save point of each policy in
// it and admits only what may follow. Guarded by Bank.taking.
type ledger struct {
	b      *Bank
	signer anchor.Signer
	log    atomic.Pointer[anchor.Log]
	err    error                         // why the log has to be opened again, if it has
	last   map[entry.PolicyKey]Savepoint // without manifest
	high   map[entry.PolicyKey]Savepoint // the last one that has a height
	time   time.Time                     // of the newest entry
	// done is the size of the log up to which every entry has its receipt.
	done int64
	// cosigned is the size of the log up to which receipts have the cosignatures
	// that the trust policy demands.
	cosigned int64
	// asked: the witnesses were asked, before the first append, whether they have
	// seen more of the log than there is here.
	asked     bool
	witnesses []anchor.Witness
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
	l.last, l.high, l.time, l.done = map[entry.PolicyKey]Savepoint{}, map[entry.PolicyKey]Savepoint{}, time.Time{}, 0
	var log *anchor.Log
	log, l.err = anchor.Open(ctx, l.b.store, l.signer, anchor.Options{Admit: l.admit, Policy: l.b.own, Published: l.b.publishedSize()})
	l.log.Store(log)
	if errors.Is(l.err, anchor.ErrUnavailable) {
		// Tiles of the own log are nowhere else to be asked for.
		l.err = fmt.Errorf("%w: %w", node.ErrDamaged, l.err)
	}
	if l.err == nil {
		l.err = l.load(ctx)
	}
	return l.err
}

// ready opens the log if that failed before, and finishes what an earlier take left
// undone after its entry was in the log.
func (l *ledger) ready(ctx context.Context) error {
	if l.err != nil {
		if err := l.open(ctx); err != nil {
			return err
		}
	}
	if err := l.ask(ctx); err != nil {
		return err
	}
	return l.finish(ctx, nil)
}

// askTimeout bounds how long the first append waits for witnesses that may have seen
// more of the log: one that does not answer keeps nobody from saving.
const askTimeout = 2 * time.Second

// ask refuses to sign if a witness, or a place that the trust policy names, says that
// this repository is an old copy.
func (l *ledger) ask(ctx context.Context) error {
	if l.asked {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := l.b.askMirrors(limited); err != nil {
		l.err = err
		return err
	}
	if !l.b.own.Quorum {
		l.asked = ctx.Err() == nil
		return ctx.Err()
	}
	_, err := l.log.Load().Publish(limited, l.witnesses)
	if mustStop(err) {
		l.err = err
		return err
	}
	l.asked = err == nil
	return ctx.Err()
}

// append adds a record to the log. An error may leave open which head is on disk,
// as a full disk in the wrong moment does: the next take reads it again.
func (l *ledger) append(ctx context.Context, record []byte) (int64, error) {
	index, _, err := l.log.Load().Append(ctx, record)
	l.err = err
	select {
	case l.grown <- struct{}{}:
	default: // somebody is to look already
	}
	return index, err
}

// load reads the receipts, and finishes what a crash left between the log and
// them: an entry whose receipt is missing, or damaged, gets it.
func (l *ledger) load(ctx context.Context) error {
	held := map[int64]bool{}
	l.cosigned = math.MaxInt64
	err := l.b.receipts(ctx, func(s Savepoint, err error) (bool, error) {
		if err == nil && s.Origin == l.b.own.Origin {
			l.note(s)
			held[s.LogIndex] = true
			if _, err := openProof(l.b.own, s.Proof); err != nil {
				l.cosigned = min(l.cosigned, s.LogIndex)
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for held[l.done] {
		l.done++
	}
	return l.finish(ctx, held)
}

// finish gives every entry its receipt that has none and is not in held.
func (l *ledger) finish(ctx context.Context, held map[int64]bool) error {
	h, _ := l.head()
	size := h.Size
	l.cosigned = min(l.cosigned, size)
	if l.done >= size {
		return nil
	}
	v, err := l.b.view(ctx, l.b.own)
	if err != nil {
		return err
	}
	whole := true
	for e, err := range v.Entries(ctx, l.done) {
		if err != nil {
			return err
		}
		if held[e.Index] {
			continue
		}
		if _, err := entry.Decode(e.Record); errors.Is(err, entry.ErrUnknownType) {
			continue
		}
		_, err := l.receipt(ctx, v, e.Index, e.Record)
		if errors.Is(err, dag.ErrNotFound) {
			// Its IPFS blocks are not here: the repository came from an old
			// backup, perhaps. Fetching the save point brings the receipt.
			whole = false
			continue
		}
		if err != nil {
			return fmt.Errorf("finish save point of log entry %d: %w", e.Index, err)
		}
	}
	if whole {
		l.done = size
	}
	return nil
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
	l.note(s)
	if s, err = l.b.withManifest(ctx, s); err != nil {
		return Savepoint{}, err
	}
	if err := l.b.keepReceipt(ctx, s); err != nil {
		return Savepoint{}, err
	}
	return s, l.b.repo.DeleteRecord(pendingKind, pendingKey(s.Entry.Policy))
}

func (l *ledger) note(s Savepoint) {
	if last, ok := l.last[s.Entry.Policy]; !ok || last.LogIndex < s.LogIndex {
		l.last[s.Entry.Policy] = s
	}
	if high, ok := l.high[s.Entry.Policy]; s.Entry.Height != nil && (!ok || high.LogIndex < s.LogIndex) {
		l.high[s.Entry.Policy] = s
	}
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
	if high, ok := l.high[e.Policy]; ok && e.Height != nil && high.Entry.Epoch == e.Epoch && *e.Height <= *high.Entry.Height {
		return fmt.Errorf("%w: height %d does not follow height %d", ErrConflict, *e.Height, *high.Entry.Height)
	}
	return nil
}
