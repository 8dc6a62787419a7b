package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// What no script can bring about in a real process: writers beside each other past all
// locks, and errors that are of several kinds.
func TestClassify(t *testing.T) {
	join := errors.Join
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{anchor.ErrHeadChanged, exitHeld, "log_head_changed"},
		{fmt.Errorf("%w: %w", anchor.ErrPoisoned, anchor.ErrHeadChanged), exitHeld, "log_head_changed"},
		{anchor.ErrPoisoned, exitFailed, "failed"},
		{fmt.Errorf("%w: %w", anchor.ErrPoisoned, &anchor.RollbackError{}), exitDecide, "log_rollback"},
		{entry.ErrRule, exitVerification, "log_rule_broken"},
		{entry.ErrFrozen, exitDecide, "log_frozen"}, // an ErrRule
		{entry.ErrUnknownType, exitVerification, "unknown_entry"},
		{join(anchor.ErrUnavailable, &anchor.ForkError{}), exitDecide, "log_fork"},
		{join(anchor.ErrUntrusted, anchor.ErrNoQuorum), exitNotFound, "no_quorum"},
		{join(anchor.ErrUnavailable, anchor.ErrUntrusted), exitVerification, "log_not_trusted"},
		{join(savepoints.ErrNotFound, savepoints.ErrDamaged), exitVerification, "damaged"},
		{&anchor.PolicyError{Err: errors.New("x")}, exitVerification, "trust_policy_unusable"},
		{savepoints.ErrLogExists, exitDecide, "repository_exists"},
		{errors.New("disk full"), exitFailed, "failed"},
	} {
		if got := classify(context.Background(), fmt.Errorf("wrapped: %w", c.err)); got.status != c.status || got.code != c.code {
			t.Errorf("%v: %d %s, not %d %s", c.err, got.status, got.code, c.status, c.code)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if got := classify(ended, anchor.ErrFork); got.status != exitInterrupted {
		t.Errorf("interrupted: %d", got.status)
	}
	codes := map[string]bool{}
	for _, f := range failures {
		if codes[f.code] || f.status < exitFailed || f.status > exitHeld {
			t.Errorf("%s: said twice, or of no status", f.code)
		}
		codes[f.code] = true
	}
}
