package savepoints

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	// topicTimeout bounds the reading of the policy's topic beside the sources, and
	// auditTopicTimeout that of an audit. One mirror may use up half of it.
	topicTimeout      = 40 * time.Second
	auditTopicTimeout = 5 * time.Minute
	// topicRequestTimeout bounds one request to a mirror node, of which three are made.
	topicRequestTimeout = 5 * time.Second
	// topicMessages is how many messages are read at a time; the next reading goes on
	// from there.
	topicMessages = 100_000
)

const topicKind = "topics"

// topicRecord is how far a topic was read and verified: JSON.
type topicRecord struct {
	Version int `json:"v"`
	// Topic and Mirrors are those that the policy named. Who names others has all read
	// again.
	Topic       string     `json:"topic"`
	Mirrors     []string   `json:"mirrors"`
	Sequence    int64      `json:"sequence"`
	RunningHash string     `json:"runningHash"`
	Newest      *topicHead `json:"newest,omitempty"`
}

// topicHead is the largest head up to there, where it was first seen.
type topicHead struct {
	Checkpoint string    `json:"checkpoint"`
	Sequence   int64     `json:"sequence"`
	Time       time.Time `json:"time"`
}

// topicReading is what the topic that a trust policy names says of the log. A nil one is
// of a policy that names none, and says nothing.
type topicReading struct {
	policy *anchor.Policy
	cancel context.CancelFunc
	done   chan struct{} // closed when all below is written

	from   hcs.Position
	record topicRecord
	// newest is the largest head on the topic that is known, also after an error.
	newest *hcs.Sighting
	// heads, if not nil, gets those that were read, each once: whoever may write to the
	// topic can repeat what is public.
	heads  map[headKey]anchor.Head
	report hcs.Report
	err    error // why it was not read to its end

	again bool // it was read from its beginning, since what was read earlier did not fit
	told  bool // to a person
}

// headKey tells trees apart.
type headKey struct {
	size int64
	root tlog.Hash
}

// readTopic reads the policy's topic in the background, from where it was read last. What
// it returns is to be stopped.
func (b *Bank) readTopic(ctx context.Context, p *anchor.Policy) *topicReading {
	if p.Topic == nil {
		return nil
	}
	var rec topicRecord
	// A damaged record, or one that cannot be read, only means to read all again.
	if data, err := b.repo.Record(topicKind, LogID(p.Origin)); err != nil || json.Unmarshal(data, &rec) != nil {
		rec = topicRecord{}
	}
	t := newTopicReading(p, rec)
	t.start(ctx, topicTimeout, func() error {
		if t.record.Sequence == rec.Sequence && t.record.RunningHash == rec.RunningHash {
			return nil
		}
		data, err := json.Marshal(t.record)
		if err != nil {
			return err
		}
		return b.repo.PutRecord(topicKind, LogID(p.Origin), data)
	})
	return t
}

// newTopicReading prepares a reading that goes on from a record, if it is of the
// policy's topic, or from the message that the policy names.
func newTopicReading(p *anchor.Policy, rec topicRecord) *topicReading {
	t := &topicReading{policy: p, done: make(chan struct{})}
	hash, err := hcs.ParseRunningHash(rec.RunningHash)
	if err != nil || rec.Version != 1 || rec.Sequence <= 0 || rec.Topic != p.Topic.ID || !slices.Equal(rec.Mirrors, p.Topic.Mirrors) {
		rec, hash = unread(p), hcs.RunningHash{}
	}
	if rec.Newest != nil {
		// Under the log's key alone: the witnesses may have been others.
		h, err := anchor.VerifyCheckpoint(p.KeyOnly(), []byte(rec.Newest.Checkpoint))
		if err != nil { // of another key: from the beginning
			return newTopicReading(p, topicRecord{})
		}
		t.newest = &hcs.Sighting{Head: h, Position: hcs.Position{Sequence: rec.Newest.Sequence}, Time: rec.Newest.Time, Mirrors: hcs.MinMirrors}
	}
	t.record = rec
	t.from = hcs.Position{Sequence: rec.Sequence, RunningHash: hash}
	if p.Topic.Sequence > rec.Sequence {
		t.from = begin(p)
	}
	return t
}

// begin is where the policy has its topic read from.
func begin(p *anchor.Policy) hcs.Position {
	if p.Topic.Sequence == 0 {
		return hcs.Position{}
	}
	return hcs.Position{Sequence: p.Topic.Sequence, RunningHash: hcs.RunningHash(p.Topic.RunningHash)}
}

// unread is the record of a topic of which nothing was read.
func unread(p *anchor.Policy) topicRecord {
	return topicRecord{Version: 1, Topic: p.Topic.ID, Mirrors: p.Topic.Mirrors}
}

// start reads the topic in the background. keep is called when it has ended: what was
// read before an error is verified, so the next reading meets a lie where this one did.
func (t *topicReading) start(ctx context.Context, limit time.Duration, keep func() error) {
	ctx, t.cancel = context.WithTimeout(ctx, limit)
	go func() {
		defer close(t.done)
		if t.err = t.readOn(ctx, limit); errors.Is(t.err, anchor.ErrFork) {
			return // its messages are verified: the next reading must not begin after them
		}
		t.record.Sequence, t.record.RunningHash = t.report.Agreed.Sequence, t.report.Agreed.RunningHash.String()
		if err := keep(); err != nil && t.err == nil {
			t.err = err
		}
	}()
}

