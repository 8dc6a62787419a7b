package savepoints

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// Retire says in the log that a save point of the bank's own is no longer kept, and
// unpins it: the next collection of garbage removes what no other needs. Its entry, and
// the proof of it, remain. Others who keep it go on by their own rules. The error
// wraps ErrUsage if the save point is of another log.
func (b *Bank) Retire(ctx context.Context, s Savepoint) error {
	if b.ledger != nil && s.Origin != b.Origin() {
		return fmt.Errorf("%w: save point %s is of log %s, which is not written here; --log says that it is to be given up in this repository, without a word in a log", ErrUsage, s.CID, s.Origin)
	}
	r := &entry.Retire{Policy: s.Entry.Policy, Sequence: s.Entry.Sequence, Savepoint: s.CID}
	err := b.write(ctx, func(l *ledger) error {
		r.Common = l.common()
		r.Epoch, _ = l.history.EpochOf(r.Policy)
		if _, err := l.say(ctx, r); err != nil {
			return err
		}
		return l.settle(r)
	})
	if err != nil {
		return fmt.Errorf("retire %s: %w", s.CID, err)
	}
	return nil
}

// settle puts the receipt of what was retired aside, and unpins it. The receipt goes
// last: what is left of a crash is done again.
func (l *ledger) settle(r *entry.Retire) error {
	index, _ := l.history.Retired(r.Policy, r.Sequence)
	key := receiptKey(l.b.own.Origin, index)
	proof, err := l.b.repo.Record(receiptKind, key)
	if err != nil || proof == nil {
		return err
	}
	if err := l.b.repo.PutRecord(retiredKind, key, proof); err != nil {
		return err
	}
	if err := l.b.repo.Unpin(r.Savepoint); err != nil {
		return err
	}
	return l.b.repo.DeleteRecord(receiptKind, key)
}

// Retired returns the save points that the bank has retired, in the order of its log,
// without manifests: those are garbage.
func (b *Bank) Retired(ctx context.Context) ([]Savepoint, error) {
	var out []Savepoint
	err := b.records(ctx, retiredKind, func(s Savepoint, err error) (bool, error) {
		out = append(out, s)
		return err == nil, err
	})
	return out, err
}

// givenUp is what a log says that its writer does not keep any more, and what in it counts
// for nothing. Nobody has to look for it; what is here of it stays.
type givenUp struct {
	retired map[int64]bool // indexes of the entries of save points, and of those that break a rule
	erased  []anchor.Entry // that erase documents
}

func (b *Bank) givenUp(ctx context.Context, v *anchor.View) (givenUp, error) {
	out := givenUp{retired: map[int64]bool{}}
	_, err := readHistory(ctx, v, func(h *entry.History, e anchor.Entry, said entry.Entry, counts bool) bool {
		if !counts {
			out.retired[e.Index] = true
			return true
		}
		switch said := said.(type) {
		case *entry.Retire:
			index, _ := h.Retired(said.Policy, said.Sequence)
			out.retired[index] = true
		case *entry.Erase:
			out.erased = append(out.erased, e)
		}
		return true
	})
	return out, err
}

// Note appends a remark of the operator to the bank's own log, of at most entry.MaxNote
// bytes. It is public for ever.
func (b *Bank) Note(ctx context.Context, text string) (index int64, err error) {
	err = b.write(ctx, func(l *ledger) (err error) {
		index, err = l.say(ctx, &entry.Note{Common: l.common(), Text: text})
		return err
	})
	if errors.Is(err, entry.ErrInvalid) {
		err = fmt.Errorf("%w: %v", ErrUsage, err) // not of an entry that somebody wrote
	}
	return index, err
}

// Freeze ends the bank's own log: nothing can ever be appended after it.
func (b *Bank) Freeze(ctx context.Context) (index int64, err error) {
	err = b.write(ctx, func(l *ledger) (err error) {
		index, err = l.say(ctx, &entry.Freeze{Common: l.common()})
		return err
	})
	return index, err
}

// write runs f while nobody else writes the bank's own log.
func (b *Bank) write(ctx context.Context, f func(*ledger) error) error {
	if b.ledger == nil {
		return b.noLog()
	}
	select {
	case b.taking <- struct{}{}:
		defer func() { <-b.taking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := b.ledger.ready(ctx); err != nil {
		return err
	}
	return f(b.ledger)
}

// common is what an entry of no policy has that comes next.
func (l *ledger) common() entry.Common {
	return entry.Common{Origin: l.b.own.Origin, Instance: l.b.instance, Epoch: l.history.Epoch(), Time: l.now(time.Now)}
}

// say appends an entry of no save point.
func (l *ledger) say(ctx context.Context, e entry.Entry) (int64, error) {
	// Until the head is stored, nothing else keeps its tiles from being collected.
	defer l.b.repo.Blocks.Hold().Release()
	index, _, err := l.append(ctx, e)
	if err == nil && l.done == index {
		l.done = index + 1
	}
	return index, err
}
