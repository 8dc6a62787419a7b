package anchor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
)

// Options configures a [Log].
type Options struct {
	// Create makes an empty log, with a signed head of size 0, if the store
	// holds none. Without it Open refuses with ErrNoLog: a host that lost its
	// store must not begin its log anew under the same key, which would be a
	// fork.
	Create bool
	// Policy is the one by which others believe the log. If it has a quorum, heads
	// are signed first and published once witnesses have cosigned them: see
	// [Log.Publish]. If nil, the log's own key is all there is.
	Policy *Policy
	// Published is the size of the largest head that is known to have been
	// published anywhere. A store that holds less was rolled back: Open refuses it
	// with ErrRollback.
	Published int64
	// Admit, if not nil, is asked before each append, with the head that the
	// record would follow, or, where several are appended under one head, the head
	// before all of them. Its error refuses the record and is returned as it
	// is. Calls do not overlap. It must not change the record or call Append.
	Admit func(previous Head, record []byte) error
	// More are further keys of the log that sign its heads too, as while a key is
	// replaced by another.
	More []Signer
	// Now is the clock; time.Now if nil. It only decides how long the partial
	// tiles of older heads stay in the log's directory.
	Now func() time.Time
}

// Log is a log that is written here. It is safe for concurrent use. Appends that
// wait at the same time are made under one head.
type Log struct {
	store  Store
	signer Signer
	policy *Policy // of the signer alone
	opts   Options

	waiting waiting

	mu     sync.Mutex // guards what follows, and is held during an append
	tree   *tree
	poison error

	signed atomic.Pointer[signedHead] // the newest

	publishing chan struct{} // holds one token while the published head is moved
	published  atomic.Pointer[stored]
}

// signedHead is a head with the tree that it signs, which is not changed any more.
type signedHead struct {
	stored
	tree *tree
}

// Open opens the log of signer's origin in store. It verifies the stored heads
// with signer's own key and authenticates the right edge of the tree and the
// last bundle, so that all that is signed later extends them.
//
// The error wraps ErrNoLog or ErrRollback (see [Options]), ErrUntrusted if a stored
// head is not signed by this key, ErrCorrupt if tiles are wrong, ErrUnavailable if
// they are missing, ErrFork if the stored heads contradict each other, or is the
// store's own.
func Open(ctx context.Context, store Store, signer Signer, opts Options) (*Log, error) {
	if err := CheckOrigin(signer.Name()); err != nil {
		return nil, err
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	l := &Log{store: store, signer: signer, policy: keyPolicy(signer.Verifier()), opts: opts, publishing: make(chan struct{}, 1)}
	if opts.Policy != nil && opts.Policy.Origin != signer.Name() {
		return nil, &PolicyError{Err: fmt.Errorf("it is of log %q, not %q", opts.Policy.Origin, signer.Name())}
	}
	if err := l.open(ctx); err != nil {
		return nil, fmt.Errorf("open log %s: %w", signer.Name(), err)
	}
	return l, nil
}

func (l *Log) open(ctx context.Context) error {
	published, err := loadStored(ctx, l.store, l.policy, HeadName(l.signer.Name()))
	if err != nil {
		return err
	}
	pending, err := loadStored(ctx, l.store, l.policy, PendingName(l.signer.Name()))
	if err != nil {
		return err
	}
	newest := published
	if pending.record != nil && (published.record == nil || pending.Size > published.Size) {
		newest = pending
	}
	if newest.record == nil && !l.opts.Create {
		return ErrNoLog
	}
	if newest.Size < l.opts.Published {
		return &RollbackError{Old: Head{Origin: l.signer.Name(), Size: l.opts.Published}, New: newest.Head}
	}
	l.published.Store(&published)
	if newest.record == nil {
		l.signed.Store(&signedHead{})
		return l.advance(ctx, newTree())
	}
	for _, other := range []stored{published, pending} {
		if other.record == nil {
			continue
		}
		if err := newView(LocalFetcher(l.store, newest.Root), newest.Head).Extends(ctx, other.Head); err != nil {
			return err
		}
	}
	if l.tree, err = loadTree(ctx, l.store, newest); err != nil {
		return err
	}
	// What is compared and swapped is what lies where the next head will.
	if l.witnessed() {
		newest.record = pending.record
	} else {
		newest.record = published.record
	}
	l.signed.Store(&signedHead{newest, l.tree})
	return nil
}

// witnessed reports whether heads are published only with cosignatures.
func (l *Log) witnessed() bool { return l.opts.Policy != nil && l.opts.Policy.Quorum }

// Head returns the newest durable signed head. If the policy has a quorum, witnesses may
// not have seen it yet. It does not wait for appends.
func (l *Log) Head() Head { return l.signed.Load().Head }

// Published returns the newest durable head that satisfies the log's policy, and
// whether there is one yet. It waits for nothing.
func (l *Log) Published() (Head, bool) {
	s := l.published.Load()
	if s.record == nil || l.witnessed() && !l.accepts(s.Head) {
		return Head{}, false
	}
	return s.Head, true
}

func (l *Log) accepts(h Head) bool {
	_, err := verifyCheckpoint(l.opts.Policy, h.Checkpoint)
	return err == nil
}

// Append adds a record and returns its index and the signed head that holds it,
// once both are durable. Records have at most [MaxRecordSize] bytes (ErrRecordSize)
// and must be admitted (see [Options]).
//
// If the tiles cannot be put, the log is as before and can be used on. If an
// error comes later, it is open whether the record is in the log: every further
// append fails with ErrPoisoned until the log is opened again. One such error is
// ErrHeadChanged: there was another writer. A cancelled context stops an append
// only until it begins: then it may be of others too.
func (l *Log) Append(ctx context.Context, record []byte) (index int64, head Head, err error) {
	return l.appendAll(ctx, [][]byte{record})
}

// appendAll adds records under one head and returns the index of the first.
func (l *Log) appendAll(ctx context.Context, records [][]byte) (int64, Head, error) {
	for _, r := range records {
		if len(r) > MaxRecordSize {
			return 0, Head{}, fmt.Errorf("%w: %d bytes, more than %d", ErrRecordSize, len(r), MaxRecordSize)
		}
	}
	a := &appending{ctx: ctx, records: records}
	l.waiting.add(a)
	// Whoever gets the lock commits for all who wait, the others find it done.
	l.mu.Lock()
	defer l.mu.Unlock()
	if !a.done {
		l.commit(l.waiting.take())
	}
	return a.index, a.head, a.err
}

// appending is an append that waits, and what became of it.
type appending struct {
	ctx     context.Context
	records [][]byte
	done    bool
	index   int64
	head    Head
	err     error
}

// waiting are appends that nobody has committed yet.
type waiting struct {
	mu   sync.Mutex
	list []*appending
}

func (w *waiting) add(a *appending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, a)
}

