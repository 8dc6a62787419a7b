package savepoints

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
)

// sourceError is what is wrong with what a source showed.
type sourceError struct {
	source string
	err    error
}

func (e *sourceError) Error() string { return e.source + ": " + e.err.Error() }

func (e *sourceError) Unwrap() error { return e.err }

// advised is an outcome that has been through advise.
type advised struct{ error }

func (e advised) Unwrap() error { return e.error }

// advise adds to an outcome what to do next, and keeps the evidence that it has. It does
// so once.
func (b *Bank) advise(err error) error {
	if errors.As(err, new(advised)) {
		return err
	}
	kept, evidenceErr := b.keepEvidence(err)
	if evidenceErr != nil {
		err = errors.Join(err, fmt.Errorf("evidence could not be kept: %w", evidenceErr))
	}
	switch {
	case kept != "" && errors.Is(err, anchor.ErrFork):
		err = fmt.Errorf("%w (evidence that others can check: %s)", err, kept)
	case kept != "":
		err = fmt.Errorf("%w (what was shown is noted in %s)", err, kept)
	}
	switch {
	case errors.Is(err, anchor.ErrFork):
		err = fmt.Errorf("%w. Believe neither history: ask the log's keeper and the witnesses which one is right; nothing was taken from either", err)
	case errors.Is(err, anchor.ErrRollback):
		err = fmt.Errorf("%w. There is a newer log than this: ask other sources (--from); what is newer and lost everywhere can only be given up by a trust policy that does not demand it, in a repository that has not seen it", err)
	case errors.Is(err, anchor.ErrStale):
		err = fmt.Errorf("%w. Ask again when they can be reached, ask other sources (--from), or take it as it is and have that noted (--accept-stale)", err)
	case errors.Is(err, hcs.ErrChain) || errors.Is(err, hcs.ErrDisagree):
		err = fmt.Errorf("%w. A mirror node that the trust policy names lies, or somebody on the way to it; of the log nothing is wrong. Ask from another network, name other mirror nodes, or take the log as it is and have that noted (--accept-stale)", err)
	default:
		return err
	}
	return advised{err}
}

const evidenceDir = "evidence"

// keepEvidence writes to a file what an error proves against a log, or that an old head of
// it was shown, and returns its path; empty if it is neither. Of the same two roots the
// first is kept.
func (b *Bank) keepEvidence(err error) (string, error) {
	var data []byte
	var old, new anchor.Head
	var fork *anchor.ForkError
	var entries *anchor.EntriesError
	var rollback *anchor.RollbackError
	var encodeErr error
	switch {
	case errors.As(err, &fork):
		old, new = fork.Old, fork.New
		data, encodeErr = fork.Evidence()
	case errors.As(err, &entries):
		if data, encodeErr = entries.Evidence(); encodeErr == nil {
			return b.writeEvidence(entries.Origin, entries.Index, entries.Index, data, entries.Old, entries.New)
		}
	case errors.As(err, &rollback) && rollback.Old.Checkpoint != nil && rollback.New.Checkpoint != nil:
		old, new = rollback.Old, rollback.New
		source := "unknown"
		var shown *sourceError
		if errors.As(err, &shown) {
			source = shown.source
		}
		data, encodeErr = rollback.Observation(source, time.Now())
	}
	if encodeErr != nil || data == nil {
		return "", encodeErr
	}
	return b.writeEvidence(new.Origin, old.Size, new.Size, data, old.RootHash[:], new.RootHash[:])
}

// writeEvidence names evidence by the log, two numbers, and what it is of.
func (b *Bank) writeEvidence(origin string, x, y int64, data []byte, of ...[]byte) (string, error) {
	sum := sha256.New()
	for _, part := range of {
		sum.Write(part)
	}
	name := fmt.Sprintf("%s/%s-%d-%d-%x.json", evidenceDir, LogID(origin)[:16], x, y, sum.Sum(nil)[:8])
	path := filepath.Join(b.repo.Dir(), name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, b.repo.WriteFile(name, data)
}
