package replication

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

const (
	// FirstRetry is the default of [Options].
	FirstRetry = 10 * time.Second
	// LastRetry is the default of [Options].
	LastRetry = time.Hour
)

// Options says what a queue replicates, and when.
type Options struct {
	// Roots returns the DAGs that should be at a target, in the order in which they
	// are to be brought there. It is asked before each pass.
	Roots func(ctx context.Context, r node.Replica) ([]cid.Cid, error)
	// Item describes one of them. Whoever makes one ready that was not yet wakes the queue.
	Item func(ctx context.Context, root cid.Cid) (Item, error)
	// FirstRetry is the pause after a first failure; each further one doubles it, up
	// to LastRetry. Of a pause a random part, at most half, is left out. 0: the
	// constants of these names.
	FirstRetry, LastRetry time.Duration
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Queue replicates the DAGs of a repository to the targets of its config.toml. It is
// safe for concurrent use. There is one for each open repository.
type Queue struct {
	repo  *node.Repo
	o     Options
	hosts hosts
	lanes []*lane

	mu      sync.Mutex
	records map[key]record // nil: not read yet
}

// lane is a target and what happens there.
type lane struct {
	Target
	config node.Replica
	busy   chan struct{} // holds a token while something is pushed
	wake   chan struct{} // holds one if there may be something new
}

// NewQueue returns the queue of a repository. Nothing happens until Run or Once.
func NewQueue(repo *node.Repo, o Options) *Queue {
	if o.FirstRetry == 0 {
		o.FirstRetry = FirstRetry
	}
	if o.LastRetry == 0 {
		o.LastRetry = LastRetry
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	q := &Queue{repo: repo, o: o}
	for _, r := range repo.Config.Replicate {
		q.lanes = append(q.lanes, &lane{
			Target: newTarget(repo, r, &q.hosts), config: r,
			busy: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		})
	}
	return q
}

// Targets returns the targets in the order of config.toml.
func (q *Queue) Targets() []Target {
	out := make([]Target, len(q.lanes))
	for i, l := range q.lanes {
		out[i] = l.Target
	}
	return out
}

// Listen says how peers reach this node from now on; nil: not at all.
func (q *Queue) Listen(h Host) { q.hosts.set(h) }

// Wake says that there may be something new. It never waits.
func (q *Queue) Wake() {
	for _, l := range q.lanes {
		select {
		case l.wake <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// Status is how far an item is at a target.
type Status struct {
	Target string
	// Root is cid.Undef if the reason is of the target alone.
	Root  cid.Cid
	State State
	// Pushed: it was brought there just now.
	Pushed bool
	// Attempts failed, the last one for Reason; after Next comes another.
	Attempts int
	Next     time.Time
	Reason   string
	Err      error // behind Reason, if it was met just now
}

func (l *lane) status(root cid.Cid, r record) Status {
	return Status{Target: l.Name(), Root: root, State: r.State, Attempts: r.Attempts, Next: r.Next, Reason: r.Error}
}

// Run replicates until ctx ends: whatever is due, and what is new when Wake says so.
// report is told of each push that ended, by one goroutine at a time.
func (q *Queue) Run(ctx context.Context, report func(Status)) {
	report = oneAtATime(report)
	var lanes sync.WaitGroup
	for _, l := range q.lanes {
		lanes.Go(func() { q.run(ctx, l, report) })
	}
	lanes.Wait()
}

func oneAtATime(report func(Status)) func(Status) {
	var mu sync.Mutex
	return func(s Status) {
		mu.Lock()
		defer mu.Unlock()
		if report != nil {
			report(s)
		}
	}
}

func (q *Queue) run(ctx context.Context, l *lane, report func(Status)) {
	for {
		next := q.pass(ctx, l, report)
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(next.Sub(q.o.Now()))
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-due:
		}
	}
}

// pass pushes what is due, in order, and returns when to look again; never, without
// being woken, if that is zero. It ends early when the target cannot be reached.
func (q *Queue) pass(ctx context.Context, l *lane, report func(Status)) (next time.Time) {
	roots, err := q.o.Roots(ctx, l.config)
	if err == nil {
		err = q.load()
	}
	if err != nil {
		if ctx.Err() == nil {
			report(Status{Target: l.Name(), State: Waiting, Reason: Reason(err), Err: err})
		}
		return q.o.Now().Add(q.o.LastRetry)
	}
	for _, root := range roots {
		r := q.record(l, root)
		if r.State == Waiting && q.due(r) {
			s := q.push(ctx, l, root, false)
			if ctx.Err() != nil {
				return time.Time{}
			}
			if errors.Is(s.Err, ErrNotYet) {
				continue
			}
			report(s)
			r = q.record(l, root)
			if s.State == Waiting && ofTarget(s.Err) {
				return s.Next
			}
		}
		if r.State == Waiting && (next.IsZero() || r.Next.Before(next)) {
			next = r.Next
		}
	}
	return next
}

// ofTarget reports whether an error of a push is of the target, or of this side's way
// to it, so that other items would fare no better.
func ofTarget(err error) bool { return errors.Is(err, node.ErrUnreachable) || errors.Is(err, ErrToken) }

// due reports whether an item's next try is due. One that is further away than any
// pause was set by a clock that went back since.
func (q *Queue) due(r record) bool {
	left := r.Next.Sub(q.o.Now())
	return left <= 0 || left > q.o.LastRetry
}

// push brings one item to a target and records how that ended; again: also if it is
// known to be there. If ctx ends first, or the item is not ready, nothing is recorded.
func (q *Queue) push(ctx context.Context, l *lane, root cid.Cid, again bool) Status {
	select {
	case l.busy <- struct{}{}:
		defer func() { <-l.busy }()
	case <-ctx.Done():
		return l.status(root, q.record(l, root))
	}
	r := q.record(l, root) // what was pushed while others had the lane counts
	if r.State == Done && !again {
		return l.status(root, r)
	}
	item, err := q.o.Item(ctx, root)
	if err == nil {
		err = l.Push(ctx, item)
	}
	if err != nil && ctx.Err() != nil {
		return l.status(root, r)
	}
	if errors.Is(err, ErrNotYet) {
		s := l.status(root, r)
		s.State, s.Reason, s.Err = Waiting, Reason(err), err
		return s
	}
	now := q.o.Now().UTC()
	next := record{V: recordVersion, State: Done, At: place(l.config), Time: now}
	if err != nil {
		next.State, next.Error = Waiting, Reason(err)
		next.Attempts = r.Attempts + 1
		next.Next = now.Add(q.pause(next.Attempts))
	}
	if recordErr := q.put(l, root, next); recordErr != nil {
		// It is in memory: what this process has done it does not do again.
		err = errors.Join(err, recordErr)
	}
	s := l.status(root, next)
	s.Pushed, s.Err = next.State == Done, err
	return s
}

// pause is how long to wait after a number of attempts that failed.
func (q *Queue) pause(attempts int) time.Duration {
	d := q.o.FirstRetry
	for n := 1; n < attempts && d < q.o.LastRetry; n++ {
		d *= 2
	}
	d = min(d, q.o.LastRetry)
	return d - rand.N(d/2+1)
}

// load reads the records, once.
func (q *Queue) load() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.records != nil {
		return nil
	}
	names, err := q.repo.Records(recordKind)
	if err != nil {
		return err
	}
	records := map[key]record{}
	for _, name := range names {
		target, text, _ := strings.Cut(name, "@")
		root, err := cid.Decode(text)
		if err != nil {
			continue // not ours
		}
		data, err := q.repo.Record(recordKind, name)
		if err != nil {
			return err
		}
		// One that is damaged costs a push of what may be there.
		if r, err := decodeRecord(data); err == nil {
			records[key{target, root}] = r
		}
	}
	q.records = records
	return nil
}

// record returns what is known of an item at a target.
func (q *Queue) record(l *lane, root cid.Cid) record {
	q.mu.Lock()
	defer q.mu.Unlock()
	r, ok := q.records[key{l.Name(), root}]
	if !ok || r.At != place(l.config) {
		return record{State: Waiting}
	}
	return r
}

func (q *Queue) put(l *lane, root cid.Cid, r record) error {
	k := key{l.Name(), root}
	q.mu.Lock()
	q.records[k] = r
	q.mu.Unlock()
	data, err := r.encode()
	if err != nil {
		return err
	}
	return q.repo.PutRecord(recordKind, k.String(), data)
}

// Selection says what Once and List are about.
type Selection struct {
	// Targets are names; all if there are none.
	Targets []string
	// Roots are DAGs, whether they are to be at a target or not; if there are none,
	// those that are.
	Roots []cid.Cid
	// Again: also what is known to be there is pushed.
	Again bool
}

// lanesOf returns the targets of a selection.
func (q *Queue) lanesOf(s Selection) ([]*lane, error) {
	if len(s.Targets) == 0 {
		return q.lanes, nil
	}
	var out []*lane
	for _, name := range s.Targets {
		i := slices.IndexFunc(q.lanes, func(l *lane) bool { return l.Name() == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: config.toml has no [[replicate]] of the name %q", ErrNoTarget, name)
		}
		out = append(out, q.lanes[i])
	}
	return out, nil
}

// ErrNoTarget: there is no such target.
var ErrNoTarget = errors.New("no such target")

func (q *Queue) rootsOf(ctx context.Context, l *lane, s Selection) ([]cid.Cid, error) {
	if len(s.Roots) > 0 {
		return s.Roots, nil
	}
	return q.o.Roots(ctx, l.config)
}

// Once tries everything selected that is not done, now, whenever its next try is due,
// at all targets at a time. It returns how far each is that was not done before, or
// was asked for by its root. report is told of each push that ended.
func (q *Queue) Once(ctx context.Context, sel Selection, report func(Status)) ([]Status, error) {
	lanes, err := q.lanesOf(sel)
	if err != nil {
		return nil, err
	}
	if err := q.load(); err != nil {
		return nil, err
	}
	report = oneAtATime(report)
	out := make([][]Status, len(lanes))
	errs := make([]error, len(lanes))
	var wg sync.WaitGroup
	for i, l := range lanes {
		wg.Go(func() { out[i], errs[i] = q.once(ctx, l, sel, report) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return slices.Concat(out...), errors.Join(errs...)
}

func (q *Queue) once(ctx context.Context, l *lane, sel Selection, report func(Status)) ([]Status, error) {
	roots, err := q.rootsOf(ctx, l, sel)
	if err != nil {
		return nil, err
	}
	var out []Status
	var down error
	for _, root := range roots {
		r := q.record(l, root)
		s := l.status(root, r)
		switch {
		case r.State == Done && !sel.Again:
			if len(sel.Roots) == 0 {
				continue
			}
		case down != nil:
			s.State, s.Reason, s.Err = Waiting, Reason(down), down
		default:
			s = q.push(ctx, l, root, sel.Again)
			if ctx.Err() != nil {
				return out, nil
			}
			report(s)
			if ofTarget(s.Err) {
				down = s.Err
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// List returns how far everything selected is, without asking any target.
func (q *Queue) List(ctx context.Context, sel Selection) ([]Status, error) {
	lanes, err := q.lanesOf(sel)
	if err != nil {
		return nil, err
	}
	if err := q.load(); err != nil {
		return nil, err
	}
	var out []Status
	for _, l := range lanes {
		roots, err := q.rootsOf(ctx, l, sel)
		if err != nil {
			return nil, err
		}
		for _, root := range roots {
			out = append(out, l.status(root, q.record(l, root)))
		}
	}
	return out, nil
}

// DoneAt returns the names of the targets that said they have a DAG.
func (q *Queue) DoneAt(root cid.Cid) ([]string, error) {
	if err := q.load(); err != nil {
		return nil, err
	}
	var names []string
	for _, l := range q.lanes {
		if q.record(l, root).State == Done {
			names = append(names, l.Name())
		}
	}
	return names, nil
}
