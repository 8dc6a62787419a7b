package hcs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"golang.org/x/mod/sumdb/tlog"
)

// Options of [Read]. The zero value stands for the defaults.
type Options struct {
	// After is a position verified earlier, by Read or by a [Receipt]: reading starts
	// there and not at the first message. Mirrors must still show that message. Heads
	// up to it are not looked for.
	After Position
	// Each, if not nil, is called with every head that the policy accepts, in the order
	// of the topic. Its error ends the reading and is returned.
	Each func(Sighting) error
	// RequestTimeout bounds one request with its whole answer; by default 15 s.
	RequestTimeout time.Duration
	// MirrorTimeout bounds all waiting for one mirror; by default 2 minutes.
	MirrorTimeout time.Duration
	// MaxMessages is how many messages are read; by default 250,000. A topic that has
	// more is read in parts, by After.
	MaxMessages int64
	// Transport makes the requests; by default a new http.Transport of the standard
	// library's settings.
	Transport http.RoundTripper
}

func (o Options) withDefaults() Options {
	if o.RequestTimeout <= 0 {
		o.RequestTimeout = 15 * time.Second
	}
	if o.MirrorTimeout <= 0 {
		o.MirrorTimeout = 2 * time.Minute
	}
	if o.MaxMessages <= 0 {
		o.MaxMessages = 250_000
	}
	return o
}

// Sighting is a head of the log on the topic.
type Sighting struct {
	// Head is verified. Its Root is what the message says, and nobody signed that; see
	// [DecodeHead].
	Head anchor.Head
	// Position and Time are those of the message: the head was public at Time.
	Position Position
	Time     time.Time
	// Mirrors is how many mirrors showed the message.
	Mirrors int
}

// Report is what a topic says. See the package's comment for what that proves.
type Report struct {
	Topic EntityID
	// Newest is the largest head that the policy accepts, where it was first seen after
	// Options.After; nil if there is none. A later message with the same or a smaller
	// head says nothing, since anybody may repeat what was public.
	Newest *Sighting
	// Last is the last message that any mirror showed, LastTime its consensus time; they
	// are Options.After and zero where there was none. No head larger than Newest was on
	// the topic up to then. Agreed is the last message that at least two showed.
	Last     Position
	LastTime time.Time
	Agreed   Position
	// Heads, Untrusted and Foreign count the messages read: heads that the policy accepts,
	// heads that it does not, and all else.
	Heads, Untrusted, Foreign int64
	// Mirrors are in the order in which they were given.
	Mirrors []MirrorReport
}

// MirrorReport is what one mirror showed.
type MirrorReport struct {
	Mirror string
	// Last is the last message it showed.
	Last Position
	// Behind says that another mirror showed more: it is late, or keeps something back.
	Behind bool
	// Err says why it was not read to its end; nil if it was.
	Err error
}

// Read reads a topic from mirrors, which are URLs of mirror nodes of different hosts,
// verifies all of it, and finds the newest head that the policy accepts.
//
// The error wraps ErrChain or ErrDisagree if any mirror shows what cannot be, ErrMirrors
// or anchor.ErrPolicy if they cannot be used, and anchor.ErrUnavailable if fewer than
// [MinMirrors] could be read to their end (then ErrTruncated too, if one lacks
// Options.After). A mirror that fails beside enough others, and one that is behind, is
// reported only. Two heads of one size and different roots, wherever they are after
// Options.After, are an *anchor.ForkError. The report says how far the reading came, also
// with an error.
//
// Messages are held a page at a time; of each size of a head its root, about a hundred
// bytes, and of the first 16,384 sizes the checkpoint: a fork of another size has no
// checkpoint in its Old. Read returns when all its requests have ended.
func Read(ctx context.Context, p *anchor.Policy, topic EntityID, mirrors []string, o Options) (Report, error) {
	o = o.withDefaults()
	if o.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		defer t.CloseIdleConnections()
		o.Transport = t
	}
	r := &reader{policy: p, o: o, seen: map[int64]seenHead{}, agreed: o.After, report: Report{Topic: topic, Last: o.After, Agreed: o.After}}
	if p == nil {
		return r.report, &anchor.PolicyError{Err: errors.New("no policy")}
	}
	var err error
	if r.mirrors, err = newMirrors(topic, mirrors, o); err != nil {
		return r.report, err
	}
	err = r.read(ctx)
	return r.finish(), err
}

// reader goes through all mirrors at the same pace.
type reader struct {
	policy  *anchor.Policy
	o       Options
	mirrors []*mirror
	agreed  Position // on which all live mirrors that come so far agree
	seen    map[int64]seenHead
	report  Report
}

