package savepoints

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// Status says how far the logs of a bank are. Sizes are numbers of log entries; a zero
// time is one that is not known.
type Status struct {
	// Own is of the bank's own log; nil if it has none.
	Own *OwnStatus
	// Followed are the logs that [Bank.Follow] has followed since the bank was opened,
	// sorted by origin.
	Followed []FollowStatus
}

// OwnStatus says how far the publication of the bank's own log is behind the log.
type OwnStatus struct {
	Origin string
	// Open: the log could be opened. If not, the sizes of its heads are not known.
	Open bool
	// Stopped: somebody has seen more of the log, or another history, and this host signs
	// nothing. It is also true if the record of that cannot be read: then it signs nothing
	// either.
	Stopped bool
	// Signed is the size of the newest signed head, Published that of the newest one that
	// the trust policy accepts; 0 if there is none yet.
	Signed, Published int64
	// Receipts is the size of the log up to which the receipts of the save points that
	// are here have the cosignatures that the trust policy demands.
	Receipts int64
	// NameSize is the size of the head that the log's IPNS name stands for, in the newest
	// record that is here; NameSigned is when that was signed.
	NameSize   int64
	NameSigned time.Time
	// NameErr is why the record cannot be read; nil also if there is none.
	NameErr error
	// Ledger is of the public ledger that the trust policy names, as [Bank.WatchTopic]
	// found it last; nil if it has not looked.
	Ledger *LedgerStatus
	// Witnesses are those of the trust policy, in its order; none if it has no quorum.
	Witnesses []WitnessStatus
}

// WitnessStatus says what a witness did last.
type WitnessStatus struct {
	Name string // in the trust policy
	// Cosigned is when it last cosigned a head of the log that was the newest then.
	Cosigned time.Time
	// Err is why it gave nothing when it was last asked; nil also if it was not asked.
	Err error
}

// FollowStatus says how far the copy of a followed log is.
type FollowStatus struct {
	Origin string
	Size   int64 // of the verified head of the copy; -1 if that cannot be read
	// Reached is when a source last showed a head of the log that was accepted.
	Reached time.Time
	// Err is what went wrong at the last look, and why the copy's head cannot be read; nil
	// if nothing did.
	Err error
}

// Status returns how far the bank's logs are. It reads a few records on disk, asks
// nobody, and waits for no take and no publication. What cannot be read is said at its
// place, so that all else is told; the error is the context's.
func (b *Bank) Status(ctx context.Context) (Status, error) {
	var s Status
	if b.own != nil {
		own := b.ownStatus()
		s.Own = &own
	}
	followed := b.following.all()
	for _, origin := range slices.Sorted(maps.Keys(followed)) {
		f := followed[origin]
		of := FollowStatus{Origin: origin, Reached: f.reached, Err: f.err}
		var h anchor.Head
		p, err := b.policy(origin)
		if err == nil {
			h, err = b.copyHead(ctx, p)
		}
		if of.Size = h.Size; err != nil && !errors.Is(err, ErrNotFound) {
			of.Size, of.Err = -1, errors.Join(of.Err, err)
		}
		s.Followed = append(s.Followed, of)
	}
	return s, ctx.Err()
}

func (b *Bank) ownStatus() OwnStatus {
	s := OwnStatus{Origin: b.own.Origin, Ledger: b.ledger.topic.Load()}
	var published anchor.Head
	if log := b.ledger.log.Load(); log != nil {
		s.Open, s.Signed = true, log.Head().Size
		published, _ = log.Published()
		s.Published = published.Size
		s.Receipts = published.Size
		if b.own.Quorum {
			s.Receipts = min(s.Receipts, b.ledger.cosigned.Load())
		}
	}
	why, err := b.repo.Record(stoppedKind, b.ledger.stoppedKey())
	s.Stopped = why != nil || err != nil
	for _, name := range names(b.own) {
		n, err := b.repo.Name(name)
		if errors.Is(err, node.ErrNoName) {
			continue
		}
		if err != nil {
			s.NameErr = err
			continue
		}
		s.NameSize, s.NameSigned = nameSize(n), n.Expires.Add(-nameLife)
	}
	if b.own.Quorum {
		s.Witnesses = b.ledger.witnessing.status(b.own, published)
	}
	return s
}

// witnessing remembers what became of asking witnesses.
type witnessing struct {
	mu   sync.Mutex
	last map[string]WitnessStatus
}

// note adds the newest reports.
func (w *witnessing) note(reports []anchor.WitnessReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		w.last = map[string]WitnessStatus{}
	}
	for _, r := range reports {
		s := WitnessStatus{Name: r.Witness, Cosigned: r.Time, Err: r.Err}
		if r.Err != nil {
			s.Cosigned = w.last[r.Witness].Cosigned
		}
		w.last[r.Witness] = s
	}
}

// status returns what each witness of a policy did last; of those that have not cosigned
// since the bank was opened as far as the published head tells.
func (w *witnessing) status(p *anchor.Policy, published anchor.Head) []WitnessStatus {
	before := anchor.CosignedAt(p, published)
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []WitnessStatus
	for _, of := range p.Witnesses {
		s := w.last[of.Name]
		s.Name = of.Name
		if s.Cosigned.IsZero() {
			s.Cosigned = before[of.Name]
		}
		out = append(out, s)
	}
	return out
}

// following remembers how the followers of logs fare, by origin.
type following struct {
	mu   sync.Mutex
	logs map[string]followedLog
}

// followedLog is how it went last with one log.
type followedLog struct {
	reached time.Time
	err     error
}

// note changes what is known of a log.
func (f *following) note(origin string, change func(*followedLog)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.logs[origin]
	change(&l)
	f.logs[origin] = l
}

func (f *following) all() map[string]followedLog {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.logs)
}
