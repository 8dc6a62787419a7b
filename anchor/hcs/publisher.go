package hcs

import (
	"context"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// Publisher puts heads of a log on a topic. The one that does is in the module
// anchor/hcs/publish, so that nobody else links the ledger's software development kit.
type Publisher interface {
	// Publish submits h, whose Root must be defined, and returns when the ledger has
	// put it in order. The error wraps ErrSize if it does not fit (see [FitHead]),
	// ErrRefused, ErrReceipt, or anchor.ErrUnavailable. After ErrReceipt it is on the topic,
	// and the receipt says what is known; after the last it may be there or not, and may be
	// published again, since readers take the first. Every wait is bounded, with or
	// without a deadline of ctx. Safe for concurrent use.
	Publish(ctx context.Context, h anchor.Head) (Receipt, error)
}

// Receipt is what the ledger says of a message that it has put in order. It is worth
// keeping: mirror nodes that do not lead to this position do not show the topic.
type Receipt struct {
	Topic EntityID
	Position
	// Transaction is the id of the transaction, "account@seconds.nanoseconds".
	Transaction string
}
