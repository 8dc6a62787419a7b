package savepoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// Savepoint is a save point that a bank holds: proven to be in a log, and whose
// manifest agrees with its entry.
type Savepoint struct {
	CID      cid.Cid
	Origin   string // of the log
	LogIndex int64
	Entry    entry.Savepoint
	Manifest *dag.Manifest
	// Proof is the C2SP tlog-proof of the entry, with the entry in its extra line.
	Proof []byte
}

const (
	receiptKind = "receipts"
	// retiredKind has the proofs of what the bank retired and does not keep.
	retiredKind = "retired"
)

// receiptKey sorts receipts by log and index.
func receiptKey(origin string, index int64) string {
	return fmt.Sprintf("%s-%016d", LogID(origin)[:16], index)
}

// receiptIndex returns the index in a receipt's key; -1 if it is none.
func receiptIndex(key string) int64 {
	_, digits, _ := strings.Cut(key, "-")
	index, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return -1
	}
	return index
}

// openProof verifies a proof under a policy and reads the entry that it proves.
func openProof(p *anchor.Policy, proof []byte) (Savepoint, error) {
	r, err := anchor.VerifyProof(p, proof)
	if err != nil {
		return Savepoint{}, err
	}
	e, err := entry.DecodeSavepoint(r.Record)
	if err != nil {
		return Savepoint{}, fmt.Errorf("entry %d: %w", r.Index, err)
	}
	if e.Origin != p.Origin {
		return Savepoint{}, fmt.Errorf("%w: entry %d says log %q, it is in %q", entry.ErrContradiction, r.Index, e.Origin, p.Origin)
	}
	return Savepoint{CID: e.Savepoint, Origin: p.Origin, LogIndex: r.Index, Entry: e, Proof: proof}, nil
}

// withManifest reads the manifest and compares it with the entry.
func (b *Bank) withManifest(ctx context.Context, s Savepoint) (Savepoint, error) {
	m, err := dag.ReadManifest(ctx, b.repo.Blocks, s.CID)
	if err != nil {
		return s, err
	}
	s.Manifest = m
	if err := s.Entry.Agrees(m, s.CID, b.naming(s.Origin)); err != nil {
		return s, fmt.Errorf("save point %s: %w", s.CID, err)
	}
	return s, nil
}

// keepReceipt pins a save point that is complete and verified, and then durably
// notes that the bank holds it.
//
// Another entry at the same place of the log is a fork, whichever came first.
func (b *Bank) keepReceipt(ctx context.Context, s Savepoint) error {
	if err := b.beginKeeping(ctx); err != nil {
		return err
	}
	defer b.endKeeping()
	return b.putReceipt(ctx, s)
}

// putReceipt is keepReceipt for who has its turn.
func (b *Bank) putReceipt(ctx context.Context, s Savepoint) error {
	key := receiptKey(s.Origin, s.LogIndex)
	held, err := b.repo.Record(receiptKind, key)
	if err != nil {
		return err
	}
	if held != nil {
		p, err := b.receiptPolicy(s.Origin)
		if err != nil {
			return err
		}
		if other, err := b.openHeld(p, held); err == nil && other.LogIndex == s.LogIndex && other.CID != s.CID {
			err := &anchor.EntriesError{Origin: s.Origin, Index: s.LogIndex, Old: held, New: s.Proof}
			return fmt.Errorf("save points %s and %s: %w", other.CID, s.CID, err)
		}
	}
	if err := b.repo.Pin(ctx, s.CID, s.Manifest.Policy.ID); err != nil {
		return err
	}
	if err := b.repo.PutRecord(receiptKind, key, s.Proof); err != nil {
		return err
	}
	b.erasures.came()
	b.replicas.queue.Wake()
	return nil
}

