package mrv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"
)

// maxChain bounds the events of one step.
const maxChain = 1000

// Document is one document of the state. Path is "collection/id.json", Bytes
// is JSON with a stable key order.
type Document struct {
	Path  string
	Bytes []byte
}

// SavePoint is a state to be saved.
type SavePoint struct {
	// Height is the step boundary: the documents hold all effects of the
	// steps up to Height and none of a later one.
	Height uint64
	// Blocks are the tags of the save-state blocks that asked for it, sorted,
	// each once, never empty.
	Blocks []string
	// Documents is the state, sorted by path. It is a fixed view: it may be
	// walked many times, later, and from other goroutines.
	Documents iter.Seq[Document]
}

// Hooks are called by Step in its own goroutine. Any of them may be nil. A
// hook may read the Runner, but a Step called from a hook returns ErrBusy.
type Hooks struct {
	// Save is called at the step boundary for every step that passed a
	// save-state block; once, even if it passed several. An error stops the
	// run.
	Save func(ctx context.Context, s SavePoint) error
	// Step is called when a step is committed and saved.
	Step func(StepResult)
	// Mid is called once in every step, after its first block has had its
	// effect and before anything is committed. Height is that of the step,
	// tag that of the block. A process that dies here leaves nothing of the
	// step behind.
	Mid func(height uint64, tag string)
}

// StepResult tells what a step did.
type StepResult struct {
	Height uint64
	What   string   // one line for a person
	Saved  []string // tags of the save-state blocks passed, sorted
}

// Runner executes one run of a policy. Its state is nothing but documents.
//
// Height, Done and Documents may be called at any time from any goroutine and
// show committed steps only. There is one Step (or Run) at a time: a second
// one gets ErrBusy.
type Runner struct {
	policy *Policy
	hooks  Hooks
	step   sync.Mutex // held by the running step
	unsent *SavePoint // committed, but the Save hook has not taken it; guarded by step

	mu   sync.RWMutex
	docs map[string][]byte // byte slices are replaced, never changed
	run  runRecord
}

// New starts a run at height 0. The script is checked (errors are
// *InputError with ErrInvalidInput) and queued as documents of the state, so
// the Runner needs nothing of the caller any more. A script has at most
// 999,999 entries. Equal policies and scripts give runs that are equal to the
// byte.
func New(p *Policy, script []Input) (*Runner, error) {
	t := newTx(p, nil, runRecord{
		PolicyID: p.ID(), PolicyName: p.file.Name, PolicyVersion: p.file.Version, PolicyHash: p.hash,
		Inputs: len(script), NextInput: 1, Documents: map[string]int{},
	})
	if len(script) > 999_999 {
		return nil, fmt.Errorf("start run: %w: %d script entries are too many", ErrInvalidInput, len(script))
	}
	var earliest time.Time
	seed := []string{"run", p.hash}
	for i, in := range script {
		if err := p.checkInput(in, earliest); err != nil {
			return nil, &InputError{Index: i + 1, Block: in.Block, Err: err}
		}
		earliest = in.At
		row := inputRow{Index: i + 1, At: in.At.UTC(), User: in.User, Block: in.Block, Data: in.Data}
		path := docPath(colInputs, inputID(row.Index))
		if err := t.put(path, row); err != nil {
			return nil, fmt.Errorf("start run: %w", err)
		}
		seed = append(seed, string(t.writes[path]))
	}
	t.run.Seed = uuidOf(seed...)
	if len(script) > 0 {
		t.run.Clock = script[0].At.UTC()
	}
	r := &Runner{policy: p, docs: map[string][]byte{}}
	if err := r.commit(t); err != nil {
		return nil, fmt.Errorf("start run: %w", err)
	}
	return r, nil
}

// SetHooks sets the hooks for the steps to come. It waits for a running step
// to end, so it must not be called from a hook.
func (r *Runner) SetHooks(h Hooks) {
	r.step.Lock()
	defer r.step.Unlock()
	r.hooks = h
}

// Height returns the number of committed steps.
func (r *Runner) Height() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.run.Height
}

// Done tells whether the policy came to its end, or nothing is left that could
// go on: no queued input and no running timer.
func (r *Runner) Done() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, _, ok, err := newTx(r.policy, r.docs, r.run).due()
	return !ok && err == nil
}

// Documents returns the committed state, sorted by path. The sequence is a
// fixed view as of this call: steps made later do not change it. Each walk
// hands out copies, which are the caller's own.
func (r *Runner) Documents() iter.Seq[Document] {
	r.mu.RLock()
	view := maps.Clone(r.docs)
	r.mu.RUnlock()
	paths := slices.Sorted(maps.Keys(view))
	return func(yield func(Document) bool) {
		for _, path := range paths {
			if !yield(Document{Path: path, Bytes: bytes.Clone(view[path])}) {
				return
			}
		}
	}
}

