package mrv

import (
	"errors"
	"fmt"
)

// What can be wrong with a policy definition. ParsePolicy returns them inside
// a *PolicyError; test for them with errors.Is.
var (
	// ErrMalformedPolicy: not JSON, an unknown field, or a missing one.
	ErrMalformedPolicy = errors.New("malformed policy")
	// ErrUnknownBlockType: a block type that this runner cannot execute.
	ErrUnknownBlockType = errors.New("unknown block type")
	// ErrDuplicateTag: two blocks share a tag.
	ErrDuplicateTag = errors.New("duplicate tag")
	// ErrDuplicateSaveStateTag: two save-state blocks share a tag, so a save
	// could not be asked for by its tag.
	ErrDuplicateSaveStateTag = errors.New("duplicate save-state tag")
	// ErrInvalidSaveStateOption: a save-state block with a title, when or
	// mode that has no meaning.
	ErrInvalidSaveStateOption = errors.New("invalid save-state option")
	// ErrUnknownEventTag: an event whose source or target is no block.
	ErrUnknownEventTag = errors.New("event names an unknown tag")
	// ErrInvalidEvent: an event that its source never sends or that its
	// target does not take.
	ErrInvalidEvent = errors.New("invalid event")
	// ErrInvalidOption: an option of any other block out of its range.
	ErrInvalidOption = errors.New("invalid option")
)

// What can be wrong with a state to be loaded. Load returns them inside a
// *StateError; test for them with errors.Is.
var (
	// ErrMalformedState: a document that cannot be read, or has a path that
	// no document of a state has.
	ErrMalformedState = errors.New("malformed document")
	// ErrMissingDocument: the state is not whole.
	ErrMissingDocument = errors.New("missing document")
	// ErrUnexpectedDocument: a document too many, or one given twice.
	ErrUnexpectedDocument = errors.New("unexpected document")
	// ErrPolicyMismatch: the state was made under another policy definition.
	ErrPolicyMismatch = errors.New("state belongs to another policy")
	// ErrUnknownTag: the state speaks of a block that the policy lacks, or
	// that cannot hold such a state.
	ErrUnknownTag = errors.New("unknown block tag")
	// ErrHashMismatch: a stored credential does not have its recorded hash.
	ErrHashMismatch = errors.New("hash mismatch")
)

// What can stop a step.
var (
	// ErrInvalidInput: a script entry that no run could take (see New).
	ErrInvalidInput = errors.New("invalid input")
	// ErrInputRefused: the policy does not take this input now: the block is
	// not active, the user lacks the role, or the data breaks the schema.
	ErrInputRefused = errors.New("input refused")
	// ErrDone: Step was called although nothing is left to do.
	ErrDone = errors.New("the run is done")
	// ErrBusy: Step was called while another Step of the same Runner was
	// running, for example from a hook.
	ErrBusy = errors.New("a step is already running")
	// ErrChainTooLong: the events of one step never come to rest.
	ErrChainTooLong = errors.New("event chain too long")
)

// PolicyError says what in a policy definition is refused, and why.
type PolicyError struct {
	Tag   string // the block, empty if the fault is not in one block
	Field string // the field, if one can be named
	Value string // its value, cut to a readable length
	Err   error  // one of the policy errors above, or a cause wrapping it
}

func (e *PolicyError) Error() string {
	s := "policy"
	if e.Tag != "" {
		s += fmt.Sprintf(": block %q", e.Tag)
	}
	if e.Field != "" {
		s += fmt.Sprintf(": %s = %q", e.Field, e.Value)
	}
	return s + ": " + e.Err.Error()
}

func (e *PolicyError) Unwrap() error { return e.Err }

// StateError says which document of a state is refused, and why.
type StateError struct {
	Path string // the document
	Err  error  // one of the state errors above, or a cause wrapping it
}

func (e *StateError) Error() string { return fmt.Sprintf("state: %s: %v", e.Path, e.Err) }

func (e *StateError) Unwrap() error { return e.Err }

// InputError says which input of the script is refused, and why.
type InputError struct {
	Index int    // place in the script, from 1
	Block string // the block the input was meant for
	Err   error  // ErrInvalidInput or ErrInputRefused, wrapped with the reason
}

func (e *InputError) Error() string {
	return fmt.Sprintf("input %d for block %q: %v", e.Index, e.Block, e.Err)
}

func (e *InputError) Unwrap() error { return e.Err }

// BlockError says in which block a step failed.
type BlockError struct {
	Tag string
	Err error
}

func (e *BlockError) Error() string { return fmt.Sprintf("block %q: %v", e.Tag, e.Err) }

func (e *BlockError) Unwrap() error { return e.Err }

// SaveError says which save was refused by the Save hook.
type SaveError struct {
	Height uint64
	Blocks []string
	Err    error // what the hook returned
}

func (e *SaveError) Error() string {
	return fmt.Sprintf("save at height %d for %q: %v", e.Height, e.Blocks, e.Err)
}

func (e *SaveError) Unwrap() error { return e.Err }

// shown cuts a value for an error text.
func shown(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}
