package publish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
)

// WatchOptions says which log is watched and where its heads go.
type WatchOptions struct {
	// Log is the URL of the log's tlog-tiles prefix on a gateway, which names the log root
	// CID in X-Ipfs-Roots: http://127.0.0.1:8481/tlog/<hex>/ of "ipfs-savepoint serve", or
	// one that ends in /ipns/<name>/.
	Log string
	// Policy is the log's trust policy: heads that it does not accept are not published.
	Policy *anchor.Policy
	// Topic is where Publisher publishes.
	Topic     hcs.EntityID
	Publisher hcs.Publisher
	// Receipts is a file, made if it is absent, that gets a line for each head that was
	// published. Only one Watch may have it.
	Receipts string
	// Interval is the pause between two looks at the log, and so between two messages; by
	// default [DefaultInterval]. Heads that the log had in between are not published.
	Interval time.Duration
	// Published, if not nil, is called for each head that was published, also where the
	// ledger's receipt is of no known form (hcs.ErrReceipt), of which Failed is told too.
	Published func(Published)
	// Failed, if not nil, is called with what went wrong, once for the same trouble; it is
	// tried again, with growing pauses of up to [MaxPause].
	Failed func(error)
}

const (
	// DefaultInterval is the default of WatchOptions.Interval: who pays for the messages,
	// and readers, who read them all, want few.
	DefaultInterval = 10 * time.Minute
	// MaxPause is the longest pause after something went wrong, unless Interval is longer.
	MaxPause = 30 * time.Minute
	// logTimeout bounds one look at the log.
	logTimeout = 30 * time.Second
)

// Watch looks at a log and publishes its newest head whenever that is another than the
// one published last, until ctx ends; then it returns nil. A head must extend the one
// published last. What is on its way when ctx ends is waited for.
//
// A head is published once, also over restarts, unless the ledger took it and the answer
// or the receipt was lost, as by a crash in that moment. Readers take the first.
//
// The error is about the file of receipts: it cannot be read or written, or is in use.
func Watch(ctx context.Context, o WatchOptions) error {
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.Published == nil {
		o.Published = func(Published) {}
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	receipts, last, err := openReceipts(o.Receipts, o.Policy.Origin, o.Topic)
	if err != nil {
		return fmt.Errorf("receipts: %w", err)
	}
	defer receipts.close()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	w := &watcher{WatchOptions: o, receipts: receipts, last: last, transport: transport}
	w.run(ctx)
	return nil
}

// watcher is a Watch in progress.
type watcher struct {
	WatchOptions
	receipts  *receipts
	last      anchor.Head // published last; of size 0 if none was
	unsaved   *Published  // whose receipt is not on disk
	transport *http.Transport
}

func (w *watcher) run(ctx context.Context) {
	pause, told := w.Interval, ""
	for {
		err := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause, told = w.Interval, ""
		default:
			if err.Error() != told {
				w.Failed(err)
			}
			told = err.Error()
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			pause = min(2*pause, max(MaxPause, w.Interval))
		}
	}
}

// look publishes the log's newest head if it is a new one.
func (w *watcher) look(ctx context.Context) error {
	if err := w.save(); err != nil {
		return err
	}
	h, err := w.newest(ctx)
	if err != nil {
		return fmt.Errorf("log %s: %w", w.Policy.Origin, err)
	}
	if h.Size == w.last.Size {
		return nil
	}
	size := h.Size
	// Not cut off when ctx ends, or nobody would know whether it is on the topic: the
	// publisher has a limit of its own.
	var r hcs.Receipt
	if h, err = hcs.FitHead(w.Policy, h); err == nil {
		r, err = w.Publisher.Publish(context.WithoutCancel(ctx), h)
	}
	if err != nil {
		err = fmt.Errorf("publish head of size %d of log %s: %w", size, w.Policy.Origin, err)
	}
	if err != nil && !errors.Is(err, hcs.ErrReceipt) {
		return err
	}
	p := newPublished(h, r)
	w.last, w.unsaved = h, &p
	w.Published(p)
	return errors.Join(err, w.save())
}

// save writes the receipt that is not on disk yet.
func (w *watcher) save() error {
	if w.unsaved == nil {
		return nil
	}
	if err := w.receipts.add(*w.unsaved); err != nil {
		return fmt.Errorf("receipts: %w", err)
	}
	w.unsaved = nil
	return nil
}

// newest returns the log's newest head, which extends the one published last.
func (w *watcher) newest(ctx context.Context) (anchor.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	f := &prefix{url: w.Log, client: &http.Client{Transport: w.transport}}
	v, err := anchor.OpenView(ctx, f, w.Policy)
	if err != nil {
		return anchor.Head{}, err
	}
	h := v.Head()
	if w.last.Size > 0 {
		if err := v.Extends(ctx, w.last); err != nil {
			return anchor.Head{}, err
		}
	}
	if h.Root = f.logRoot(); !h.Root.Defined() {
		return anchor.Head{}, errors.New("the gateway does not say in X-Ipfs-Roots what the log root is")
	}
	return h, nil
}
