package savepoints

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// FetchOptions says what to fetch and from where.
type FetchOptions struct {
	// Policy is the trust policy of the log that anchors the save point.
	Policy *anchor.Policy
	// Sources are asked for it, beside those that the policy names.
	//
	//   - a multiaddr that ends in /p2p/<id>: a libp2p peer
	//   - a URL (http, https): a gateway, or else a tlog-tiles prefix (c2sp.org/tlog-tiles)
	//   - a folder, or its file: URL: a repository, or else a tlog-tiles prefix
	//   - a file: an archive (CAR)
	//   - /ipns/<name>, /ipfs/<log root>: the log there, for which the others are asked.
	//     What is found must extend the head of each log root: it is a floor.
	//
	// A tlog-tiles prefix has the log alone: save points come from other sources.
	Sources []string
	// AcceptStale takes a log that may not be the newest, where the policy demands to
	// know. The result says so.
	AcceptStale bool
	// Witnesses are asked whether the head is the newest; those of the policy if nil.
	Witnesses []anchor.Witness
	// Progress, if not nil, is called as IPFS blocks arrive.
	Progress func(node.Progress)
	// Report, if not nil, gets a line for a person now and then.
	Report func(format string, args ...any)
}

// Fetched is a save point that came from others.
type Fetched struct {
	Savepoint
	// Freshness says whether the log that anchors it was known to be the newest one.
	Freshness Freshness
	// Erased is the part of it that is not here, since its log says that it was erased.
	Erased dag.Totals
}

func (o FetchOptions) report(format string, args ...any) {
	if o.Report != nil {
		o.Report(format, args...)
	}
}

// progress passes on how far it is, and tells a person of sources that are dropped.
func (o FetchOptions) progress(p node.Progress) {
	switch {
	case p.Dropped != nil:
		o.report("source %s is not asked any more: %v", p.Source, p.Dropped)
	case o.Progress != nil:
		o.Progress(p)
	}
}

// Fetch finds a save point at the sources, brings it into the repository,
// verifies every byte, and keeps it. The log is found as at [Bank.Discover], whose
// outcomes it has. A fetch that was interrupted goes on where
// it was. What no source has is not asked for any more if the log says that it was erased:
// only then is all of the log read. Errors wrap node.ErrUnreachable, node.ErrIncomplete, ErrNotFound, or say
// what did not verify.
//
// Archives are read where the other sources do not have the save point, and as long as any of
// it is missing because it was erased. One that is asked
// for the latest save point is held to the policy's witnesses and max-age, and to what the
// bank has seen of the log: where it does not show that it is the latest the outcome is
// anchor.ErrStale, unless AcceptStale. What is refused is not kept.
func (b *Bank) Fetch(ctx context.Context, ref Ref, o FetchOptions) (Fetched, error) {
	b = b.with(o.Policy)
	defer b.repo.Blocks.Hold().Release()
	archives, sources, err := b.gather(ctx, o)
	defer closeAll(sources)
	var reasons []error
	if err != nil && (len(archives) == 0 || ctx.Err() != nil) {
		return Fetched{}, err
	}
	if err != nil {
		o.report("%v", err)
		reasons = append(reasons, err)
	}
	var got *Fetched
	if len(sources) > 0 {
		f, err := b.fetchFrom(ctx, ref, o, sources)
		if err == nil {
			got = &f
		} else if len(archives) == 0 || ctx.Err() != nil || mustStop(err) {
			return f, err
		} else {
			o.report("%v", err)
			reasons = append(reasons, err)
		}
	}
	for _, path := range archives {
		if got != nil && got.Erased.Documents == 0 {
			break
		}
		if got != nil {
			ref = Ref{CID: got.CID} // who was not told to erase may have what is missing
		}
		f, err := b.fetchArchive(ctx, ref, o, path)
		if err == nil {
			if got != nil {
				f.Freshness = got.Freshness
			}
			got = &f
			continue
		}
		err = fmt.Errorf("%s: %w", path, err)
		if mustStop(err) || got != nil && ctx.Err() != nil {
			return Fetched{}, err
		}
		if len(o.Sources) > 1 {
			o.report("%v", err)
		}
		reasons = append(reasons, err)
	}
	if got == nil {
		return Fetched{}, errors.Join(reasons...)
	}
	if got.Erased.Documents > 0 {
		o.report("%d documents of it were erased, as the log says, and no source has them", got.Erased.Documents)
	}
	return *got, nil
}

