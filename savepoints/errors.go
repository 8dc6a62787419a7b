package savepoints

import (
	"errors"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// Errors that a caller decides by.
var (
	// ErrUsage: an argument that cannot be used: a name, a reference, a source
	// that is not a folder or holds a symlink or device.
	ErrUsage = errors.New("cannot be used")
	// ErrNotFound: no such save point.
	ErrNotFound = errors.New("no such save point")
	// ErrAmbiguous: several logs hold such a save point.
	ErrAmbiguous = errors.New("several logs hold such a save point")
	// ErrConflict: the log already says something else about this point of the
	// policy's execution.
	ErrConflict = errors.New("conflict with an earlier save point")
	// ErrLogExists: the repository has a log, and is to get another one, or its keys. It is a
	// node.ErrRepoExists.
	ErrLogExists error = logExistsError{}
	// ErrNoLogKey: the repository follows logs and has none of its own.
	ErrNoLogKey = errors.New("repository has no log of its own")
	// ErrNoPolicyKey: the log names policies by a key that is not in the repository.
	ErrNoPolicyKey = errors.New("the key under which policy ids are private is missing")
	// ErrNotContinued: the keys of a log are here, and the log itself has to be found
	// and checked before it can be continued.
	ErrNotContinued = errors.New("the log has not been continued here yet")
	// ErrUnwitnessed: nobody can say whether what was found of a log is its newest head.
	ErrUnwitnessed = errors.New("no witness can say that this is the log's newest head")
	// ErrKeys: a file of exported keys that cannot be used.
	ErrKeys = errors.New("unusable key file")
	// ErrNoTrust: there is no trust policy for what is to be read.
	ErrNoTrust = errors.New("no trust policy")
	// ErrTrustConflict: another trust policy for the same log is in force.
	ErrTrustConflict = errors.New("another trust policy for this log is in force")
	// ErrDamaged: a save point that the repository should hold is not whole.
	ErrDamaged = errors.New("save point is damaged")
)

type logExistsError struct{}

func (logExistsError) Error() string { return "repository has a log already" }

func (logExistsError) Is(target error) bool { return target == node.ErrRepoExists }

// frozenError says that a log takes no more entries. It is an entry.ErrFrozen, and an
// ErrConflict: nothing has happened.
type frozenError struct{ origin string }

func (e frozenError) Error() string {
	return fmt.Sprintf("log %s is frozen: nothing follows in it. A policy goes on from its last save point in another log, of another repository: \"restore POLICY@latest --from SOURCE --to TARGET --trust FILE --new-log\"", e.origin)
}

// Unwrap returns entry.ErrFrozen and ErrConflict.
func (e frozenError) Unwrap() []error { return []error{entry.ErrFrozen, ErrConflict} }
