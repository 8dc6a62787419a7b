package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

const (
	// sourceTasks is how many things one source is asked for at a time.
	sourceTasks = 8
	// strangerLevels is how many levels below a node that resembles what is held
	// are fetched node by node, to find more that is held. Below that a DAG is a
	// stranger, and fetched whole.
	strangerLevels = 3
)

// task is a node that is to be fetched, and the DAG below it.
type task struct {
	cid    cid.Cid
	levels int       // see strangerLevels
	asked  []*source // had it not
}

// source is a Remote in one fetch.
type source struct {
	*Remote
	cancel  context.CancelFunc
	tasks   int   // being done
	err     error // why it is not asked any more
	refused error // the last reason why it did not have something
	// bitswap: it has no gateway. One worker then asks it for many blocks at a time.
	bitswap  bool
	swapping bool
	silent   int // see maxSilent
	got      dag.Received
}

// fetch is a fetch in progress: a queue of tasks, of which each source does some at a
// time. A task that is done adds tasks for what is missing below it.
type fetch struct {
	repo     *Repo
	progress func(Progress)
	arrived  *Arrived

	mu      sync.Mutex
	changed *sync.Cond
	sources []*source
	queue   []task
	queued  map[cid.Cid]bool
	running int
	got     dag.Received
	// unsure: something below what was held already was not looked at.
	unsure bool
	failed error // of the repository itself
}

func newFetch(r *Repo, remotes []*Remote, progress func(Progress)) *fetch {
	f := &fetch{repo: r, progress: progress}
	f.changed = sync.NewCond(&f.mu)
	for _, remote := range remotes {
		f.sources = append(f.sources, &source{Remote: remote})
	}
	return f
}

// add queues a task, once in each call of work.
func (f *fetch) add(t task) {
	if f.queued == nil {
		f.queued = map[cid.Cid]bool{}
	}
	if !f.queued[t.cid] {
		f.queued[t.cid] = true
		f.queue = append(f.queue, t)
	}
}

// received counts, and tells the caller.
func (f *fetch) received(src *source, blocks, bytes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got.Blocks += blocks
	f.got.Bytes += bytes
	src.got.Blocks += blocks
	src.got.Bytes += bytes
	if f.progress != nil {
		f.progress(f.soFar(src))
	}
}

func (f *fetch) soFar(src *source) Progress {
	return Progress{
		Blocks: f.got.Blocks, Bytes: f.got.Bytes,
		Source: src.Name, SourceBlocks: src.got.Blocks, SourceBytes: src.got.Bytes,
	}
}

// work does all tasks. It reports whether the DAG is surely complete after that.
func (f *fetch) work(ctx context.Context) (whole bool, err error) {
	f.unsure = false
	before := f.got
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	for _, src := range f.sources {
		if src.err != nil {
			continue
		}
		var limited context.Context
		limited, src.cancel = context.WithCancel(ctx)
		for range sourceTasks {
			workers.Go(func() { f.serve(ctx, limited, src) })
		}
	}
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
	workers.Wait()
	stop()
	left := f.queue
	f.queue, f.queued = nil, nil
	if f.failed != nil || ctx.Err() != nil {
		return false, errors.Join(f.failed, ctx.Err())
	}
	if len(left) > 0 && (f.got == before || f.alive() == 0) {
		return false, f.reasons(left)
	}
	return len(left) == 0 && !f.unsure, nil
}

func (f *fetch) alive() int {
	n := 0
	for _, src := range f.sources {
		if src.err == nil {
			n++
		}
	}
	return n
}

// reasons says why nobody gave what is left.
func (f *fetch) reasons(left []task) error {
	var errs []error
	for _, src := range f.sources {
		err := src.err
		if err == nil {
			err = src.refused
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", src.Name, err))
		}
	}
	if len(errs) == 0 {
		return fmt.Errorf("no source to ask for %s", left[0].cid)
	}
	return errors.Join(errs...)
}

// serve does tasks with one source until there are none, or the source is dropped,
// which ends asking.
func (f *fetch) serve(ctx, asking context.Context, src *source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if src.bitswap {
			f.swap(ctx, asking, src)
			return
		}
		t, ok := f.take(asking, src)
		if !ok {
			return
		}
		split := f.idleSource()
		f.mu.Unlock()
		next, err := f.do(ctx, asking, src, t, split)
		f.mu.Lock()
		f.running--
		src.tasks--
		f.settle(asking, src, t, next, err)
		f.changed.Broadcast()
	}
}

