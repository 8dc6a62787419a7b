package savepoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// FetchOptions says what to fetch and from where.
type FetchOptions struct {
	// Policy is the trust policy of the log that anchors the save point.
	Policy *anchor.Policy
	// Sources are asked for it: multiaddrs that end in /p2p/<id>, URLs of
	// gateways, archives (CAR files), folders of repositories.
	Sources []string
	// Progress, if not nil, is called as IPFS blocks arrive.
	Progress func(node.Progress)
	// Report, if not nil, gets a line for a person now and then.
	Report func(format string, args ...any)
}

func (o FetchOptions) report(format string, args ...any) {
	if o.Report != nil {
		o.Report(format, args...)
	}
}

// Fetch finds a save point at the sources, brings it into the repository,
// verifies every byte, and keeps it. The newest head that a source shows is
// checked against the head that the bank holds and against the other sources'
// (anchor.ErrRollback, anchor.ErrFork). A fetch that was interrupted goes on where
// it was. Errors wrap node.ErrUnreachable, node.ErrIncomplete, ErrNotFound, or say
// what did not verify.
func (b *Bank) Fetch(ctx context.Context, ref Ref, o FetchOptions) (Savepoint, error) {
	b = b.with(o.Policy)
	defer b.repo.Blocks.Hold().Release()
	archives, places, err := sortSources(o.Sources)
	if err != nil {
		return Savepoint{}, err
	}
	var reasons []error
	remotes, err := b.dial(ctx, places, o)
	defer closeAll(remotes)
	if err != nil && (len(archives) == 0 || ctx.Err() != nil) {
		return Savepoint{}, err
	}
	if err != nil {
		o.report("%v", err)
		reasons = append(reasons, err)
	}
	if len(remotes) > 0 {
		s, err := b.fetchFrom(ctx, ref, o, remotes)
		if err == nil || len(archives) == 0 || ctx.Err() != nil || mustStop(err) {
			return s, err
		}
		o.report("%v", err)
		reasons = append(reasons, err)
	}
	for _, path := range archives {
		s, err := b.fetchArchive(ctx, ref, o, path)
		if err == nil {
			return s, nil
		}
		err = fmt.Errorf("%s: %w", path, err)
		if mustStop(err) {
			return Savepoint{}, err
		}
		if len(o.Sources) > 1 {
			o.report("%v", err)
		}
		reasons = append(reasons, err)
	}
	return Savepoint{}, errors.Join(reasons...)
}

// mustStop reports whether an error is evidence against the log itself: another
// source that shows nothing of it must not make it forgotten.
func mustStop(err error) bool {
	return errors.Is(err, anchor.ErrFork) || errors.Is(err, anchor.ErrRollback)
}

// sortSources tells files from other sources.
func sortSources(sources []string) (archives, places []string, err error) {
	if len(sources) == 0 {
		return nil, nil, fmt.Errorf("%w: no source to ask", ErrUsage)
	}
	for _, s := range sources {
		switch {
		case strings.Contains(s, "://") || strings.Contains(s, "/p2p/"):
			places = append(places, s)
		default:
			st, err := os.Stat(s)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil, fmt.Errorf("%w: source: %w", ErrUsage, err)
			}
			if err != nil {
				return nil, nil, err
			}
			if st.IsDir() {
				places = append(places, s)
			} else {
				archives = append(archives, s)
			}
		}
	}
	return archives, places, nil
}

// dial prepares sources that are not files. A folder is opened as a repository. One
// of several that cannot be used is reported and left out.
func (b *Bank) dial(ctx context.Context, places []string, o FetchOptions) ([]*source, error) {
	var out []*source
	for _, place := range places {
		s, err := b.dialOne(ctx, place)
		if err != nil && len(places) == 1 {
			return out, err
		}
		if err != nil {
			o.report("source %s: %v", place, err)
			continue
		}
		out = append(out, s)
	}
	if len(out) == 0 && len(places) > 0 {
		return nil, fmt.Errorf("%w: none of the sources", node.ErrUnreachable)
	}
	return out, nil
}

// source is a place to ask, and the bank behind it if that is ours to close.
type source struct {
	*node.Remote
	bank *Bank
}

func (b *Bank) dialOne(ctx context.Context, place string) (*source, error) {
	if strings.Contains(place, "://") || strings.Contains(place, "/p2p/") {
		r, err := b.repo.Dial(place)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUsage, err)
		}
		return &source{r, nil}, nil
	}
	bank, err := Open(ctx, place)
	if err != nil {
		return nil, err
	}
	r, err := node.Local(place, bank.repo, bank.LogRoot)
	if err != nil {
		return nil, errors.Join(err, bank.Close())
	}
	return &source{r, bank}, nil
}

