package savepoints

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

const (
	seenKind = "seen"
	// archivedKind has the largest head of a log that came with an archive. It has a place of
	// its own: without tiles nobody can tell whether it extends the one of seenKind, which it
	// must not make forgotten.
	archivedKind = "archived"
)

// seen is what was accepted of a log here without a copy of the log being kept: heads that
// later ones must extend.
type seen struct {
	// shown is the largest that a source showed; without a checkpoint if none did.
	shown anchor.Head
	// archived is the largest that came with an archive since then; likewise.
	archived anchor.Head
	// record is what archived was read from, also if it is damaged.
	record []byte
}

// heads returns those there are.
func (s seen) heads() []anchor.Head {
	var out []anchor.Head
	for _, h := range []anchor.Head{s.shown, s.archived} {
		if h.Checkpoint != nil {
			out = append(out, h)
		}
	}
	return out
}

// largest returns the larger one; without a checkpoint if there is none.
func (s seen) largest() anchor.Head {
	if s.archived.Checkpoint != nil && s.archived.Size >= s.shown.Size {
		return s.archived
	}
	return s.shown
}

// seen returns what it can read of what was accepted of a log. The error wraps ErrDamaged if
// that is not all, or is the store's own.
func (b *Bank) seen(p *anchor.Policy) (seen, error) {
	var s seen
	id := LogID(p.Origin)
	shown, err := b.repo.Record(seenKind, id)
	if err == nil {
		s.record, err = b.repo.Record(archivedKind, id)
	}
	if err != nil {
		return seen{}, err
	}
	read := func(h *anchor.Head, signed []byte) error {
		if signed == nil {
			return nil
		}
		var err error
		if *h, err = b.headThen(p, signed); err != nil {
			return fmt.Errorf("%w: head of log %s that was seen before: %w", ErrDamaged, p.Origin, err)
		}
		return nil
	}
	return s, errors.Join(read(&s.shown, shown), read(&s.archived, s.record))
}

// remember keeps a head as the one that a source showed, in place of one that cannot be read
// or is smaller. Of what was seen it has been compared with compared, which it extends.
func (b *Bank) remember(p *anchor.Policy, h anchor.Head, compared seen) error {
	b.seeing.Lock()
	defer b.seeing.Unlock()
	now, err := b.seen(p)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	if now.shown.Checkpoint == nil || h.Size > now.shown.Size {
		if err := b.repo.PutRecord(seenKind, LogID(h.Origin), h.Checkpoint); err != nil {
			return err
		}
	}
	if now.record == nil || string(now.record) != string(compared.record) {
		return nil // nothing, or another archive came meanwhile
	}
	return b.repo.DeleteRecord(archivedKind, LogID(h.Origin))
}

// rememberArchived keeps the largest of the heads that came with an archive, unless the copy
// of the log extends them all. The log that is written here is compared otherwise. The error
// is an anchor.ErrFork if another archive came meanwhile that contradicts it.
func (b *Bank) rememberArchived(ctx context.Context, a archived) error {
	if a.beyond.Checkpoint == nil || a.policy.Origin == b.Origin() {
		return nil
	}
	b.seeing.Lock()
	defer b.seeing.Unlock()
	now, err := b.seen(a.policy)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	if now.archived.Checkpoint != nil && now.archived.Size == a.beyond.Size {
		v, err := anchor.OpenViewAt(ctx, noTiles{}, a.policy.KeyOnly(), a.beyond.Checkpoint)
		if err == nil {
			err = b.advise(v.Extends(ctx, now.archived))
		}
		return err
	}
	if now.archived.Checkpoint != nil && now.archived.Size > a.beyond.Size {
		return nil
	}
	return b.repo.PutRecord(archivedKind, LogID(a.policy.Origin), a.beyond.Checkpoint)
}

// known is what was accepted of a log here before.
type known struct {
	copied *anchor.View // nil if there is no copy that can be read
	seen   seen
}

// known returns what it can read of that. damage says that a head seen is not readable:
// whoever reads the log goes on without it, as nobody could mend it otherwise.
func (b *Bank) known(ctx context.Context, p *anchor.Policy) (_ known, damage, err error) {
	before, damage := b.seen(p)
	if damage != nil && !errors.Is(damage, ErrDamaged) {
		return known{}, nil, damage
	}
	v, err := b.view(ctx, p)
	if err != nil && !errors.Is(err, ErrNotFound) && !unreadable(err) {
		return known{}, nil, err
	}
	return known{v, before}, damage, nil
}

func (k known) size() int64 {
	size := k.seen.largest().Size
	if k.copied == nil {
		return size
	}
	return max(size, k.copied.Head().Size)
}

// damaged returns what was seen as it is to be replaced where it cannot be read.
func (k known) damaged() seen {
	s := k.seen
	if s.archived.Checkpoint != nil {
		s.record = nil // it stays
	}
	return s
}

// grownFrom reports whether the copy is larger than a head that was no less than what was
// known before.
func (k known) grownFrom(size, before int64) bool {
	return k.copied != nil && before <= size && size < k.copied.Head().Size
}

// agree requires that the first of some heads, the largest, extends all others, and that
// what is known extends it or is extended by it. Where the copy has as much, no source is
// asked for anything.
func (k known) agree(ctx context.Context, shown []shownHead) error {
	best := shown[0].view
	newest := best
	if k.copied != nil && k.copied.Head().Size >= best.Head().Size {
		newest = k.copied
	}
	for _, h := range shown {
		if err := newest.Extends(ctx, h.view.Head()); err != nil {
			return &sourceError{h.source.Name, err}
		}
	}
	for _, h := range k.seen.heads() {
		if newest != best && h.Size <= best.Head().Size {
			continue
		}
		if err := best.Extends(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// has reports whether the copy extends a head that came without tiles. The error is an
// anchor.ErrFork if it contradicts what is known; of heads that are smaller than all that
// only the copy can say that.
func (k known) has(ctx context.Context, p *anchor.Policy, h anchor.Head) (bool, error) {
	v, err := anchor.OpenViewAt(ctx, noTiles{}, p.KeyOnly(), h.Checkpoint)
	if err != nil {
		return false, err
	}
	for _, old := range k.seen.heads() {
		if old.Size > h.Size {
			continue
		}
		if err := v.Extends(ctx, old); mustStop(err) {
			return false, err
		}
	}
	if k.copied == nil {
		return false, nil
	}
	err = k.copied.Extends(ctx, h)
	if errors.Is(err, anchor.ErrRollback) || unreadable(err) && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}