// readOn goes on where the last reading ended. If that is no place in the topic that the mirror
// nodes show now, those of then may have lied: all is read again, once. The newest head of
// then binds all the same, as the log signed it, but nobody vouches for it.
func (t *topicReading) readOn(ctx context.Context, limit time.Duration) error {
	err := t.read(ctx, limit)
	if !errors.Is(err, hcs.ErrChain) || t.from == begin(t.policy) {
		return err
	}
	record, newest, report, from := t.record, t.newest, t.report, t.from
	t.record, t.from = unread(t.policy), begin(t.policy)
	if newest != nil {
		n := *newest
		n.Mirrors = 0
		t.newest = &n
	}
	againErr := t.read(ctx, limit)
	if errors.Is(againErr, hcs.ErrChain) || errors.Is(againErr, hcs.ErrDisagree) {
		t.record, t.newest, t.report, t.from = record, newest, report, from // those of now lie
		return err
	}
	t.again = true
	return againErr
}

func (t *topicReading) read(ctx context.Context, limit time.Duration) (err error) {
	t.report.Agreed = t.from
	id, err := hcs.ParseEntityID(t.policy.Topic.ID)
	if err != nil {
		return &anchor.PolicyError{Err: err}
	}
	t.report, err = hcs.Read(ctx, t.policy, id, t.policy.Topic.Mirrors, hcs.Options{
		After: t.from, Each: t.see, MaxMessages: topicMessages,
		RequestTimeout: topicRequestTimeout, MirrorTimeout: limit / 2,
	})
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, anchor.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", anchor.ErrUnavailable, err)
	}
	return err
}

// see takes in a head on the topic.
func (t *topicReading) see(s hcs.Sighting) error {
	if t.heads != nil {
		t.heads[headKey{s.Head.Size, s.Head.RootHash}] = s.Head
	}
	n := t.newest
	switch {
	case n == nil || s.Head.Size > n.Head.Size || n.Mirrors == 0 && s.Head.Size == n.Head.Size && s.Head.RootHash == n.Head.RootHash:
		t.newest = &s
		// What one mirror alone shows is read again.
		if s.Mirrors >= hcs.MinMirrors {
			t.record.Newest = &topicHead{string(s.Head.Checkpoint), s.Position.Sequence, s.Time}
		}
	case s.Head.Size == n.Head.Size && s.Head.RootHash != n.Head.RootHash:
		return &anchor.ForkError{Old: n.Head, New: s.Head, Root: s.Head.RootHash}
	}
	return nil
}

// stop ends the reading, if it has not ended.
func (t *topicReading) stop() {
	if t != nil {
		t.cancel()
		<-t.done
	}
}

// lied reports whether mirror nodes showed what cannot be.
func (t *topicReading) lied() bool {
	return errors.Is(t.err, hcs.ErrChain) || errors.Is(t.err, hcs.ErrDisagree)
}

// check requires that a log extends the newest head on the topic, and that the mirror
// nodes did not lie: that may be accepted, since it says nothing of the log but that the
// ledger is silent. It waits for the reading.
func (t *topicReading) check(ctx context.Context, o FetchOptions, v *anchor.View) error {
	if t == nil {
		return nil
	}
	<-t.done // ctx ends it too
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.tell(o)
	if errors.Is(t.err, anchor.ErrFork) || t.lied() && !o.AcceptStale {
		return fmt.Errorf("topic %s: %w", t.policy.Topic.ID, t.err)
	}
	if t.newest == nil {
		return nil
	}
	if err := v.Extends(ctx, t.newest.Head); err != nil {
		return fmt.Errorf("topic %s, message %d of %s: %w", t.policy.Topic.ID, t.newest.Position.Sequence, t.newest.Time.Format(time.RFC3339), err)
	}
	return nil
}

// tell tells a person, once, what did not go well.
func (t *topicReading) tell(o FetchOptions) {
	if t.told {
		return
	}
	t.told = true
	if t.again {
		o.report("topic %s: what mirror nodes showed of it earlier does not fit what they show now, and it was read again from the beginning", t.policy.Topic.ID)
	}
	for _, m := range t.report.Mirrors {
		switch {
		case m.Err != nil:
			o.report("mirror node %s: %v", m.Mirror, m.Err)
		case m.Behind:
			o.report("mirror node %s shows %d messages of topic %s, another one %d", m.Mirror, m.Last.Sequence, t.policy.Topic.ID, t.report.Last.Sequence)
		}
	}
	if t.err != nil {
		o.report("topic %s was read to message %d: %v", t.policy.Topic.ID, t.report.Agreed.Sequence, t.err)
	}
}

// says reports whether the ledger says of a head that was checked that it is the newest:
// it is the newest on the topic, or, where the policy has a max-age, one that was put
// there within it, or extends such a one; and two mirror nodes show it. A head that the
// ledger does not know yet is not vouched for. The error wraps ErrStale if the topic was not read to its end.
func (t *topicReading) says(h anchor.Head) (bool, error) {
	if t == nil {
		return false, nil
	}
	<-t.done
	switch maxAge := t.policy.MaxAge; {
	case t.err != nil:
		return false, fmt.Errorf("%w: topic %s, which the trust policy of log %s names, could not be read to its end: %w",
			anchor.ErrStale, t.policy.Topic.ID, t.policy.Origin, t.err)
	case t.newest == nil || t.newest.Mirrors < hcs.MinMirrors:
		return false, nil // what one mirror node alone shows it may have made up
	case maxAge > 0:
		age := time.Since(t.newest.Time)
		return -maxAhead <= age && age <= maxAge, nil
	}
	return h.Size == t.newest.Head.Size, nil
}