// mustStop reports whether an error is evidence against the log itself: another
// source that shows nothing of it must not make it forgotten.
func mustStop(err error) bool {
	return errors.Is(err, anchor.ErrFork) || errors.Is(err, anchor.ErrRollback)
}

func (b *Bank) fetchFrom(ctx context.Context, ref Ref, o FetchOptions, sources []*source) (Fetched, error) {
	d, err := b.discover(ctx, o, sources)
	if err != nil {
		return Fetched{}, err
	}
	o.report("log %s: size %d, verified: %s", d.Head.Origin, d.Head.Size, d.Freshness.Words())
	from := remotes(d.sources)
	v := d.view
	s, err := b.find(ctx, v, ref, from, o)
	if unreadable(err) && ctx.Err() == nil {
		v = d.shown // the bank's copy is damaged
		s, err = b.find(ctx, v, ref, from, o)
	}
	if err != nil {
		return Fetched{}, err
	}
	o.report("save point %s: policy sequence %d, log entry %d, included", s.CID, s.Entry.Sequence, s.LogIndex)
	f, err := b.fetchSavepoint(ctx, s, v, from, o.progress)
	f.Freshness = d.Freshness
	return f, err
}

// fetched is the bank's store, of which some IPFS blocks have just arrived.
type fetched struct {
	*segments.Store
	*node.Arrived
}

var _ dag.Checked = fetched{}

// fetchSavepoint brings all IPFS blocks of a proven save point, verifies and
// keeps it. What verifying finds damaged of that which the repository held already
// is fetched again. What is missing in the end may be what the log erased; v, if not nil,
// is the log to ask about it.
func (b *Bank) fetchSavepoint(ctx context.Context, s Savepoint, v *anchor.View, remotes []*node.Remote, progress func(node.Progress)) (Fetched, error) {
	src := fetched{b.repo.Blocks, new(node.Arrived)}
	for first := true; ; first = false {
		healed := false
		total := uint64(0)
		err := b.repo.FetchNoting(ctx, remotes, s.CID, src.Arrived, func(p node.Progress) {
			healed = healed || p.Dropped == nil
			if progress == nil {
				return
			}
			if total == 0 { // the manifest is the first that comes
				if m, err := dag.ReadManifest(ctx, b.repo.Blocks, s.CID); err == nil {
					total = m.Totals.Bytes
				}
			}
			p.Total = total
			progress(p)
		})
		if errors.Is(err, node.ErrIncomplete) {
			if erased, logErr := b.onlyErased(ctx, v, s); erased {
				err = nil
			} else if ctx.Err() != nil {
				err = errors.Join(err, logErr)
			}
		}
		if err != nil {
			return Fetched{}, err
		}
		adopted, erased, err := b.adopt(ctx, src, s, func(Savepoint) error { return nil })
		if !errors.Is(err, dag.ErrHash) || !first && !healed {
			return Fetched{Savepoint: adopted, Erased: erased}, err
		}
	}
}

// find looks for a save point from the end of a verified log, and proves it. Only a
// reference by block, or by a policy whose key cannot be told, needs manifests before
// the choice is made; they are fetched one by one. What was retired is the newest of
// nothing.
func (b *Bank) find(ctx context.Context, v *anchor.View, ref Ref, remotes []*node.Remote, o FetchOptions) (Savepoint, error) {
	f := finding{b: b, v: v, ref: ref, remotes: remotes, naming: b.naming(v.Head().Origin), retired: map[retiredEntry]bool{}, others: map[entry.PolicyKey]bool{}}
	for n := (v.Head().Size - 1) / anchor.BundleWidth; n >= 0 && v.Head().Size > 0; n-- {
		entries, err := v.Bundle(ctx, n)
		if err != nil {
			return Savepoint{}, err
		}
		inForce := f.inForce(entries)
		if len(inForce) < len(entries) {
			o.report("%d log entries follow the one that ends the log, and count for nothing", v.Head().Size-inForce[len(inForce)-1].Index-1)
		}
		for _, e := range slices.Backward(inForce) {
			found, ok, err := f.look(ctx, e)
			if err != nil || ok {
				return found, err
			}
		}
	}
	if f.skipped > 0 {
		o.report("%d log entries are of a type that is not known here, or broken", f.skipped)
	}
	return Savepoint{}, fmt.Errorf("%w: %s", ErrNotFound, ref)
}

