package anchor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Entry is a record and its place in the log.
type Entry struct {
	Index  int64 // from 0
	Record []byte
}

// View is a log as one verified head shows it. All that is read through it is
// proven to be in the tree of that head. It is safe for concurrent use.
//
// Errors wrap ErrCorrupt if what was read does not match the head,
// ErrUnavailable if it could not be read, or the context's error.
type View struct {
	head  Head
	tiles *tileReader
}

// OpenView fetches the checkpoint from f and verifies it under p. The error wraps
// ErrUntrusted if p does not accept it, ErrRollback or ErrFork if it does not
// extend the floor of p, and otherwise is as described at [View].
func OpenView(ctx context.Context, f Fetcher, p *Policy) (*View, error) {
	signed, err := fetch(ctx, f, checkpointPath, MaxCheckpointSize)
	if err != nil {
		return nil, err
	}
	return OpenViewAt(ctx, f, p, signed)
}

// OpenViewAt is [OpenView] with a checkpoint that the caller has: f, whose own head may
// be another, must have the tiles of it.
func OpenViewAt(ctx context.Context, f Fetcher, p *Policy, checkpoint []byte) (*View, error) {
	h, err := verifyCheckpoint(p, checkpoint)
	if err != nil {
		return nil, err
	}
	if local, ok := f.(localFetcher); ok {
		h.Root = local.root
	}
	v := newView(f, h)
	if err := v.checkFloor(ctx, p); err != nil {
		return nil, err
	}
	return v, nil
}

func newView(f Fetcher, h Head) *View { return &View{head: h, tiles: &tileReader{f: f}} }

func (v *View) checkFloor(ctx context.Context, p *Policy) error {
	if p.Floor == nil {
		return nil
	}
	err := v.Extends(ctx, Head{Origin: p.Origin, Size: p.Floor.N, RootHash: p.Floor.Hash})
	if err != nil {
		return fmt.Errorf("floor of the trust policy: %w", err)
	}
	return nil
}

// Head returns the verified head.
func (v *View) Head() Head { return v.head }

// SignedAlone returns the view of the same head with the signature of p's key as the only
// one: what is left when the log's other key, and the witnesses, are not there. The error
// wraps ErrUntrusted if that key has not signed it.
func (v *View) SignedAlone(p *Policy) (*View, error) {
	n, err := note.Open(v.head.Checkpoint, note.VerifierList(p.key))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	alone := *v
	alone.head.Checkpoint = []byte(n.Text + "\n" + signatureLine(n.Sigs[0]))
	return &alone, nil
}

func (v *View) hashes(ctx context.Context) tlog.HashReader {
	return torchwood.TileHashReaderWithContext(ctx, v.head.tree(), v.tiles)
}

func (v *View) client() (*torchwood.Client, error) {
	return torchwood.NewClient(v.tiles, torchwood.WithCutEntry(cutEntry))
}

// cutEntry takes the next record from a bundle.
func cutEntry(bundle []byte) (record []byte, hash tlog.Hash, rest []byte, err error) {
	record, rest, err = torchwood.ReadTileEntry(bundle)
	if err == nil && len(record) > MaxRecordSize {
		err = fmt.Errorf("%w: %d bytes, more than %d", ErrRecordSize, len(record), MaxRecordSize)
	}
	return record, tlog.RecordHash(record), rest, err
}

// Entries returns the entries from index start to the end of the log, in order.
// An error ends the sequence. Bundles are fetched ahead, up to 50 at a time; for
// a single record use [View.Entry].
func (v *View) Entries(ctx context.Context, start int64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if start < 0 || start > v.head.Size {
			yield(Entry{}, fmt.Errorf("%w: entries from %d of a log of %d", ErrNotIncluded, start, v.head.Size))
			return
		}
		c, err := v.client()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		next := start
		if next < v.head.Size {
			for i, record := range c.AllEntries(ctx, v.head.tree(), start) {
				next = i + 1
				if !yield(Entry{i, bytes.Clone(record)}, nil) {
					return
				}
			}
		}
		err = c.Err()
		if next < v.head.Size && ctx.Err() != nil {
			err = ctx.Err()
		} else if next < v.head.Size && err == nil {
			err = fmt.Errorf("entries end at %d", next)
		} else if errors.Is(err, context.DeadlineExceeded) { // of the client, not of ctx
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("entry %d: %w", next, verification(err)))
		}
	}
}

// Entry returns one entry. The error wraps ErrNotIncluded if the log has none at
// this index.
func (v *View) Entry(ctx context.Context, index int64) (Entry, error) {
	if index < 0 || index >= v.head.Size {
		return Entry{}, fmt.Errorf("%w: entry %d of a log of %d", ErrNotIncluded, index, v.head.Size)
	}
	c, err := v.client()
	if err != nil {
		return Entry{}, err
	}
	record, _, err := c.Entry(ctx, v.head.tree(), index)
	if err != nil {
		return Entry{}, fmt.Errorf("entry %d: %w", index, verification(err))
	}
	return Entry{index, bytes.Clone(record)}, nil
}

// Extends checks by a consistency proof (RFC 6962, section 2.1.2) that the log
// of this head begins with exactly the records of old, a head verified before.
// The error is a *[RollbackError] if old is the larger one, and a *[ForkError]
// if the two contradict each other.
func (v *View) Extends(ctx context.Context, old Head) error {
	h := v.head
	switch {
	case old.Origin != h.Origin:
		return fmt.Errorf("%w: heads of two logs, %q and %q", ErrUntrusted, old.Origin, h.Origin)
	case old.Size > h.Size:
		return &RollbackError{Old: old, New: h}
	case old.tree() == h.tree():
		return nil
	case old.Size == h.Size:
		return &ForkError{Old: old, New: h, Root: h.RootHash}
	case old.Size == 0 && old.RootHash == emptyRoot():
		return nil
	case old.Size == 0:
		return &ForkError{Old: old, New: h, Root: emptyRoot()}
	}
	hashes := v.hashes(ctx)
	// From here on the hashes are proven to be of h's tree: what does not fit
	// then is old, not a tile.
	proof, err := tlog.ProveTree(h.Size, old.Size, hashes)
	if err != nil {
		return fmt.Errorf("consistency with size %d: %w", old.Size, verification(err))
	}
	if tlog.CheckTree(proof, h.Size, h.RootHash, old.Size, old.RootHash) == nil {
		return nil
	}
	root, err := tlog.TreeHash(old.Size, hashes)
	if err != nil {
		return fmt.Errorf("consistency with size %d: %w", old.Size, verification(err))
	}
	return &ForkError{Old: old, New: h, Root: root, Proof: proof}
}

// Succeeds is [View.Extends] of the head of another view, whose tiles decide where this
// head is the smaller one: a *[ForkError] then says that it was never a head of the other
// log, a *[RollbackError] that it is an older one.
func (v *View) Succeeds(ctx context.Context, held *View) error {
	err := v.Extends(ctx, held.head)
	if errors.Is(err, ErrRollback) {
		if forkErr := held.Extends(ctx, v.head); errors.Is(forkErr, ErrFork) {
			return forkErr
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}