// beginKeeping waits for its turn to change receipts and the pins that belong to them.
func (b *Bank) beginKeeping(ctx context.Context) error {
	select {
	case b.keeping <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Bank) endKeeping() { <-b.keeping }

// List returns the save points that the bank holds, of one policy or of all (""),
// in the order of their logs, oldest first. A save point that is damaged ends the
// list with an error that names it.
func (b *Bank) List(ctx context.Context, policy string) ([]Savepoint, error) {
	var out []Savepoint
	err := b.each(ctx, func(s Savepoint) (bool, error) {
		if policy == "" || (Ref{Policy: policy}).matches(s.Entry, b.naming(s.Origin)) {
			s, err := b.withManifest(ctx, s)
			if err != nil {
				return false, fmt.Errorf("%w: %s: %w", ErrDamaged, s.CID, err)
			}
			if policy == "" || s.Manifest.Policy.ID == policy {
				out = append(out, s)
			}
		}
		return true, nil
	})
	return out, err
}

// Untrusted returns how many receipts are of logs for which no trust policy is in
// force: of those nothing is listed and nothing can be said.
func (b *Bank) Untrusted() (int, error) {
	keys, err := b.repo.Records(receiptKind)
	if err != nil {
		return 0, err
	}
	known := map[string]bool{}
	for _, p := range b.Policies() {
		known[LogID(p.Origin)[:16]] = true
	}
	n := 0
	for _, key := range keys {
		if !known[key[:min(16, len(key))]] {
			n++
		}
	}
	return n, nil
}

// Receipts returns what the bank's receipts prove, in the order of List, without
// reading the manifests: also of save points that are damaged.
func (b *Bank) Receipts(ctx context.Context) ([]Savepoint, error) {
	var out []Savepoint
	err := b.each(ctx, func(s Savepoint) (bool, error) {
		out = append(out, s)
		return true, nil
	})
	return out, err
}

// each calls f for every receipt, oldest first, until it says stop. A damaged
// receipt is an error.
func (b *Bank) each(ctx context.Context, f func(Savepoint) (bool, error)) error {
	return b.receipts(ctx, func(s Savepoint, err error) (bool, error) {
		if err != nil {
			return false, err
		}
		return f(s)
	})
}

// receipts calls f for every receipt, oldest first, until f says stop. Of a damaged one f
// gets the error, and the log and the index under which it is kept.
func (b *Bank) receipts(ctx context.Context, f func(Savepoint, error) (bool, error)) error {
	return b.records(ctx, receiptKind, f)
}

// records does so for one kind of records, which hold proofs of save points.
func (b *Bank) records(ctx context.Context, kind string, f func(Savepoint, error) (bool, error)) error {
	keys, err := b.repo.Records(kind)
	if err != nil {
		return err
	}
	byPrefix := map[string]*anchor.Policy{}
	for origin := range b.policies {
		p, err := b.receiptPolicy(origin)
		if err != nil {
			return err
		}
		byPrefix[LogID(origin)[:16]] = p
	}
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		proof, err := b.repo.Record(kind, key)
		if err != nil {
			return err
		}
		p := byPrefix[key[:min(16, len(key))]]
		if p == nil {
			continue // of a log that is not trusted, or not any more
		}
		s, err := b.openHeld(p, proof)
		if err == nil && receiptKey(s.Origin, s.LogIndex) != key {
			err = fmt.Errorf("it is of entry %d", s.LogIndex)
		}
		if err != nil {
			err = fmt.Errorf("%w: receipt %s: %w", ErrDamaged, key, err)
			s = Savepoint{Origin: p.Origin, LogIndex: receiptIndex(key)}
			if p.Origin == b.Origin() {
				err = errors.Join(err, b.notWhole())
			}
		}
		if more, err := f(s, err); err != nil || !more {
			return err
		}
	}
	return nil
}

// Resolve finds a save point that the bank holds. origin says in which log; if
// it is empty there must be only one that has such a save point, not counting a log
// from which the bank's own took the policy over. The error wraps ErrNotFound,
// ErrAmbiguous or ErrDamaged.
func (b *Bank) Resolve(ctx context.Context, ref Ref, origin string) (Savepoint, error) {
	var candidates []Savepoint
	err := b.each(ctx, func(s Savepoint) (bool, error) {
		if (origin == "" || s.Origin == origin) && ref.matches(s.Entry, b.naming(s.Origin)) {
			candidates = append(candidates, s)
		}
		return true, nil
	})
	if err == nil {
		candidates, err = b.withoutPredecessors(ctx, candidates)
	}
	if err != nil {
		return Savepoint{}, err
	}
	s, err := pick(ref, candidates, func(s Savepoint) (Savepoint, error) { return b.withManifest(ctx, s) })
	if errors.Is(err, dag.ErrNotFound) || errors.Is(err, dag.ErrHash) {
		err = fmt.Errorf("%w: %s: %w", ErrDamaged, s.CID, err)
	}
	return s, err
}