func closeAll(sources []*source) {
	for _, s := range sources {
		s.Close() // nothing was written through it
		if s.bank != nil {
			s.bank.Close()
		}
	}
}

func (b *Bank) fetchFrom(ctx context.Context, ref Ref, o FetchOptions, sources []*source) (Savepoint, error) {
	v, shown, good, err := b.discover(ctx, o, sources)
	if err != nil {
		return Savepoint{}, err
	}
	o.report("log %s: size %d, verified", v.Head().Origin, v.Head().Size)
	remotes := make([]*node.Remote, len(good))
	for i, s := range good {
		remotes[i] = s.Remote
	}
	s, err := b.find(ctx, v, ref, remotes, o)
	if unreadable(err) && ctx.Err() == nil {
		s, err = b.find(ctx, shown, ref, remotes, o) // the bank's copy is damaged
	}
	if err != nil {
		return Savepoint{}, err
	}
	o.report("save point %s: policy sequence %d, log entry %d, included", s.CID, s.Entry.Sequence, s.LogIndex)
	return b.fetchSavepoint(ctx, s, remotes, o.Progress)
}

// fetchSavepoint brings all IPFS blocks of a proven save point, verifies and
// keeps it. What verifying finds damaged of that which the repository held already
// is fetched again.
func (b *Bank) fetchSavepoint(ctx context.Context, s Savepoint, remotes []*node.Remote, progress func(node.Progress)) (Savepoint, error) {
	for first := true; ; first = false {
		healed := false
		total := uint64(0)
		err := b.repo.Fetch(ctx, remotes, s.CID, func(p node.Progress) {
			healed = true
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
		if err != nil {
			return Savepoint{}, err
		}
		adopted, err := b.adopt(ctx, s)
		if !errors.Is(err, dag.ErrHash) || !first && !healed {
			return adopted, err
		}
	}
}

// headTimeout bounds how long one source may take to show the head of a log.
const headTimeout = 15 * time.Second

// discover asks all sources for the head of the log at the same time, brings the
// bank's copy of the log up to the largest that can be had, and requires that all
// others are consistent with it. It returns the view of that copy, the view of the
// source it was brought from, and the sources that answered, that of the largest
// head first. If the copy cannot be read, both views are the source's.
func (b *Bank) discover(ctx context.Context, o FetchOptions, sources []*source) (v, best *anchor.View, good []*source, err error) {
	shown, reasons := b.heads(ctx, o, sources)
	var heads []anchor.Head
	for _, h := range shown {
		if best == nil {
			err := b.catchUp(ctx, h, o.Policy)
			if mustStop(err) || err != nil && ctx.Err() != nil {
				return nil, nil, nil, fmt.Errorf("%s: %w", h.source.Name, err)
			}
			if err != nil {
				o.report("source %s: %v", h.source.Name, err)
				reasons = append(reasons, fmt.Errorf("%s: %w", h.source.Name, err))
				continue
			}
			best = h.view
		}
		good, heads = append(good, h.source), append(heads, h.view.Head())
	}
	if best == nil {
		return nil, nil, nil, fmt.Errorf("no source shows a trusted head of log %s: %w", o.Policy.Origin, errors.Join(reasons...))
	}
	v, err = b.view(ctx, o.Policy)
	if unreadable(err) && ctx.Err() == nil {
		v, err = best, nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	for i, h := range heads {
		if h.Size > v.Head().Size {
			continue // of the own log: see catchUp
		}
		if err := v.Extends(ctx, h); err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", good[i].Name, err)
		}
	}
	return v, best, good, nil
}

// shownHead is a verified head and who showed it.
type shownHead struct {
	source *source
	view   *anchor.View
}

// heads returns the trusted heads that the sources show, the largest first, and
// why others are not among them.
func (b *Bank) heads(ctx context.Context, o FetchOptions, sources []*source) (shown []shownHead, reasons []error) {
	views := make([]*anchor.View, len(sources))
	errs := make([]error, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Go(func() {
			limited, cancel := context.WithTimeoutCause(ctx, headTimeout, fmt.Errorf("%w: %s: no head within %s", node.ErrUnreachable, s.Name, headTimeout))
			defer cancel()
			views[i], errs[i] = anchor.OpenView(limited, s.Log(o.Policy.Origin), o.Policy)
			if errs[i] != nil && ctx.Err() == nil && limited.Err() != nil {
				errs[i] = context.Cause(limited)
			}
		})
	}
	wg.Wait()
	for i, v := range views {
		if errs[i] != nil {
			o.report("source %s: %v", sources[i].Name, errs[i])
			reasons = append(reasons, fmt.Errorf("%s: %w", sources[i].Name, errs[i]))
			continue
		}
		shown = append(shown, shownHead{sources[i], v})
	}
	slices.SortStableFunc(shown, func(x, y shownHead) int { return cmp.Compare(y.view.Head().Size, x.view.Head().Size) })
	return shown, reasons
}

// catchUp brings the bank's copy of a log up to a head. The log that is written here
// is never moved by what somebody else shows: a head of it that is larger than the
// own one says that this repository was rolled back.
func (b *Bank) catchUp(ctx context.Context, h shownHead, p *anchor.Policy) error {
	if p.Origin != b.Origin() {
		_, err := anchor.Mirror(ctx, b.store, h.source.Log(p.Origin), p)
		return err
	}
	own, err := b.Head(ctx, p.Origin)
	if err != nil || own.Size >= h.view.Head().Size {
		return err
	}
	if err := h.view.Extends(ctx, own); err != nil {
		return err
	}
	return fmt.Errorf("%w: this repository has size %d of its own log, size %d was published: it is an old copy",
		anchor.ErrRollback, own.Size, h.view.Head().Size)
}

// find looks a save point up in a verified log and proves it. Only a reference by
// block, or by a policy whose id is private, needs manifests before the choice is made;
// they are fetched one by one.
func (b *Bank) find(ctx context.Context, v *anchor.View, ref Ref, remotes []*node.Remote, o FetchOptions) (Savepoint, error) {
	var candidates []Savepoint
	records := map[int64][]byte{}
	skipped, naming := 0, b.naming(v.Head().Origin)
	for e, err := range v.Entries(ctx, 0) {
		if err != nil {
			return Savepoint{}, err
		}
		s, err := entry.DecodeSavepoint(e.Record)
		if errors.Is(err, entry.ErrUnknownType) || errors.Is(err, entry.ErrInvalid) {
			skipped++
		}
		if err != nil {
			continue
		}
		if ref.matches(s, naming) {
			candidates = append(candidates, Savepoint{CID: s.Savepoint, Origin: v.Head().Origin, LogIndex: e.Index, Entry: s})
			records[e.Index] = e.Record
		}
	}
	if skipped > 0 {
		o.report("%d log entries are of a type that is not known here, or broken", skipped)
	}
	if !ref.CID.Defined() && ref.Sequence == 0 {
		retired, err := b.retiredIn(ctx, v)
		if err != nil {
			return Savepoint{}, err
		}
		candidates = slices.DeleteFunc(candidates, func(s Savepoint) bool { return retired[s.LogIndex] })
	}
	s, err := pick(ref, candidates, func(s Savepoint) (Savepoint, error) {
		if !ref.undecided(s.Entry, naming) {
			return s, nil
		}
		if err := b.fetchManifest(ctx, s, remotes); err != nil {
			return s, err
		}
		return b.withManifest(ctx, s)
	})
	if err != nil {
		return Savepoint{}, err
	}
	p, err := b.policy(s.Origin)
	if err != nil {
		return Savepoint{}, err
	}
	proof, err := v.Prove(ctx, s.LogIndex, records[s.LogIndex])
	if err != nil {
		return Savepoint{}, err
	}
	return openProof(p, proof)
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

// fetchArchive takes a save point out of an archive.
func (b *Bank) fetchArchive(ctx context.Context, ref Ref, o FetchOptions, path string) (Savepoint, error) {
	f, err := os.Open(path)
	if err != nil {
		return Savepoint{}, err
	}
	defer f.Close()
	s, err := b.Import(ctx, f, o.Policy, func(got dag.Received) {
		if o.Progress != nil {
			o.Progress(node.Progress{Blocks: got.Blocks, Bytes: got.Bytes, Source: path})
		}
	})
	if err != nil {
		return Savepoint{}, err
	}
	return pick(ref, slices.DeleteFunc([]Savepoint{s}, func(s Savepoint) bool { return !ref.matches(s.Entry, b.naming(s.Origin)) }),
		func(s Savepoint) (Savepoint, error) { return s, nil })
}
