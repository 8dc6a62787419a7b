package savepoints

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// ErrErased: documents whose bytes are gone on purpose, as their log says.
var ErrErased = errors.New("erased")

// erasureKind has the proofs of the entries that erase documents, of all logs of which the
// bank has read them: tlog-proofs with the entry in the extra line, by receiptKey. So what
// is missing of a save point can be judged without the log.
const erasureKind = "erasures"

// Verified is what was checked of a save point.
type Verified struct {
	dag.Totals // of the state, as the manifest says
	// Erased is the part of them that is not here, since the log says that it was erased.
	Erased dag.Totals
	// Without are the CIDs of the documents that make it up.
	Without map[cid.Cid]bool
}

// openErasure verifies a proof under a policy and reads the entry that it proves.
func openErasure(p *anchor.Policy, proof []byte) (*entry.Erase, int64, error) {
	r, err := anchor.VerifyProof(p, proof)
	if err != nil {
		return nil, 0, err
	}
	e, err := erasureOf(p, r)
	return e, r.Index, err
}

// erasureOf reads the entry of a log that was proven.
func erasureOf(p *anchor.Policy, r anchor.ProofResult) (*entry.Erase, error) {
	said, err := entry.Decode(r.Record)
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", r.Index, err)
	}
	e, ok := said.(*entry.Erase)
	if !ok || e.Origin != p.Origin {
		return nil, fmt.Errorf("%w: entry %d erases nothing in log %q", entry.ErrContradiction, r.Index, p.Origin)
	}
	return e, nil
}

// openHeldErasure is openErasure of a proof that was kept before: p may have been another
// then.
func (b *Bank) openHeldErasure(p *anchor.Policy, proof []byte) (*entry.Erase, int64, error) {
	said, index, err := openErasure(p, proof)
	for _, e := range b.earlier[p.Origin] {
		if err == nil {
			break
		}
		if then, at, thenErr := openErasure(e, proof); thenErr == nil {
			said, index, err = then, at, nil
		}
	}
	return said, index, err
}

// keepErasure proves an entry that erases documents, unless the bank has its proof.
func (b *Bank) keepErasure(ctx context.Context, v *anchor.View, e anchor.Entry) error {
	p, err := b.receiptPolicy(v.Head().Origin)
	if err != nil {
		return err
	}
	held, err := b.repo.Record(erasureKind, receiptKey(p.Origin, e.Index))
	if err != nil {
		return err
	}
	if _, index, err := openErasure(p, held); err == nil && index == e.Index {
		return nil
	}
	proof, err := v.Prove(ctx, e.Index, e.Record)
	if err != nil {
		return err
	}
	return b.putErasure(p, proof)
}

// putErasure keeps the proof of an entry that erases documents, if it is one.
func (b *Bank) putErasure(p *anchor.Policy, proof []byte) error {
	said, index, err := openErasure(p, proof)
	if err != nil {
		return err
	}
	if err := b.repo.PutRecord(erasureKind, receiptKey(p.Origin, index), proof); err != nil {
		return err
	}
	b.erasures.add(p.Origin, said.Documents)
	return nil
}

// erased returns the documents that a log, which is of one instance, says are erased, as far
// as the bank knows, each with the key of the record that proves it. A damaged record proves
// nothing, nor does the entry of another instance, which breaks the log's rules.
func (b *Bank) erased(ctx context.Context, origin string, instance [16]byte) (map[cid.Cid]string, error) {
	keys, err := b.repo.Records(erasureKind)
	if err != nil {
		return nil, err
	}
	out := map[cid.Cid]string{}
	for _, key := range keys {
		if !strings.HasPrefix(key, LogID(origin)[:16]) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		said, err := b.heldErasure(origin, key)
		if err != nil {
			return nil, err
		}
		if said == nil || said.Instance != instance {
			continue
		}
		for _, c := range said.Documents {
			out[c] = key
		}
	}
	return out, nil
}

// heldErasure returns the entry that a record proves, nil if it proves none. What was
// verified under the policy is not verified again.
func (b *Bank) heldErasure(origin, key string) (*entry.Erase, error) {
	p, err := b.receiptPolicy(origin)
	if err != nil {
		return nil, err
	}
	proof, err := b.repo.Record(erasureKind, key)
	if err != nil {
		return nil, err
	}
	as := verifiedAs{b.policies[origin], sha256.Sum256(proof)}
	if said := b.erasures.verified(key, as); said != nil {
		return said, nil
	}
	said, index, err := b.openHeldErasure(p, proof)
	if err != nil || receiptKey(origin, index) != key {
		return nil, nil
	}
	b.erasures.setVerified(key, as, said)
	return said, nil
}

// ErasedUnknown is a count of erased documents that could not be made.
const ErasedUnknown = math.MaxUint64

