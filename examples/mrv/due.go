package mrv

import (
	"fmt"
	"time"
)

// due finds what the next step starts with: a timer or, if timer is nil, an
// input. ok is false if there is nothing.
func (t *tx) due() (in inputRow, timer *block, ok bool, err error) {
	if t.run.Ended {
		return in, nil, false, nil
	}
	timer, at, err := t.nextTimer()
	if err != nil {
		return in, nil, false, err
	}
	if t.run.NextInput > t.run.Inputs {
		return in, timer, timer != nil, nil
	}
	in, err = mustRead[inputRow](t, docPath(colInputs, inputID(t.run.NextInput)))
	if err != nil {
		return in, nil, false, err
	}
	if timer != nil && at.After(in.At) {
		timer = nil
	}
	return in, timer, true, nil
}

// nextTimer finds the active timer that is due first; of two due at one time,
// the one that comes first in the policy.
func (t *tx) nextTimer() (next *block, at time.Time, err error) {
	for _, b := range t.policy.blocks {
		if b.kind != kindTimer {
			continue
		}
		row, found, err := read[timerRow](t, docPath(colTimers, b.tag))
		if err != nil {
			return nil, at, err
		}
		if found && row.Active && (next == nil || row.NextFire.Before(at)) {
			next, at = b, row.NextFire
		}
	}
	return next, at, nil
}

// consume takes an input out of the queue and hands it to its block.
func (t *tx) consume(in inputRow) error {
	t.advance(in.At)
	t.run.NextInput++
	t.del(docPath(colInputs, inputID(in.Index)))
	b := t.policy.byTag[in.Block]
	err := t.accept(in)
	if err == nil {
		err = t.leave(b)
	}
	if err != nil {
		return &InputError{Index: in.Index, Block: in.Block, Err: err}
	}
	t.what = fmt.Sprintf("%s input %d: %s at %s", t.stamp(), in.Index, in.User, in.Block)
	return nil
}

// fire lets a timer tick once. It waits to be started again.
func (t *tx) fire(b *block) error {
	path := docPath(colTimers, b.tag)
	row, err := mustRead[timerRow](t, path)
	if err != nil {
		return err
	}
	t.advance(row.NextFire)
	docs, err := t.credentials(row.Documents)
	if err != nil {
		return err
	}
	row.Active, row.Documents = false, []string{}
	row.Ticks++
	if err := t.put(path, row); err != nil {
		return err
	}
	t.emit(b, eventTimer, payload{docs: docs})
	t.what = fmt.Sprintf("%s timer %s: tick %d", t.stamp(), b.tag, row.Ticks)
	return nil
}

// advance moves the logical clock; it never goes back, for a timer may be
// started after its time has come.
func (t *tx) advance(at time.Time) {
	if at.After(t.run.Clock) {
		t.run.Clock = at.UTC()
	}
}

func (t *tx) stamp() string { return t.now().Format(time.DateOnly) }
