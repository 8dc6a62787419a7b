package segments

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs/go-cid"
)

// deletedFile lists what was deleted: a line for each block, its digest in
// hexadecimal and the segment and offset before which copies of it do not count.
const deletedFile = "deleted"

const deletedFormat = "%s %08d %019d\n"

func readDeleted(dir string) (map[digest]spot, error) {
	deleted := map[digest]spot{}
	data, err := os.ReadFile(filepath.Join(dir, deletedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return deleted, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		var h string
		var at spot
		if _, err := fmt.Sscanf(line, deletedFormat, &h, &at.segment, &at.offset); err != nil {
			return nil, fmt.Errorf("%w: file %s: %w", ErrDamaged, deletedFile, err)
		}
		raw, err := hex.DecodeString(h)
		if err != nil || len(raw) != len(digest{}) {
			return nil, fmt.Errorf("%w: file %s: %q", ErrDamaged, deletedFile, h)
		}
		deleted[digest(raw)] = at
	}
	return deleted, nil
}

// setDeleted makes the list durable and then puts it in force. The caller holds mu.
func (s *Store) setDeleted(next map[digest]spot) error {
	var b strings.Builder
	for _, d := range slices.SortedFunc(maps.Keys(next), func(a, b digest) int { return strings.Compare(string(a[:]), string(b[:])) }) {
		fmt.Fprintf(&b, deletedFormat, hex.EncodeToString(d[:]), next[d].segment, next[d].offset)
	}
	path := filepath.Join(s.dir, deletedFile)
	err := durable.Remove(path)
	if len(next) > 0 {
		err = durable.WriteFile(path, []byte(b.String()), 0o600)
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
// ones too: when it returns their bytes are in no file of the store.
func (s *Store) Erase(ctx context.Context, cids ...cid.Cid) error {
	s.rewriting.Lock()
	defer s.rewriting.Unlock()
	if err := s.Delete(ctx, cids...); err != nil {
		return err
	}
	if err := s.roll(); err != nil {
		return err
	}
	for _, seg := range s.snapshot() {
		holds := false
		for _, c := range cids {
			_, _, ok, err := seg.index.lookup(digestOf(c))
			if err != nil {
				return err
			}
			holds = holds || ok
		}
		if !holds {
			continue
		}
		if _, err := s.rewrite(ctx, seg, func(int) bool { return true }); err != nil {
			return fmt.Errorf("erase from segment %d: %w", seg.number, err)
		}
	}
	return s.pruneDeleted()
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
