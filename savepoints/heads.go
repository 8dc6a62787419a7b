package savepoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

// headTimeout bounds how long one source may take to show the head of a log.
const headTimeout = 15 * time.Second

// shownHead is a verified head and who showed it.
type shownHead struct {
	source *source
	root   cid.Cid // the log root among the sources that it is of, if it is of one
	view   *anchor.View
	prefix anchor.Fetcher
}

// heads returns the trusted heads that the sources show, the largest first, and
// why others are not among them: in all the ways in which a source was asked.
func (b *Bank) heads(ctx context.Context, o FetchOptions, sources []*source) (shown []shownHead, reasons []error) {
	found := make([][]shownHead, len(sources))
	errs := make([]error, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Go(func() {
			limited, cancel := context.WithTimeoutCause(ctx, headTimeout, fmt.Errorf("%w: %s: no head within %s", node.ErrUnreachable, s.Name, headTimeout))
			defer cancel()
			found[i], errs[i] = b.headsOf(limited, s, o)
			if errs[i] != nil && ctx.Err() == nil && limited.Err() != nil {
				errs[i] = context.Cause(limited)
			}
		})
	}
	wg.Wait()
	for i, heads := range found {
		s, err := sources[i], errs[i]
		s.err, s.logless = nil, false
		if err != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", s.Name, err))
		}
		if err != nil && len(heads) == 0 {
			s.err, s.logless = err, node.Answered(err)
			o.report("source %s: %v", s.Name, err)
		}
		shown = append(shown, heads...)
	}
	slices.SortStableFunc(shown, func(x, y shownHead) int { return cmp.Compare(y.view.Head().Size, x.view.Head().Size) })
	return shown, reasons
}

// headsOf asks one source for the log, and for what the log's names and the log roots
// among the sources stand for. A name is only a hint where to look: it is followed if it
// speaks of a larger log than what the source shows by itself. Only where nothing of this
// is found the source may be a tlog-tiles prefix itself.
func (b *Bank) headsOf(ctx context.Context, s *source, o FetchOptions) ([]shownHead, error) {
	var roots []shownHead
	var rootsErr error
	var asking sync.WaitGroup
	asking.Go(func() { s.names = b.readNames(ctx, s, o.names()) })
	asking.Go(func() { roots, rootsErr = rootsOf(ctx, s, o) })
	prefix, isURL := s.Prefix()
	log := s.Log(o.Policy.Origin)
	if s.bare {
		log = prefix
	}
	h, err := s.open(ctx, log, o.Policy)
	asking.Wait()
	var out []shownHead
	if err == nil {
		out = append(out, h)
	}
	for _, name := range o.names() {
		n, ok := s.names[name]
		root, rootErr := n.Root()
		if !ok || rootErr != nil || len(out) > 0 && nameSize(n) <= out[0].view.Head().Size {
			continue
		}
		if h, nameErr := s.open(ctx, s.LogAt(root), o.Policy); nameErr == nil {
			out = append(out, h)
		} else if err != nil {
			err = errors.Join(err, nameErr)
		}
	}
	out = append(out, roots...)
	if isURL && !s.bare && len(out) == 0 && errors.Is(err, dag.ErrNotFound) {
		h, prefixErr := s.open(ctx, prefix, o.Policy)
		if prefixErr == nil {
			s.bare = true
			return []shownHead{h}, nil
		}
		err = errors.Join(err, prefixErr)
	}
	return out, errors.Join(err, rootsErr)
}

// open reads the head in a prefix at the source.
func (s *source) open(ctx context.Context, f anchor.Fetcher, p *anchor.Policy) (shownHead, error) {
	m := &memo{f: f}
	v, err := anchor.OpenView(ctx, m, p)
	return shownHead{source: s, view: v, prefix: m}, err
}

// errBare: a source has the log's files, and neither names nor IPFS blocks.
var errBare = fmt.Errorf("%w: it is a tlog-tiles prefix", dag.ErrNotFound)

// readNames returns the newest valid records of names, those that the source has and those
// that the repository holds. Where there is nothing but the log's files nobody can be asked
// what they stand for.
func (b *Bank) readNames(ctx context.Context, s *source, names []string) map[string]node.Name {
	var mu sync.Mutex
	var asking sync.WaitGroup
	records := map[string]node.Name{}
	if s.bare {
		return records
	}
	for _, name := range names {
		asking.Go(func() {
			n, err := s.ReadName(ctx, name)
			if held, heldErr := b.repo.Name(name); heldErr == nil && (err != nil || held.Sequence > n.Sequence) {
				n, err = held, nil
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				records[name] = n
			}
		})
	}
	asking.Wait()
	return records
}

// rootsOf reads the heads of the log roots among the sources that a source has.
func rootsOf(ctx context.Context, s *source, o FetchOptions) ([]shownHead, error) {
	roots, err := o.roots()
	var out []shownHead
	for _, root := range roots {
		rootErr := errBare
		var signed []byte
		if !s.bare {
			signed, rootErr = s.headAt(ctx, root)
		}
		if rootErr == nil {
			m := &memo{f: s.LogAt(root)}
			var v *anchor.View
			if v, rootErr = anchor.OpenViewAt(ctx, m, o.Policy, signed); rootErr == nil {
				m.hold("checkpoint", signed)
				out = append(out, shownHead{s, root, v, m})
				continue
			}
		}
		err = errors.Join(err, fmt.Errorf("log root %s: %w", root, rootErr))
	}
	return out, err
}

// memo reads each file of a tlog-tiles prefix once. What was read first stays, right or
// wrong: a source gets one try.
type memo struct {
	f    anchor.Fetcher
	mu   sync.Mutex
	held map[string][]byte
	size int
}

// memoLimit is how many bytes a memo holds: the right edge and some bundles.
const memoLimit = 4 << 20

func (m *memo) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	m.mu.Lock()
	data, ok := m.held[path]
	m.mu.Unlock()
	if ok {
		return data, nil
	}
	data, err := m.f.ReadEndpoint(ctx, path)
	if err == nil {
		m.hold(path, data)
	}
	return data, err
}

func (m *memo) hold(path string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.size+len(data) > memoLimit {
		return
	}
	if m.held == nil {
		m.held = map[string][]byte{}
	}
	m.held[path] = data
	m.size += len(data)
}