// Run makes steps until the run is done or, if until is not 0, until the
// height is at least until. It returns the first error of a Step.
func (r *Runner) Run(ctx context.Context, until uint64) error {
	for until == 0 || r.Height() < until {
		if _, err := r.Step(ctx); errors.Is(err, ErrDone) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Step makes one step: the next input or the next due timer, with the whole
// chain of events it sets going. A timer comes before an input of the same
// time.
//
// On an error of the policy, an input or the context nothing is committed and
// a later Step tries the same again. If the Save hook fails, Step returns a
// *SaveError and the run stops there; the next Step first offers that save
// again, so none is passed over. ErrDone means nothing is left to do.
func (r *Runner) Step(ctx context.Context) (StepResult, error) {
	if !r.step.TryLock() {
		return StepResult{}, ErrBusy
	}
	defer r.step.Unlock()
	if err := r.sendSave(ctx); err != nil {
		return StepResult{}, err
	}
	t := newTx(r.policy, r.docs, r.run)
	t.run.Height++
	if err := r.execute(ctx, t); err != nil {
		return StepResult{}, fmt.Errorf("step %d: %w", t.run.Height, err)
	}
	if err := r.saveOnEnter(ctx, t); err != nil {
		return StepResult{}, err
	}
	if err := r.commit(t); err != nil {
		return StepResult{}, fmt.Errorf("step %d: %w", t.run.Height, err)
	}
	res := StepResult{Height: t.run.Height, What: t.what, Saved: t.saves("enter", "exit")}
	if tags := t.saves("exit"); len(tags) > 0 {
		r.unsent = &SavePoint{Height: res.Height, Blocks: tags, Documents: r.Documents()}
	}
	if err := r.sendSave(ctx); err != nil {
		return res, err
	}
	if r.hooks.Step != nil {
		r.hooks.Step(res)
	}
	return res, nil
}

// sendSave offers the save that is due to the hook.
func (r *Runner) sendSave(ctx context.Context) error {
	if r.unsent == nil {
		return nil
	}
	if err := r.callSave(ctx, *r.unsent); err != nil {
		return err
	}
	r.unsent = nil
	return nil
}

// saveOnEnter serves the blocks that want the state from before the step.
// Nothing is committed yet, so that state is still there.
func (r *Runner) saveOnEnter(ctx context.Context, t *tx) error {
	tags := t.saves("enter")
	if len(tags) == 0 {
		return nil
	}
	return r.callSave(ctx, SavePoint{Height: t.run.Height - 1, Blocks: tags, Documents: r.Documents()})
}

func (r *Runner) callSave(ctx context.Context, s SavePoint) error {
	if r.hooks.Save == nil {
		return nil
	}
	given := s
	given.Blocks = slices.Clone(s.Blocks) // the hook may keep or change its copy
	if err := r.hooks.Save(ctx, given); err != nil {
		return &SaveError{Height: s.Height, Blocks: s.Blocks, Err: err}
	}
	return nil
}

// execute works the step out in t.
func (r *Runner) execute(ctx context.Context, t *tx) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in, timer, ok, err := t.due()
	if err != nil {
		return err
	}
	if !ok {
		return ErrDone
	}
	first := timer
	if timer == nil {
		first = t.policy.byTag[in.Block]
		err = t.consume(in)
	} else {
		err = t.fire(timer)
	}
	if err != nil {
		return err
	}
	if r.hooks.Mid != nil {
		r.hooks.Mid(t.run.Height, first.tag)
	}
	return t.drain(ctx)
}

// drain delivers events until the chain comes to rest.
func (t *tx) drain(ctx context.Context) error {
	for n := 0; len(t.queue) > 0; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := t.queue[0]
		t.queue = t.queue[1:]
		if n >= maxChain {
			return &BlockError{Tag: e.target.tag, Err: ErrChainTooLong}
		}
		err := t.deliver(e)
		if err == nil {
			err = t.leave(e.target)
		}
		if err != nil {
			return &BlockError{Tag: e.target.tag, Err: err}
		}
	}
	return nil
}

// commit makes the step the state.
func (r *Runner) commit(t *tx) error {
	if err := t.put(runPath, t.run); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for path, b := range t.writes {
		if b == nil {
			delete(r.docs, path)
		} else {
			r.docs[path] = b
		}
	}
	r.run = t.run
	return nil
}
