package savepoints

import (
	"context"
	"time"
)

// topicEvery is how often the bank's own log is compared with the public ledger.
const topicEvery = 10 * time.Minute

// LedgerStatus says how far the public ledger is behind the bank's own log.
type LedgerStatus struct {
	// Size is of the largest head on the topic, 0 if there is none; Time is when the
	// ledger took it.
	Size int64
	Time time.Time
	// Read is when the topic was last read to its end.
	Read time.Time
	// Err is what went wrong at the last reading; nil if nothing did.
	Err error
}

// WatchTopic compares the bank's own log with the topic that its trust policy names, now
// and every ten minutes until ctx ends: [Bank.Status] says how far that is behind, and
// whoever wrote more of the log elsewhere, or another history, stops this host. It is for
// a process that keeps the repository open; without a topic it returns at once. failed, if
// not nil, is called with what went wrong, once for the same trouble.
func (b *Bank) WatchTopic(ctx context.Context, failed func(error)) {
	if b.ledger == nil || b.own.Topic == nil {
		return
	}
	last := ""
	for {
		s := b.readLedger(ctx)
		if ctx.Err() != nil {
			return
		}
		b.ledger.topic.Store(&s)
		said := ""
		if s.Err != nil {
			said = s.Err.Error()
		}
		if said != last && said != "" && failed != nil {
			failed(s.Err)
		}
		last = said
		timer := time.NewTimer(topicEvery)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// readLedger reads the topic, and stops this host if it has to.
func (b *Bank) readLedger(ctx context.Context) LedgerStatus {
	t := b.readTopic(ctx, b.own)
	defer t.stop()
	<-t.done
	var s LedgerStatus
	if before := b.ledger.topic.Load(); before != nil {
		s.Read = before.Read
	}
	if t.newest != nil {
		s.Size, s.Time = t.newest.Head.Size, t.newest.Time
	}
	// Opened after the topic was read: what is published meanwhile is no rollback.
	v, err := b.view(ctx, b.own)
	if err == nil {
		err = t.check(ctx, FetchOptions{Policy: b.own}, v)
	}
	if mustStop(err) {
		err = b.ledger.stop(err)
	}
	if err == nil {
		err = t.err
	}
	if err == nil {
		s.Read = time.Now()
	}
	s.Err = err
	return s
}
