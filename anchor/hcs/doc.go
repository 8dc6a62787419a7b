// Package hcs reads heads of a log from a topic of the Hedera Consensus Service, as a
// second oracle beside witnesses: a public ledger that put the heads in order, gave
// each a time, and that the log's operator cannot rewrite.
//
// It is optional and reads over HTTP only, from mirror nodes. What publishes, through
// the ledger's own software development kit, is the module anchor/hcs/publish. Package
// savepoints asks here where a trust policy names a topic (anchor.PolicyTopic).
//
// # What a reading proves
//
// A topic has a running hash: each message's is the SHA-384 of the one before it, the
// message, its payer, its consensus time and its sequence number. [Read] recomputes
// it over every message from the first (or from a position verified earlier) and from
// at least two mirror nodes, which must agree on each. So, if one of them is honest:
//
//   - the messages up to the last one shown are all there, unchanged and in order;
//   - a head that the policy accepts was public at its consensus time;
//   - a larger head than the one returned was not on the topic up to that last message.
//
// # What it does not prove
//
//   - That the last message shown is the last one there is. A mirror may cut the tail,
//     and one that is merely slow looks the same. With two mirrors both must cut it;
//     [Report] says which one is behind.
//   - That the ledger's nodes agreed on these messages: the rows of a mirror node are
//     not signed. Mirrors that collude can invent a topic. They cannot invent a head of
//     the log, since only its key signs those, nor lead on from a position that is known
//     from elsewhere, as from a [Receipt].
//   - That the log published all its heads. No message is no proof of no head.
//   - That the heads extend each other: that takes the log's tiles. Two heads of one size
//     and different roots are a fork without more, and are reported as one.
//   - Anything by chunk_info of a row: the running hash does not cover it, so it is not
//     read.
//
// Anybody may write to a topic without a submit key. Messages that are not ours, and
// heads that the policy does not accept, are counted and ignored.
//
// # Specifications
//
//   - docs/formats.md, "Hedera Consensus Service": the message.
//   - hiero-consensus-node, ConsensusSubmitMessage and topicRunningHashVersion 3: the
//     running hash, a serialization stream of Java; see [Message.Hash].
//   - Mirror node REST API, GET /api/v1/topics/{id}/messages.
package hcs

const (
	// MaxMessageSize is the length in bytes of the longest message: what the ledger
	// takes in one chunk. A head that needs more is not published.
	MaxMessageSize = 1024
	// MinMirrors is how many mirror nodes must answer.
	MinMirrors = 2
)