// take waits for a task that the source was not asked for yet. The caller holds mu.
func (f *fetch) take(ctx context.Context, src *source) (task, bool) {
	for {
		if ctx.Err() != nil || src.err != nil || f.failed != nil {
			return task{}, false
		}
		for i, t := range f.queue {
			if !slices.Contains(t.asked, src) && (src.tasks == 0 || !f.idleFor(t)) {
				f.queue = slices.Delete(f.queue, i, i+1)
				f.running++
				src.tasks++
				return t, true
			}
		}
		if f.running == 0 {
			return task{}, false
		}
		f.changed.Wait()
	}
}

// idleSource reports whether a source has nothing to do, so that a DAG should be
// fetched in parts.
func (f *fetch) idleSource() bool {
	return slices.ContainsFunc(f.sources, func(s *source) bool { return s.err == nil && s.tasks == 0 })
}

// idleFor reports whether a source that has nothing to do can be asked for a task: it
// comes before one that has.
func (f *fetch) idleFor(t task) bool {
	return slices.ContainsFunc(f.sources, func(s *source) bool {
		return s.err == nil && s.tasks == 0 && !slices.Contains(t.asked, s)
	})
}

// settle notes what became of a task.
func (f *fetch) settle(asking context.Context, src *source, t task, next []task, err error) {
	for _, n := range next {
		f.add(n)
	}
	if err == nil {
		return
	}
	var own *storeError
	if errors.As(err, &own) {
		f.failed = err
		return
	}
	if src.peer != nil && isNoGateway(err) {
		src.bitswap = true
		f.queue = append(f.queue, t)
		return
	}
	t.asked = append(t.asked, src)
	f.queue = append(f.queue, t)
	switch {
	case errors.Is(err, dag.ErrNotFound): // it may have other things
		src.refused = err
	case src.err == nil && asking.Err() == nil:
		src.err = err
		src.cancel()
		if f.progress != nil {
			p := f.soFar(src)
			p.Dropped = err
			f.progress(p)
		}
	}
}

// storeError is an error of the repository, not of a source.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// do brings one node or the DAG below it, and returns what is missing then.
func (f *fetch) do(ctx, asking context.Context, src *source, t task, split bool) ([]task, error) {
	has, err := f.has(ctx, t.cid)
	if err != nil {
		return nil, &storeError{err}
	}
	if has { // it came with another task
		return f.below(ctx, t)
	}
	whole := t.levels == 0 && !split || t.cid.Prefix().Codec == cid.Raw
	got, err := f.receive(asking, src, t.cid, whole)
	if got.Blocks == 0 || got.Linked == 0 {
		return nil, err
	}
	next, belowErr := f.below(ctx, t)
	return next, errors.Join(err, belowErr)
}

// below returns tasks for the nodes that one links to and that are not here. What is
// here may lack something itself: that is looked for in the end.
func (f *fetch) below(ctx context.Context, t task) ([]task, error) {
	data, err := f.repo.Blocks.Get(ctx, t.cid)
	if err != nil {
		return nil, &storeError{err}
	}
	links, err := dag.Links(dag.Block{CID: t.cid, Data: data})
	if err != nil {
		return nil, err
	}
	var next []task
	held := false
	for _, c := range links {
		has, err := f.has(ctx, c)
		if err != nil {
			return nil, &storeError{err}
		}
		if !has {
			next = append(next, task{cid: c, levels: max(0, t.levels-1)})
		}
		held = held || has
	}
	if held {
		f.mu.Lock()
		f.unsure = true
		f.mu.Unlock()
		for i := range next {
			if t.levels > 0 {
				next[i].levels = strangerLevels
			}
		}
	}
	return next, nil
}

// emptyBlock is the raw IPFS block without bytes. Nobody needs to be asked for it, and
// many who have it do not send it by bitswap.
var emptyBlock = dag.RawBlock(nil)

// has reports whether the repository holds a node.
func (f *fetch) has(ctx context.Context, c cid.Cid) (bool, error) {
	if has, err := f.repo.Blocks.Has(ctx, c); has || err != nil || c != emptyBlock.CID {
		return has, err
	}
	return true, f.repo.Blocks.Put(ctx, emptyBlock)
}
