package savepoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// stoppedKind has, by log, why this host must not go on with its own log: somebody has
// seen more of it, or another history. It stays until a quorum of witnesses, or a place
// that the trust policy names, says that what is here is the newest.
const stoppedKind = "stopped"

func (l *ledger) stoppedKey() string { return LogID(l.b.own.Origin)[:16] }

// stop durably keeps this host from signing, and returns err with what to do.
func (l *ledger) stop(err error) error {
	err = l.b.advise(err)
	why := fmt.Sprintf("%s: %v", time.Now().UTC().Format(time.RFC3339), err)
	return errors.Join(err, l.b.repo.PutRecord(stoppedKind, l.stoppedKey(), []byte(why)))
}

// askTimeout bounds how long the first append waits for witnesses that may have seen
// more of the log: one that does not answer keeps nobody from saving.
const askTimeout = 2 * time.Second

// ask refuses to sign if a witness, or a place that the trust policy names, says that
// this repository is an old copy. They are asked before the first append, once, and
// again as long as this host is stopped.
func (l *ledger) ask(ctx context.Context) error {
	why, err := l.b.repo.Record(stoppedKind, l.stoppedKey())
	if err != nil {
		return err
	}
	stopped := why != nil
	if l.asked && !stopped {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	agreed, err := l.b.askMirrors(limited)
	var noQuorum error
	if err == nil && l.b.own.Quorum {
		defer l.b.repo.Blocks.Hold().Release()
		var out anchor.Cosigned
		out, noQuorum = l.log.Load().Publish(limited, l.witnesses)
		l.witnessing.note(out.Reports)
		agreed = noQuorum == nil
	}
	switch {
	case mustStop(err) || mustStop(noQuorum):
		return l.stop(cmp.Or(err, noQuorum))
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case errors.Is(noQuorum, anchor.ErrStale):
		return fmt.Errorf("the clocks of this machine and of witnesses disagree, and time in the log never goes back: %w", noQuorum)
	case stopped && !agreed:
		return fmt.Errorf("%w: this host was told to stop (%s), and nobody says yet that its log is the newest", anchor.ErrRollback, why)
	case stopped:
		if err := l.b.repo.DeleteRecord(stoppedKind, l.stoppedKey()); err != nil {
			return err
		}
	}
	// Who did not answer is not waited for again: whoever publishes asks them anyway.
	l.asked = true
	return nil
}
