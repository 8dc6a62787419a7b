package anchor

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Errors that a caller decides by. All are wrapped with what was found.
var (
	// ErrOrigin: a name that a log cannot have.
	ErrOrigin = errors.New("unusable log origin")
	// ErrPolicy: a trust policy that cannot be read; see [PolicyError].
	ErrPolicy = errors.New("unusable trust policy")
	// ErrUntrusted: a head that the policy does not accept: malformed, of
	// another origin, or not signed as the policy demands.
	ErrUntrusted = errors.New("log head is not trusted")
	// ErrCorrupt: a tile, a record, a proof or a stored head that does not
	// match the signed tree.
	ErrCorrupt = errors.New("log data does not match its signed tree")
	// ErrUnavailable: something could not be fetched. It says nothing about
	// whether the log is sound.
	ErrUnavailable = errors.New("log data is not available")
	// ErrRollback: a head smaller than one known before; see [RollbackError].
	ErrRollback = errors.New("log was rolled back")
	// ErrFork: two signed heads of which neither extends the other; see
	// [ForkError] and [EntriesError].
	ErrFork = errors.New("log has forked")
	// ErrNoQuorum: fewer witnesses cosigned a head than the trust policy demands.
	ErrNoQuorum = errors.New("no quorum of witnesses")
	// ErrStale: nobody who must be believed says that a head is the newest.
	ErrStale = errors.New("log head may be stale")
	// ErrClock: the cosignatures of a quorum of witnesses are of another time than this
	// machine's clock says. It comes with ErrNoQuorum.
	ErrClock = errors.New("clocks of this machine and of witnesses disagree")
	// ErrNoLog: the store holds no head of this log.
	ErrNoLog = errors.New("no such log")
	// ErrHeadChanged: somebody else moved the stored head.
	ErrHeadChanged = errors.New("log head was changed by another writer")
	// ErrPoisoned: an earlier append failed in a way that leaves open which
	// head is durable. The log has to be opened again.
	ErrPoisoned = errors.New("log must be opened again")
	// ErrRecordSize: a record of more than [MaxRecordSize] bytes.
	ErrRecordSize = errors.New("record is too long")
	// ErrNotIncluded: the log holds another record at that index, or none.
	ErrNotIncluded = errors.New("record is not at this index of the log")
)

// PolicyError says where a trust policy cannot be read. It is an [ErrPolicy].
type PolicyError struct {
	Line int // from 1; 0 where it concerns the whole
	Err  error
}

func (e *PolicyError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%v: %v", ErrPolicy, e.Err)
	}
	return fmt.Sprintf("%v: line %d: %v", ErrPolicy, e.Line, e.Err)
}

// Unwrap returns ErrPolicy and the reason.
func (e *PolicyError) Unwrap() []error { return []error{ErrPolicy, e.Err} }

// ForkError is the evidence of an [ErrFork]: two heads that one log signed.
// Anybody can check it: both checkpoints verify under the policy, and unless the
// sizes are equal, tlog.CheckTree(Proof, New.Size, New.RootHash, Old.Size, Root)
// shows that the first Old.Size records of New have the root hash Root, which is
// not Old.RootHash. Old has no checkpoint if it is the floor of a policy.
type ForkError struct {
	Old, New Head
	// Root is the root hash of New's first Old.Size records.
	Root tlog.Hash
	// Proof is the RFC 6962 consistency proof from Root to New; nil where the
	// sizes are equal or Old is empty.
	Proof tlog.TreeProof
}

func (e *ForkError) Error() string {
	return fmt.Sprintf("%v: %s: head of size %d with root %v does not extend head of size %d with root %v",
		ErrFork, e.New.Origin, e.New.Size, e.New.RootHash, e.Old.Size, e.Old.RootHash)
}

// Unwrap returns ErrFork.
func (e *ForkError) Unwrap() error { return ErrFork }

// EntriesError is the evidence of an [ErrFork] where the heads could not be compared: two
// proofs of different records at one index of one log. Anybody can check it: both verify
// under the policy.
type EntriesError struct {
	Origin   string
	Index    int64
	Old, New []byte // as at [VerifyProof]
}

func (e *EntriesError) Error() string {
	return fmt.Sprintf("%v: %s: two different records are proven to be at index %d", ErrFork, e.Origin, e.Index)
}

// Unwrap returns ErrFork.
func (e *EntriesError) Unwrap() error { return ErrFork }

// RollbackError says of an [ErrRollback] that New was presented although the larger Old
// had been signed. It proves nothing against the log, every head of which was once the
// newest: only who was shown New after Old knows.
type RollbackError struct {
	Old, New Head
}

func (e *RollbackError) Error() string {
	return fmt.Sprintf("%v: %s: head of size %d presented, size %d was known", ErrRollback, e.New.Origin, e.New.Size, e.Old.Size)
}

// Unwrap returns ErrRollback.
func (e *RollbackError) Unwrap() error { return ErrRollback }

// verification turns an error of the Merkle code into an ErrCorrupt, and leaves
// those that are not about the data: unavailability and cancellation.
func verification(err error) error {
	for _, known := range []error{ErrUnavailable, ErrCorrupt, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}