// CountErased returns how many documents of each of some save points their logs say are
// erased, as far as the bank knows, whether their bytes are here or not. Where nothing was
// erased it costs next to nothing, else all directories are read, those once that save
// points have in common. The error says why some counts are ErasedUnknown, such as a
// damaged directory; the others hold. There are none if it is the context's.
func (b *Bank) CountErased(ctx context.Context, list []Savepoint) ([]uint64, error) {
	out := make([]uint64, len(list))
	type log struct {
		origin   string
		instance [16]byte
	}
	byLog := map[log][]int{}
	for i, s := range list {
		of := log{s.Origin, s.Entry.Instance}
		byLog[of] = append(byLog[of], i)
	}
	var errs []error
	for of, indexes := range byLog {
		documents := map[cid.Cid]bool{}
		erased, err := b.erased(ctx, of.origin, of.instance)
		for c := range erased {
			documents[c] = true
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("count erased documents: %w", err))
		}
		count := func(indexes ...int) error {
			var roots []cid.Cid
			for _, i := range indexes {
				roots = append(roots, list[i].Manifest.State)
			}
			counts, err := dag.Occurrences(ctx, b.repo.Blocks, documents, roots)
			for j, i := range indexes {
				if out[i] = ErasedUnknown; err == nil {
					out[i] = counts[j]
				}
			}
			return err
		}
		switch {
		case err != nil:
			for _, i := range indexes {
				out[i] = ErasedUnknown
			}
			continue
		case len(documents) == 0 || count(indexes...) == nil:
			continue
		}
		for _, i := range indexes { // to know which of them cannot be read
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err := count(i); err != nil {
				errs = append(errs, fmt.Errorf("count erased documents of %s: %w", list[i].CID, err))
			}
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return out, errors.Join(errs...)
}

// Returned returns how many documents at paths of a save point the bank's own log says are
// erased, and are here all the same: they came back with it, or something else keeps them.
func (b *Bank) Returned(ctx context.Context, s Savepoint) (uint64, error) {
	if b.own == nil {
		return 0, nil
	}
	erased, err := b.erased(ctx, b.Origin(), b.instance)
	if err != nil || len(erased) == 0 {
		return 0, err
	}
	here := map[cid.Cid]bool{}
	for c := range erased {
		missing, err := dag.Missing(ctx, b.repo.Blocks, c)
		if err != nil {
			return 0, err
		}
		if len(missing) == 0 {
			here[c] = true
		}
	}
	counts, err := dag.Occurrences(ctx, b.repo.Blocks, here, []cid.Cid{s.Manifest.State})
	if err != nil {
		return 0, fmt.Errorf("count erased documents: %w", err)
	}
	return counts[0], nil
}

// judge says which documents of a save point may be missing, and notes those that are.
type judge struct {
	b      *Bank
	of     entry.Savepoint
	erased map[cid.Cid]string // nil until something is missing
	found  Verified
}

func (j *judge) mayLack(ctx context.Context, doc dag.Document) (bool, error) {
	if j.erased == nil {
		var err error
		if j.erased, err = j.b.erased(ctx, j.of.Origin, j.of.Instance); err != nil {
			return false, err
		}
		j.found.Without = map[cid.Cid]bool{}
	}
	if j.erased[doc.Link.CID] == "" {
		return false, nil
	}
	j.found.Erased.Documents++
	j.found.Erased.Bytes += doc.Bytes
	j.found.Without[doc.Link.CID] = true
	return true, nil
}

// gaps returns the IPFS blocks that a save point lacks, if they all are parts of documents
// that its log says are erased, with the keys of the records that prove it; false if some
// are not. Documents that share a block with an erased one are for verifyState to judge.
func (b *Bank) gaps(ctx context.Context, s Savepoint) (missing []cid.Cid, records []string, ok bool, err error) {
	found, err := dag.Missing(ctx, b.repo.Blocks, s.CID)
	if err != nil || len(found) == 0 {
		return nil, nil, err == nil, err
	}
	erased, err := b.erased(ctx, s.Origin, s.Entry.Instance)
	if err != nil {
		return nil, nil, false, err
	}
	keys := map[string]bool{}
	documents := map[string]string{} // by path: a large one may lack many blocks
	for _, g := range found {
		key := erased[g.CID]
		path, inState := strings.CutPrefix(g.Path(), "state/")
		if key == "" && g.CID.Type() == cid.Raw && inState {
			if _, ok := documents[path]; !ok {
				doc, err := dag.Lookup(ctx, b.repo.Blocks, s.CID, path)
				if err != nil && !errors.Is(err, dag.ErrNotFound) && !errors.Is(err, dag.ErrName) {
					return nil, nil, false, err
				}
				documents[path] = erased[doc.Link.CID]
			}
			key = documents[path]
		}
		if key == "" || g.CID.Type() != cid.Raw {
			return nil, nil, false, nil
		}
		keys[key] = true
		missing = append(missing, g.CID)
	}
	return missing, slices.Sorted(maps.Keys(keys)), true, nil
}

// onlyErased reports whether nothing of a save point is missing but what its log says is
// erased. Where that is not known here, the log is read once more, unless v is nil.
func (b *Bank) onlyErased(ctx context.Context, v *anchor.View, s Savepoint) (bool, error) {
	_, _, ok, err := b.gaps(ctx, s)
	if ok || err != nil || v == nil {
		return ok, err
	}
	given, err := b.givenUp(ctx, v)
	if err != nil {
		return false, err
	}
	if err := b.keepErasures(ctx, v, given); err != nil || len(given.erased) == 0 {
		return false, err
	}
	_, _, ok, err = b.gaps(ctx, s)
	return ok, err
}

// keepErasures keeps the proofs of what a log says is erased. Those that it kept before are
// not looked at again.
func (b *Bank) keepErasures(ctx context.Context, v *anchor.View, given givenUp) error {
	origin := v.Head().Origin
	kept := b.erasures.keptUpTo(b.policies[origin])
	for _, e := range given.erased {
		if e.Index < kept {
			continue
		}
		if err := b.keepErasure(ctx, v, e); err != nil {
			return fmt.Errorf("log entry %d: %w", e.Index, err)
		}
	}
	if n := len(given.erased); n > 0 {
		b.erasures.setKept(b.policies[origin], given.erased[n-1].Index+1)
	}
	return nil
}