func (w *waiting) take() []*appending {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.list
	w.list = nil
	return list
}

// commit makes one head of all appends that are admitted. The caller holds mu.
func (l *Log) commit(batch []*appending) {
	finished := false
	for _, a := range batch {
		a.done, a.err = true, ErrPoisoned
	}
	defer func() {
		if !finished { // a panic, of Admit or of the store: it is open what is done
			l.poison = errors.New("an append was broken off")
		}
	}()
	l.commitAll(batch)
	finished = true
}

func (l *Log) commitAll(batch []*appending) {
	var admitted []*appending
	var records [][]byte
	next := l.tree.N
	for _, a := range batch {
		if err := l.admit(a); err != nil {
			a.err = err
			continue
		}
		a.index = next
		next += int64(len(a.records))
		admitted = append(admitted, a)
		records = append(records, a.records...)
	}
	if len(admitted) == 0 {
		return
	}
	// From here on it is not one caller's alone.
	head, err := l.extend(context.WithoutCancel(batch[0].ctx), records)
	for _, a := range admitted {
		a.head, a.err = head, err
	}
}

func (l *Log) admit(a *appending) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	if l.poison != nil {
		return fmt.Errorf("%w: %w", ErrPoisoned, l.poison)
	}
	if l.opts.Admit == nil {
		return nil
	}
	for _, r := range a.records {
		if err := l.opts.Admit(l.Head(), r); err != nil {
			return err
		}
	}
	return nil
}

// extend signs the tree with the records added.
func (l *Log) extend(ctx context.Context, records [][]byte) (Head, error) {
	next := l.tree.clone()
	blocks, err := next.add(records)
	if err != nil {
		return Head{}, err
	}
	if err := l.store.Put(ctx, blocks...); err != nil {
		return Head{}, fmt.Errorf("put of log tiles: %w", err)
	}
	if err := l.advance(ctx, next); err != nil {
		return Head{}, err
	}
	return l.Head(), nil
}

// advance signs next, an extension of the present tree, and makes it durable.
// Without witnesses it is published by that.
func (l *Log) advance(ctx context.Context, next *tree) error {
	if err := l.store.Put(ctx, next.publish(l.opts.Now())...); err != nil {
		return fmt.Errorf("put of log tiles: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	h, err := l.sign(next)
	if err == nil {
		name := HeadName(h.Origin)
		if l.witnessed() {
			name = PendingName(h.Origin)
		}
		var s stored
		if s, err = commit(ctx, l.store, name, next, h, l.signed.Load().record); err == nil {
			l.tree = next
			l.signed.Store(&signedHead{s, next})
			if !l.witnessed() {
				l.published.Store(&s)
			}
			return nil
		}
	}
	l.poison = err
	return err
}

// sign makes the head of a tree, and verifies it as a reader would: a key that
// does not work must not get as far as the store.
func (l *Log) sign(t *tree) (Head, error) {
	c := torchwood.Checkpoint{Origin: l.signer.Name(), Tree: t.Tree}
	signers := []note.Signer{l.signer}
	for _, more := range l.opts.More {
		signers = append(signers, more)
	}
	signed, err := note.Sign(&note.Note{Text: c.String()}, signers...)
	if err != nil {
		return Head{}, fmt.Errorf("sign log head: %w", err)
	}
	h, err := verifyCheckpoint(l.policy, signed)
	if err != nil {
		return Head{}, fmt.Errorf("log head just signed: %w", err)
	}
	return h, nil
}
