package savepoints

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// stoppedKind has, by log, why this host must not go on with its own log.
const stoppedKind = "stopped"

// stoppedRecord says who has seen more of the log, or another history of it: JSON. What
// the log's own key signed stops this host until its log has grown from it, which of
// another history never happens. What a witness only claims stops it until a quorum of
// witnesses says that what is here is the newest.
type stoppedRecord struct {
	Version int       `json:"v"`
	Time    time.Time `json:"time"`
	Why     string    `json:"why"`   // for a person
	Heads   []string  `json:"heads"` // signed notes: the log here must extend them all
}

func (l *ledger) stoppedKey() string { return LogID(l.b.own.Origin)[:16] }

// stop durably keeps this host from signing, and returns err with what to do.
func (l *ledger) stop(err error) error {
	kept, evidenceErr := l.b.keepEvidence(err)
	if kept != "" {
		kept = " (see " + kept + ")"
	}
	r := stoppedRecord{Version: 1, Time: time.Now().UTC(), Why: err.Error() + kept, Heads: headsIn(err)}
	data, encodeErr := json.Marshal(r)
	if encodeErr == nil {
		encodeErr = l.b.repo.PutRecord(stoppedKind, l.stoppedKey(), data)
	}
	err = fmt.Errorf("%w%s. This host signs nothing more in this log: continue it in another repository, from its newest head (\"restore --log-key\")", err, kept)
	return errors.Join(advised{err}, evidenceErr, encodeErr)
}

// notOurs stops this host if an error says that somebody else has written its log.
func (b *Bank) notOurs(origin string, err error) error {
	if b.ledger == nil || origin != b.Origin() || !mustStop(err) || errors.As(err, new(advised)) {
		return err
	}
	return b.ledger.stop(err)
}

// headsIn returns the signed notes that an error is about.
func headsIn(err error) []string {
	var heads []anchor.Head
	var fork *anchor.ForkError
	var rollback *anchor.RollbackError
	if errors.As(err, &fork) {
		heads = append(heads, fork.Old, fork.New)
	}
	if errors.As(err, &rollback) {
		heads = append(heads, rollback.Old)
	}
	out := []string{}
	for _, h := range heads {
		if h.Checkpoint != nil {
			out = append(out, string(h.Checkpoint))
		}
	}
	return out
}

// askTimeout bounds how long the first append waits for each of those who may have seen
// more of the log: one that does not answer keeps nobody from saving.
const askTimeout = 2 * time.Second

// ask refuses to sign if a witness, or a place that the trust policy names, says that
// this repository is an old copy. They are asked before the first append, once, and
// again as long as this host is stopped.
func (l *ledger) ask(ctx context.Context) error {
	stopped, err := l.b.repo.Record(stoppedKind, l.stoppedKey())
	if err != nil || l.asked && stopped == nil {
		return err
	}
	// Nobody's silence is to keep another from being heard.
	limited, enough := context.WithTimeout(ctx, askTimeout)
	defer enough()
	var mirrorErr, witnessErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		if mirrorErr = l.b.askMirrors(limited); mustStop(mirrorErr) {
			enough()
		}
	})
	if l.b.own.Quorum {
		wg.Go(func() {
			defer l.b.repo.Blocks.Hold().Release()
			var out anchor.Cosigned
			out, witnessErr = l.log.Load().Publish(limited, l.witnesses)
			if l.witnessing.note(out.Reports); mustStop(witnessErr) {
				enough()
			}
		})
	}
	wg.Wait()
	switch {
	case mustStop(mirrorErr):
		return l.stop(mirrorErr)
	case mustStop(witnessErr):
		return l.stop(witnessErr)
	case ctx.Err() != nil:
		return ctx.Err()
	case mirrorErr != nil && limited.Err() == nil:
		return mirrorErr
	case errors.Is(witnessErr, anchor.ErrClock):
		return fmt.Errorf("time in the log never goes back: %w", witnessErr)
	case stopped != nil:
		if err := l.goOn(ctx, stopped, l.b.own.Quorum && witnessErr == nil); err != nil {
			return err
		}
	}
	// Who did not answer is not waited for again: whoever publishes asks them anyway.
	l.asked = true
	return nil
}

// goOn lifts the stop if its reason is gone. quorum is whether a quorum of witnesses says
// that the log here is the newest.
func (l *ledger) goOn(ctx context.Context, stopped []byte, quorum bool) error {
	var r stoppedRecord
	// A damaged record says no more than that there is one.
	if err := json.Unmarshal(stopped, &r); err != nil {
		r = stoppedRecord{Why: "the record of why is damaged"}
	}
	v, err := l.b.view(ctx, l.b.own)
	if err != nil {
		return err
	}
	for _, signed := range r.Heads {
		h, err := anchor.VerifyCheckpoint(l.b.own.KeyOnly(), []byte(signed))
		if err == nil {
			err = v.Extends(ctx, h)
		}
		if err != nil {
			return fmt.Errorf("%w: this host was stopped at %s: %s. Its log has not grown from what was seen: %w", anchor.ErrRollback, r.Time.Format(time.RFC3339), r.Why, err)
		}
	}
	if len(r.Heads) == 0 && !quorum {
		return fmt.Errorf("%w: this host was stopped at %s: %s. No quorum of witnesses says yet that its log is the newest", anchor.ErrRollback, r.Time.Format(time.RFC3339), r.Why)
	}
	// Another stop may have come meanwhile.
	if now, err := l.b.repo.Record(stoppedKind, l.stoppedKey()); err != nil || !bytes.Equal(now, stopped) {
		return errors.Join(err, fmt.Errorf("%w: this host was stopped again", anchor.ErrRollback))
	}
	if err := l.b.repo.DeleteRecord(stoppedKind, l.stoppedKey()); err != nil {
		return err
	}
	return l.open(ctx) // the log refused to go on, too
}
