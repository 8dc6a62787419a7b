package anchor

import (
	"context"
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
	// Admit, if not nil, is asked before each append, with the head that the
	// record would follow. Its error refuses the record and is returned as it
	// is. Calls do not overlap. It must not change the record or call Append.
	Admit func(previous Head, record []byte) error
	// Now is the clock; time.Now if nil. It only decides how long the partial
	// tiles of older heads stay in the log's directory.
	Now func() time.Time
}

// Log is a log that is written here. It is safe for concurrent use; appends
// happen one after the other.
type Log struct {
	store  Store
	signer Signer
	policy *Policy
	opts   Options

	head atomic.Pointer[Head]

	mu     sync.Mutex // guards what follows, and is held during an append
	stored stored
	tree   *tree
	poison error
}

// Open opens the log of signer's origin in store. It verifies the stored head
// with signer's own key and authenticates the right edge of the tree and the
// last bundle, so that all that is signed later extends that head.
//
// The error wraps ErrNoLog (see [Options]), ErrUntrusted if the stored head is
// not signed by this key, ErrCorrupt if tiles are wrong, ErrUnavailable if they
// are missing, or is the store's own.
func Open(ctx context.Context, store Store, signer Signer, opts Options) (*Log, error) {
	if err := CheckOrigin(signer.Name()); err != nil {
		return nil, err
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	l := &Log{store: store, signer: signer, policy: keyPolicy(signer.Verifier()), opts: opts}
	s, err := loadStored(ctx, store, l.policy)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", signer.Name(), err)
	}
	if s.record == nil {
		if !opts.Create {
			return nil, fmt.Errorf("%w: %s", ErrNoLog, signer.Name())
		}
		if err := l.advance(ctx, newTree()); err != nil {
			return nil, fmt.Errorf("create log %s: %w", signer.Name(), err)
		}
		return l, nil
	}
	t, err := loadTree(ctx, store, s)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", signer.Name(), err)
	}
	l.set(s, t)
	return l, nil
}

func (l *Log) set(s stored, t *tree) {
	l.stored, l.tree = s, t
	l.head.Store(&s.Head)
}

// Head returns the durable head. It does not wait for appends.
func (l *Log) Head() Head { return *l.head.Load() }

// Append adds a record and returns its index and the head that holds it, once
// both are durable. Records have at most [MaxRecordSize] bytes (ErrRecordSize)
// and must be admitted (see [Options]).
//
// If the tiles cannot be put, the log is as before and can be used on. If an
// error comes later, it is open whether the record is in the log: every further
// append fails with ErrPoisoned until the log is opened again. One such error is
// ErrHeadChanged: there was another writer. From the moment of signing a
// cancelled context no longer stops an append.
func (l *Log) Append(ctx context.Context, record []byte) (index int64, head Head, err error) {
	return l.appendAll(ctx, [][]byte{record})
}

// appendAll adds records under one head and returns the index of the first.
func (l *Log) appendAll(ctx context.Context, records [][]byte) (int64, Head, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poison != nil {
		return 0, Head{}, fmt.Errorf("%w: %w", ErrPoisoned, l.poison)
	}
	first := l.tree.N
	for _, r := range records {
		if len(r) > MaxRecordSize {
			return 0, Head{}, fmt.Errorf("%w: %d bytes, more than %d", ErrRecordSize, len(r), MaxRecordSize)
		}
		if l.opts.Admit == nil {
			continue
		}
		if err := l.opts.Admit(l.stored.Head, r); err != nil {
			return 0, Head{}, err
		}
	}
	next := l.tree.clone()
	blocks, err := next.add(records)
	if err != nil {
		return 0, Head{}, err
	}
	if err := l.store.Put(ctx, blocks...); err != nil {
		return 0, Head{}, fmt.Errorf("put of log tiles: %w", err)
	}
	if err := l.advance(ctx, next); err != nil {
		return 0, Head{}, err
	}
	return first, l.stored.Head, nil
}

// advance signs next, an extension of the present tree, and makes it durable.
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
		var s stored
		if s, err = commit(ctx, l.store, next, h, l.stored.record); err == nil {
			l.set(s, next)
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
	signed, err := note.Sign(&note.Note{Text: c.String()}, l.signer)
	if err != nil {
		return Head{}, fmt.Errorf("sign log head: %w", err)
	}
	h, err := verifyCheckpoint(l.policy, signed)
	if err != nil {
		return Head{}, fmt.Errorf("log head just signed: %w", err)
	}
	return h, nil
}