// seenHead is what is kept of the first head of a size. There are at most
// Options.MaxMessages of them.
type seenHead struct {
	root       tlog.Hash
	checkpoint []byte // of the first maxCheckpoints sizes only
}

// maxCheckpoints bounds the memory for evidence of a fork: at most 16 MiB.
const maxCheckpoints = 16_384

func (r *reader) read(ctx context.Context) error {
	for {
		if err := r.fill(ctx); err != nil {
			return err
		}
		for shown := r.next(); len(shown) > 0; shown = r.next() {
			if err := r.compare(shown); err != nil {
				return err
			}
		}
		if r.ended() {
			return nil
		}
	}
}

// fill reads a page from each mirror that has nothing pending and more to show, from
// all at once, and returns the error that ends the reading.
func (r *reader) fill(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, m := range r.mirrors {
		if m.err == nil && len(m.pending) == 0 && m.query != "" {
			wg.Go(func() { m.fill(ctx) })
		}
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("topic %v: %w", r.report.Topic, err)
	}
	failures := []error{fmt.Errorf("%w: fewer than %d mirror nodes show topic %v", anchor.ErrUnavailable, MinMirrors, r.report.Topic)}
	live := 0
	for _, m := range r.mirrors {
		switch {
		case m.err == nil:
			live++
		case errors.Is(m.err, ErrChain):
			return m.err
		default:
			failures = append(failures, fmt.Errorf("%s: %w", m.name, m.err))
		}
	}
	if live < MinMirrors {
		return errors.Join(failures...)
	}
	return nil
}

// next returns the mirrors that show the next message; none if one of them has yet to
// read it, or all are at their end.
func (r *reader) next() (shown []*mirror) {
	for _, m := range r.mirrors {
		switch {
		case m.err != nil:
		case len(m.pending) > 0:
			shown = append(shown, m)
		case m.query != "":
			return nil
		}
	}
	return shown
}

func (r *reader) ended() bool {
	for _, m := range r.mirrors {
		if m.err == nil && (len(m.pending) > 0 || m.query != "") {
			return false
		}
	}
	return true
}

// compare takes the next message of the mirrors that show it, which must be the same.
func (r *reader) compare(shown []*mirror) error {
	msg := shown[0].pending[0]
	for _, m := range shown {
		if other := m.pending[0]; other.RunningHash != msg.RunningHash {
			return &DisagreementError{
				Previous: r.agreed,
				Mirrors:  [2]string{shown[0].name, m.name},
				Messages: [2]Message{msg, other},
			}
		}
		m.pending = m.pending[1:]
	}
	r.agreed = msg.Position
	r.report.Last, r.report.LastTime = msg.Position, msg.Time
	if len(shown) >= MinMirrors {
		r.report.Agreed = msg.Position
	}
	return r.judge(msg, len(shown))
}

// judge says what a message is, and keeps the largest head.
func (r *reader) judge(msg Message, mirrors int) error {
	checkpoint, root, err := DecodeHead(msg.Data)
	if err != nil {
		r.report.Foreign++
		return nil
	}
	head, err := anchor.VerifyCheckpoint(r.policy, checkpoint)
	if errors.Is(err, anchor.ErrUntrusted) {
		r.report.Untrusted++
		return nil
	}
	if err != nil {
		return err
	}
	head.Root = root
	r.report.Heads++
	s := Sighting{Head: head, Position: msg.Position, Time: msg.Time, Mirrors: mirrors}
	if r.o.Each != nil {
		if err := r.o.Each(s); err != nil {
			return err
		}
	}
	if err := r.checkFork(head); err != nil {
		return err
	}
	if newest := r.report.Newest; newest == nil || head.Size > newest.Head.Size {
		r.report.Newest = &s
	}
	return nil
}

// checkFork compares a head with the first one of its size.
func (r *reader) checkFork(h anchor.Head) error {
	first, ok := r.seen[h.Size]
	if !ok {
		first.root = h.RootHash
		if len(r.seen) < maxCheckpoints {
			first.checkpoint = h.Checkpoint
		}
		r.seen[h.Size] = first
	}
	if first.root != h.RootHash {
		old := anchor.Head{Origin: h.Origin, Size: h.Size, RootHash: first.root, Checkpoint: first.checkpoint}
		return &anchor.ForkError{Old: old, New: h, Root: h.RootHash}
	}
	return nil
}

// finish adds what each mirror showed.
func (r *reader) finish() Report {
	for _, m := range r.mirrors {
		r.report.Mirrors = append(r.report.Mirrors, MirrorReport{Mirror: m.name, Last: m.last, Err: m.err})
	}
	for i := range r.report.Mirrors {
		m := &r.report.Mirrors[i]
		m.Behind = m.Last.Sequence < r.report.Last.Sequence
	}
	return r.report
}