// matches reports whether an entry can be what the reference means; for a
// reference by block the manifest decides, and for one by a policy whose key cannot
// be told.
func (r Ref) matches(e entry.Savepoint, n entry.Naming) bool {
	if r.CID.Defined() {
		return e.Savepoint == r.CID
	}
	key, told := n.Key(e.Instance, r.Policy)
	return (!told || e.Policy == key) && (r.Sequence == 0 || r.Sequence == e.Sequence)
}

// undecided reports whether only the manifest says that an entry which matches is what
// the reference means.
func (r Ref) undecided(e entry.Savepoint, n entry.Naming) bool {
	_, told := n.Key(e.Instance, r.Policy)
	return !r.CID.Defined() && (r.Block != "" || !told)
}

// pick chooses among candidates in the order of their logs. complete adds the
// manifest, where only that decides (see undecided). All entries of a log that name a
// policy by one key are of one policy, so one manifest speaks for them.
func pick(ref Ref, candidates []Savepoint, complete func(Savepoint) (Savepoint, error)) (Savepoint, error) {
	type named struct {
		origin string
		policy entry.PolicyKey
	}
	var found *Savepoint
	others := map[named]bool{}
	for _, s := range slices.Backward(candidates) { // newest first
		if found != nil && found.Origin == s.Origin || others[named{s.Origin, s.Entry.Policy}] {
			continue
		}
		full, err := complete(s)
		if err != nil {
			return s, err
		}
		if ref.Policy != "" && full.Manifest != nil && full.Manifest.Policy.ID != ref.Policy {
			others[named{s.Origin, s.Entry.Policy}] = true
			continue
		}
		if ref.Block != "" && !full.at(ref.Block) {
			continue
		}
		if found != nil {
			return s, fmt.Errorf("%w: %s in %q and %q", ErrAmbiguous, ref, found.Origin, s.Origin)
		}
		found = &full
	}
	if found == nil {
		return Savepoint{}, fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	return *found, nil
}

// at reports whether the save point was taken at a save-state block.
func (s Savepoint) at(tag string) bool {
	return slices.ContainsFunc(s.Manifest.Triggers, func(t dag.Trigger) bool {
		return t.Kind == dag.TriggerBlock && t.Tag == tag
	})
}

// Blocks returns the tags of the save-state blocks at which it was taken.
func (s Savepoint) Blocks() []string {
	var tags []string
	for _, t := range s.Manifest.Triggers {
		if t.Kind == dag.TriggerBlock {
			tags = append(tags, t.Tag)
		}
	}
	return tags
}

// Verify reads every byte of a save point that the bank holds and checks it: the
// proof under the trust policy, the entry in the log as far as the bank holds the
// log, the manifest against the entry, every node and document, the pin. Whatever
// is missing or wrong is an error that wraps ErrDamaged, but for documents that
// the log says are erased, as an entry proves that the bank has seen.
func (b *Bank) Verify(ctx context.Context, s Savepoint) (Verified, error) {
	v, err := b.verify(ctx, s)
	if errors.Is(err, anchor.ErrFork) {
		err = b.advise(err)
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %s: %w", ErrDamaged, s.CID, err)
	}
	return v, err
}

func (b *Bank) verify(ctx context.Context, s Savepoint) (Verified, error) {
	if err := b.verifyEntry(ctx, s); err != nil {
		return Verified{}, err
	}
	v, err := b.verifyState(ctx, b.repo.Blocks, s)
	if err != nil {
		return v, err
	}
	pinned, err := b.repo.Pinned(s.CID)
	if err == nil && !pinned {
		err = errors.New("it is not pinned")
	}
	return v, err
}

// verifyState checks all that the manifest links to.
func (b *Bank) verifyState(ctx context.Context, src dag.Source, s Savepoint) (Verified, error) {
	s, err := b.withManifest(ctx, s)
	if err != nil {
		return Verified{}, err
	}
	m := s.Manifest
	j := judge{b: b, of: s.Entry}
	t, err := dag.VerifyStateWithout(ctx, src, m.State, m.Totals, func(doc dag.Document) (bool, error) { return j.mayLack(ctx, doc) })
	v := j.found
	v.Totals = t
	if err != nil {
		return v, err
	}
	if t != m.Totals {
		return v, fmt.Errorf("%w: the manifest says %d documents of %d bytes, the state has %d of %d",
			entry.ErrContradiction, m.Totals.Documents, m.Totals.Bytes, t.Documents, t.Bytes)
	}
	for _, c := range []cid.Cid{m.Policy.Config, m.Resources} {
		if c.Defined() {
			if err := dag.ReadAll(ctx, b.repo.Blocks, c); err != nil {
				return v, err
			}
		}
	}
	return v, nil
}

// verifyEntry checks the proof, and that the newest head of the log, where the bank
// holds it, still has the entry. A copy of the log that is damaged says nothing
// against the proof: VerifyLog is what tells of it.
func (b *Bank) verifyEntry(ctx context.Context, s Savepoint) error {
	p, err := b.receiptPolicy(s.Origin)
	if err != nil {
		return err
	}
	again, err := b.openHeld(p, s.Proof)
	if err != nil {
		return err
	}
	if again.CID != s.CID {
		return fmt.Errorf("%w: the proof is of %s", entry.ErrContradiction, again.CID)
	}
	v, err := b.view(ctx, p)
	if err == nil && s.LogIndex >= v.Head().Size {
		return nil // came from an archive newer than the copy of the log
	}
	var e anchor.Entry
	if err == nil {
		e, err = v.Entry(ctx, s.LogIndex)
	}
	if errors.Is(err, ErrNotFound) || unreadable(err) && ctx.Err() == nil {
		return nil
	}
	if err != nil {
		return err
	}
	return isProven(ctx, s, v, e)
}

// isProven requires that an entry of a log is the one that the proof of a save point is of.
func isProven(ctx context.Context, s Savepoint, v *anchor.View, e anchor.Entry) error {
	_, proven, err := anchor.ProofRecord(s.Proof)
	if err != nil || string(e.Record) == string(proven) {
		return err
	}
	held, err := v.Prove(ctx, e.Index, e.Record)
	if err != nil {
		return fmt.Errorf("%w: the log holds another entry at %d than the proof", anchor.ErrFork, s.LogIndex)
	}
	return &anchor.EntriesError{Origin: s.Origin, Index: s.LogIndex, Old: held, New: s.Proof}
}

// unreadable reports whether an error says that bytes of a log are damaged or not
// there, and not that the log contradicts itself.
func unreadable(err error) bool {
	for _, e := range []error{anchor.ErrCorrupt, anchor.ErrUnavailable, dag.ErrHash, dag.ErrNotFound} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// logLimit is more than the directory of a log has: a file for every 256 entries and
// those of a few recent heads, none longer than anchor.MaxEndpointSize.
func logLimit(h anchor.Head) dag.Totals {
	files := uint64(h.Size)/128 + 1<<13
	return dag.Totals{Documents: files, Bytes: files * anchor.MaxEndpointSize}
}

// VerifyLog reads every byte of the bank's copy of a log: the tiles and directories
// of its newest head, and with them what is served to others, and the records of its
// names. A log of which the bank holds nothing passes. Other errors wrap node.ErrDamaged.
func (b *Bank) VerifyLog(ctx context.Context, origin string) error {
	p, err := b.policy(origin)
	if err != nil {
		return err
	}
	_, err = b.seen(p)
	err = errors.Join(err, b.verifyNames(p))
	h, headErr := b.copyHead(ctx, p)
	if headErr == nil {
		_, headErr = dag.VerifyState(ctx, b.repo.Blocks, h.Root, logLimit(h))
	} else if errors.Is(headErr, ErrNotFound) {
		headErr = nil
	}
	err = errors.Join(err, headErr)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: log %s: %w", node.ErrDamaged, origin, err)
	}
	return err
}