// finding is a find in progress.
type finding struct {
	b       *Bank
	v       *anchor.View
	ref     Ref
	remotes []*node.Remote
	naming  entry.Naming
	skipped int
	retired map[retiredEntry]bool    // said by later entries
	others  map[entry.PolicyKey]bool // of other policies than the reference's
}

// retiredEntry is what an entry that retires a save point says of it.
type retiredEntry struct {
	policy    entry.PolicyKey
	sequence  uint64
	savepoint cid.Cid
}

// inForce leaves out what follows a freeze among entries that were read, or was read before
// them, further on in the log: it counts for nothing. The other rules of a log need
// all of it.
func (f *finding) inForce(entries []anchor.Entry) []anchor.Entry {
	for i, e := range entries {
		said, err := entry.Decode(e.Record)
		if _, ok := said.(*entry.Freeze); err == nil && ok && said.Base().Origin == f.v.Head().Origin {
			clear(f.retired)
			return entries[:i+1]
		}
	}
	return entries
}

// look reports whether an entry is what is looked for, and proves it.
func (f *finding) look(ctx context.Context, e anchor.Entry) (Savepoint, bool, error) {
	said, err := entry.Decode(e.Record)
	if err != nil {
		f.skipped++ // of a type not known here, or broken
		return Savepoint{}, false, nil
	}
	switch said := said.(type) {
	case *entry.Retire:
		f.retired[retiredEntry{said.Policy, said.Sequence, said.Savepoint}] = true
	case *entry.Savepoint:
		newest := !f.ref.CID.Defined() && f.ref.Sequence == 0
		if !f.ref.matches(*said, f.naming) || f.others[said.Policy] ||
			newest && f.retired[retiredEntry{said.Policy, said.Sequence, said.Savepoint}] {
			break
		}
		return f.prove(ctx, e)
	}
	return Savepoint{}, false, nil
}

// prove proves an entry that a reference can mean, and reports whether it does.
func (f *finding) prove(ctx context.Context, e anchor.Entry) (Savepoint, bool, error) {
	p, err := f.b.receiptPolicy(f.v.Head().Origin)
	if err != nil {
		return Savepoint{}, false, err
	}
	proof, err := f.v.Prove(ctx, e.Index, e.Record)
	if err != nil {
		return Savepoint{}, false, err
	}
	s, err := openProof(p, proof)
	if err != nil || !f.ref.undecided(s.Entry, f.naming) {
		return s, err == nil, err
	}
	if err := f.b.fetchManifest(ctx, s, f.remotes); err != nil {
		return s, false, err
	}
	if s, err = f.b.withManifest(ctx, s); err != nil {
		return s, false, err
	}
	if s.Manifest.Policy.ID != f.ref.Policy {
		f.others[s.Entry.Policy] = true
		return s, false, nil
	}
	return s, f.ref.Block == "" || s.at(f.ref.Block), nil
}

func (b *Bank) fetchManifest(ctx context.Context, s Savepoint, remotes []*node.Remote) error {
	_, err := b.repo.Blocks.Get(ctx, s.CID)
	if !errors.Is(err, dag.ErrNotFound) && !errors.Is(err, dag.ErrHash) {
		return err
	}
	var errs []error
	for _, r := range remotes {
		data, err := r.Block(ctx, s.CID)
		if err == nil {
			return b.repo.Blocks.Put(ctx, dag.Block{CID: s.CID, Data: data})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
