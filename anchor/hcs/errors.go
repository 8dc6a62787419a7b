package hcs

import (
	"errors"
	"fmt"
)

// Errors that a caller decides by. Beside them, anchor.ErrUnavailable says that fewer
// than [MinMirrors] mirrors answered, or no node of the ledger.
var (
	// ErrSize: a head whose message would be longer than [MaxMessageSize].
	ErrSize = errors.New("head does not fit into one topic message")
	// ErrRefused: the ledger does not take the message, and will not take it again
	// unless something is changed: the account, its balance, a key, the topic.
	ErrRefused = errors.New("ledger refuses the topic message")
	// ErrReceipt: the ledger took the message, and says of its place what cannot be checked
	// here: a running hash of another version, or none.
	ErrReceipt = errors.New("receipt of a topic message is of no known form")
	// ErrForeign: a topic message that is not a head in this package's form.
	ErrForeign = errors.New("topic message is not a log head")
	// ErrMirrors: a list of mirrors that cannot be used.
	ErrMirrors = errors.New("unusable list of mirror nodes")
	// ErrChain: a mirror shows messages that do not make a topic; see [ChainError].
	ErrChain = errors.New("topic messages do not match their running hash")
	// ErrDisagree: two mirrors show different messages; see [DisagreementError].
	ErrDisagree = errors.New("mirror nodes disagree")
	// ErrTruncated: a mirror does not show a message known from earlier.
	ErrTruncated = errors.New("mirror node lacks a message that is known")
)

// ChainError says where what a mirror shows stops being a topic: a message changed,
// missing, out of order, or of another topic. It is an [ErrChain].
type ChainError struct {
	Mirror string
	// Sequence is the number that the message at fault should have.
	Sequence int64
	Err      error
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("%v: %s, message %d: %v", ErrChain, e.Mirror, e.Sequence, e.Err)
}

// Unwrap returns ErrChain and the reason.
func (e *ChainError) Unwrap() []error { return []error{ErrChain, e.Err} }

// DisagreementError is the evidence of an [ErrDisagree]: two messages that two mirrors
// show in one place of a topic. Anybody can check it: both messages' Hash(Previous.RunningHash)
// is their RunningHash, and one topic has only one such message. At least one mirror
// lies.
type DisagreementError struct {
	// Previous is the last message on which both agree; zero before the first.
	Previous Position
	// Mirrors are the two that disagree, Messages what each shows.
	Mirrors  [2]string
	Messages [2]Message
}

func (e *DisagreementError) Error() string {
	a := e.Messages[0]
	return fmt.Sprintf("%v about message %d of topic %v: %s shows running hash %v, %s %v",
		ErrDisagree, a.Sequence, a.Topic, e.Mirrors[0], a.RunningHash, e.Mirrors[1], e.Messages[1].RunningHash)
}

// Unwrap returns ErrDisagree.
func (e *DisagreementError) Unwrap() error { return ErrDisagree }
