package savepoints

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// archived is what the proofs in an archive show of the log, and what is known here of it.
type archived struct {
	policy *anchor.Policy
	view   *anchor.View // of the head in the save point's proof, without tiles
	last   bool         // whether the save point's entry is the newest of that head
	newest int64        // the size of the largest head that is known here
	beyond anchor.Head  // the largest of the proofs' heads that the copy held here does not extend
}

// openArchived compares the heads in the proofs of an archive, that of the save point and
// those of what was erased, with what is known of the log: the copy held here, the heads
// seen before, the floor of the policy. An archive has no tiles, so what is larger than all
// of these cannot be compared with them. The error is an anchor.ErrFork, with its evidence,
// or an anchor.ErrRollback: the head is older than the floor, and there is no copy that
// shows that it belongs to the same history.
func (b *Bank) openArchived(ctx context.Context, s Savepoint, erasures []anchor.Head) (archived, error) {
	p, err := b.policy(s.Origin)
	if err != nil {
		return archived{}, err
	}
	r, err := anchor.VerifyProof(p, s.Proof)
	if err != nil {
		return archived{}, err
	}
	v, err := anchor.OpenViewAt(ctx, noTiles{}, p.KeyOnly(), r.Head.Checkpoint)
	if err != nil {
		return archived{}, err
	}
	known, _, err := b.known(ctx, p) // verify tells of what is damaged
	if err != nil {
		return archived{}, err
	}
	a := archived{policy: p, view: v, last: r.Index == r.Head.Size-1, newest: known.size()}
	extended := false
	for i, h := range append([]anchor.Head{r.Head}, erasures...) {
		if b.ledger != nil && s.Origin == b.Origin() && b.LogError() == nil {
			if err := b.ledger.has(ctx, h); err != nil {
				return a, err
			}
		}
		has, err := known.has(ctx, p, h)
		if err != nil {
			return a, err
		}
		if i == 0 {
			extended = has
		}
		if !has && h.Size > a.beyond.Size {
			a.beyond = h
		}
	}
	if p.Floor != nil && !extended { // the copy has been compared with it
		floor := anchor.Head{Origin: p.Origin, Size: p.Floor.N, RootHash: p.Floor.Hash}
		if err := v.Extends(ctx, floor); mustStop(err) {
			return a, fmt.Errorf("floor of the trust policy: %w", err)
		}
	}
	return a, nil
}

// noTiles is a log of which nothing but its head is there.
type noTiles struct{}

func (noTiles) ReadEndpoint(_ context.Context, path string) ([]byte, error) {
	return nil, fmt.Errorf("%s: %w", path, dag.ErrNotFound)
}

// fetchArchive takes a save point out of an archive.
func (b *Bank) fetchArchive(ctx context.Context, ref Ref, o FetchOptions, path string) (Fetched, error) {
	f, err := node.OpenFile(path)
	if err != nil {
		return Fetched{}, err
	}
	defer f.Close()
	progress := func(got dag.Received) {
		if o.Progress != nil {
			o.Progress(node.Progress{Blocks: got.Blocks, Bytes: got.Bytes, Source: path})
		}
	}
	var fresh Freshness
	s, erased, err := b.importArchive(ctx, f, o.Policy, progress, func(s Savepoint, shown archived) error {
		if !ref.matches(s.Entry, b.naming(s.Origin)) {
			return fmt.Errorf("%w: %s", ErrNotFound, ref)
		}
		_, err := pick(ref, []Savepoint{s}, func(s Savepoint) (Savepoint, error) { return s, nil })
		if err != nil {
			return err
		}
		if fresh, err = b.archiveFreshness(ctx, ref, o, s, shown); err != nil {
			err = b.advise(err)
		}
		return err
	})
	return Fetched{s, fresh, erased}, err
}

// archiveFreshness says of an archive that was asked for the latest save point whether
// it is that. One that was asked for a certain save point has it, whatever came later.
func (b *Bank) archiveFreshness(ctx context.Context, ref Ref, o FetchOptions, s Savepoint, shown archived) (Freshness, error) {
	if ref.CID.Defined() || ref.Sequence > 0 {
		return FreshnessUnknown, nil
	}
	fresh, err := b.vouchArchived(ctx, o, s, shown)
	switch {
	case err == nil:
		return fresh, nil
	case errors.Is(err, anchor.ErrFork) || !o.AcceptStale && (errors.Is(err, hcs.ErrChain) || errors.Is(err, hcs.ErrDisagree)):
		return "", err
	case ctx.Err() != nil:
		return "", ctx.Err()
	case o.AcceptStale:
		return FreshnessStaleAccepted, nil
	}
	return "", fmt.Errorf("%w: the archive does not show that it is the latest: %v", anchor.ErrStale, err)
}

// vouchArchived finds out whether an archive has the newest entry of its log.
func (b *Bank) vouchArchived(ctx context.Context, o FetchOptions, s Savepoint, shown archived) (Freshness, error) {
	if size := shown.view.Head().Size; shown.newest > size {
		return "", fmt.Errorf("its log has %d entries, and %d are known here", size, shown.newest)
	}
	if !o.Policy.Quorum {
		// The newest entry of the log is not older.
		if err := withinAge(o.Policy, s.Entry.Time); err != nil || o.Policy.Topic == nil {
			return FreshnessUnknown, err
		}
	}
	t := b.readTopic(ctx, o.Policy)
	defer t.stop()
	says := t
	err := t.check(ctx, o, shown.view)
	if errors.Is(err, dag.ErrNotFound) {
		says, err = nil, nil // a smaller head: whether this one extends it is not in an archive
	}
	if err != nil {
		return "", err
	}
	fresh, err := b.vouch(ctx, o, shown.view, says)
	if err == nil && fresh != FreshnessUnknown && !shown.last {
		err = errors.New("its log has newer entries")
	}
	return fresh, err
}

// withinAge compares the age that a policy allows with the time that an entry says.
func withinAge(p *anchor.Policy, said time.Time) error {
	age := time.Since(said)
	switch {
	case p.MaxAge == 0:
		return nil
	case age < -maxAhead:
		return fmt.Errorf("%w: the newest entry of log %s says %s, which is not yet: this machine's clock may be wrong",
			anchor.ErrStale, p.Origin, said.Format(time.RFC3339))
	case age > p.MaxAge:
		return fmt.Errorf("%w: the newest entry of log %s says %s, more than the trust policy's %s ago",
			anchor.ErrStale, p.Origin, said.Format(time.RFC3339), p.MaxAge)
	}
	return nil
}
