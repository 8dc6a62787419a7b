package segments

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// deletedFile lists what was deleted: a line for each block, its digest in
// hexadecimal, the segment and offset before which copies of it do not count, and
// the CRC-32C of the line up to there.
const deletedFile = "deleted"

const deletedFormat = "%s %08d %019d"

func formatDeleted(d digest, at spot) string {
	line := fmt.Sprintf(deletedFormat, hex.EncodeToString(d[:]), at.segment, at.offset)
	return fmt.Sprintf("%s %08x\n", line, crc32.Checksum([]byte(line), castagnoli))
}

// parseDeleted reads a line; only what formatDeleted writes is one.
func parseDeleted(line string) (d digest, at spot, ok bool) {
	var h string
	if _, err := fmt.Sscanf(line, deletedFormat, &h, &at.segment, &at.offset); err != nil {
		return d, at, false
	}
	if n, err := hex.Decode(d[:], []byte(h[:min(len(h), 2*len(d))])); err != nil || n != len(d) {
		return d, at, false
	}
	return d, at, line == formatDeleted(d, at)
}

// readDeleted reads the list. A line that is damaged counts for nothing: better that
// something is back than that something else is gone.
func readDeleted(dir string) (map[digest]spot, []Damage, error) {
	deleted := map[digest]spot{}
	data, err := os.ReadFile(filepath.Join(dir, deletedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return deleted, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var damage []Damage
	off := int64(0)
	for line := range strings.Lines(string(data)) {
		if d, at, ok := parseDeleted(line); ok {
			deleted[d] = at
		} else {
			damage = append(damage, Damage{Offset: off, Bytes: int64(len(line))})
		}
		off += int64(len(line))
	}
	return deleted, damage, nil
}

// setDeleted makes the list durable and then puts it in force. The caller holds mu.
func (s *Store) setDeleted(next map[digest]spot) error {
	var b strings.Builder
	for _, d := range slices.SortedFunc(maps.Keys(next), func(a, b digest) int { return strings.Compare(string(a[:]), string(b[:])) }) {
		b.WriteString(formatDeleted(d, next[d]))
	}
	path := filepath.Join(s.dir, deletedFile)
	var err error
	if len(next) == 0 {
		err = s.disk.Remove(path)
	} else {
		err = s.disk.WriteFile(path, []byte(b.String()), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note what is deleted: %w", err)
	}
	s.deleted = next
	return nil
}

// Delete makes IPFS blocks absent, durably, until they are put again, whatever
// holds there are. Their bytes stay on disk until a Collect or an [Store.Erase].
func (s *Store) Delete(_ context.Context, cids ...cid.Cid) error {
	for _, c := range cids {
		if err := dag.CheckCID(c); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The spot must stay behind the copies that it concerns: what lies before it
	// must not be cut off by a crash and its place written to again.
	if err := s.write(); err != nil {
		return err
	}
	if err := s.active.f.Sync(); err != nil {
		return s.fail(err)
	}
	s.commit.synced = s.commit.written
	next := maps.Clone(s.deleted)
	for _, c := range cids {
		next[digestOf(c)] = spot{s.active.number, s.active.size}
	}
	return s.setDeleted(next)
}

// Erase deletes IPFS blocks and rewrites every segment that holds one of them, sealed
// ones too, and every one in which there are bytes that nothing can be read from:
// when it returns nil their bytes are in no file of the store.
//
// Other blocks that cannot be read, and have no other copy, are given up with a
// segment that holds one of those to be erased. A segment that may only hold its bytes,
// since some are unreadable, stays if such blocks are in it. Of both the error tells,
// which wraps ErrDamaged and names blocks by the CIDs of raw nodes.
func (s *Store) Erase(ctx context.Context, cids ...cid.Cid) error {
	if err := s.beginRewriting(ctx); err != nil {
		return err
	}
	defer s.endRewriting()
	if err := s.Delete(ctx, cids...); err != nil {
		return err
	}
	if err := s.roll(); err != nil {
		return err
	}
	var errs []error
	for _, seg := range s.snapshot() {
		holds, err := seg.holds(cids)
		if err == nil && (holds || s.isDamaged(seg)) {
			err = s.eraseFrom(ctx, seg, holds)
		}
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("erase from segment %d: %w", seg.number, err))
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, errUnreadable) {
			return errors.Join(errs...) // its files may still be there
		}
	}
	return errors.Join(append(errs, s.pruneDeleted())...)
}

// holds reports whether a segment has a copy of one of the blocks, by its index.
func (s *segment) holds(cids []cid.Cid) (bool, error) {
	for _, c := range cids {
		if _, _, ok, err := s.index.lookup(digestOf(c)); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// eraseFrom copies what was not deleted out of a segment and removes it. If it holds
// what is to be erased it goes whatever cannot be copied.
func (s *Store) eraseFrom(ctx context.Context, seg *segment, holds bool) error {
	lost, err := s.rewrite(ctx, seg, func(int) bool { return true }, holds)
	if err != nil || len(lost) == 0 {
		return err
	}
	if holds {
		return fmt.Errorf("%w: unreadable and given up with it: %s", ErrDamaged, named(lost))
	}
	return fmt.Errorf("%w: it stays, and may hold what is to be erased, for unreadable in it are %s", ErrDamaged, named(lost))
}

// named names blocks, the first few of them.
func named(blocks map[digest]bool) string {
	const most = 16
	var names []string
	for d := range blocks {
		if len(names) == most {
			return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), len(blocks)-most)
		}
		names = append(names, rawCID(d).String())
	}
	return strings.Join(names, ", ")
}

// isDamaged reports whether there are bytes in a segment that no block is read from.
func (s *Store) isDamaged(seg *segment) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for at := range s.bad {
		if at.segment == seg.number {
			return true
		}
	}
	return slices.ContainsFunc(s.damage, func(d Damage) bool { return !d.Torn && d.Segment == seg.number })
}

// pruneDeleted forgets deletions of which no copy is left.
func (s *Store) pruneDeleted() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[digest]spot{}
	for d, gone := range s.deleted {
		if p, ok := s.active.index[d]; ok && (spot{s.active.number, p.section()}).before(gone) {
			next[d] = gone
		}
		for _, seg := range s.closed {
			_, offset, ok, err := seg.index.lookup(d)
			if err != nil {
				return err
			}
			if ok && (spot{seg.number, offset}).before(gone) {
				next[d] = gone
			}
		}
	}
	if len(next) == len(s.deleted) {
		return nil
	}
	return s.setDeleted(next)
}
