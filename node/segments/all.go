package segments

import (
	"bytes"
	"context"
	"iter"
	"slices"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// All returns the CIDs of all IPFS blocks that the store held when it was called and
// still holds when their turn comes, sorted by hash. Their codec is raw, whatever
// they were put as: the store finds blocks by their hash. It takes 32 bytes of
// memory a block.
func (s *Store) All(ctx context.Context) iter.Seq2[cid.Cid, error] {
	return func(yield func(cid.Cid, error) bool) {
		all, err := s.digests()
		if err != nil {
			yield(cid.Undef, err)
			return
		}
		for _, d := range all {
			if err := ctx.Err(); err != nil {
				yield(cid.Undef, err)
				return
			}
			s.files.RLock()
			at, err := s.find(d, false)
			s.files.RUnlock()
			if at == nil && err == nil {
				continue // deleted or damaged
			}
			if !yield(rawCID(d), err) || err != nil {
				return
			}
		}
	}
}

// digests returns what the indexes hold, sorted, each once.
func (s *Store) digests() ([]digest, error) {
	s.files.RLock()
	defer s.files.RUnlock()
	s.mu.RLock()
	if s.active == nil {
		s.mu.RUnlock()
		return nil, errClosed
	}
	closed := s.closed
	var all []digest
	for d := range s.active.index {
		all = append(all, d)
	}
	for d := range s.active.waiting {
		all = append(all, d)
	}
	s.mu.RUnlock()
	for _, seg := range closed {
		rows, err := seg.index.all()
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			all = append(all, r.digest)
		}
	}
	slices.SortFunc(all, func(a, b digest) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(all), nil
}

func rawCID(d digest) cid.Cid {
	h, err := mh.Encode(d[:], mh.SHA2_256)
	if err != nil {
		panic(err) // only for a digest of another length
	}
	return cid.NewCidV1(cid.Raw, h)
}
