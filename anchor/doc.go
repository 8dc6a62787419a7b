// Package anchor is an append-only, tamper-evident log of opaque records.
//
// A log is a C2SP tlog-tiles log whose tiles are raw IPFS blocks in a UnixFS
// directory of tlog-tiles layout. Each signed head of it therefore has a log
// root CID, and /ipfs/<log root>/ on any gateway is an ordinary tlog-tiles
// prefix that any client of that specification reads and verifies.
//
// The package knows nothing of what a record says. It orders records, and it
// proves that a record is at its index and that a head extends an older one.
// It says nothing about recency: a head proves what is in the log, not that
// there is none newer.
//
// # Specifications
//
//   - c2sp.org/signed-note, "Format" and "Signatures": heads are notes signed
//     with Ed25519.
//   - c2sp.org/tlog-checkpoint, "Note text": origin, size, root hash. Heads with
//     extension lines are neither written nor accepted.
//   - c2sp.org/tlog-tiles, "Merkle Tree" and "Log Entries": paths, tiles of 256
//     hashes, entry bundles.
//   - c2sp.org/tlog-proof: proofs of one record, with the record in the line
//     "extra".
//   - c2sp.org/tlog-policy: who may sign a head; see [ParsePolicy].
//   - RFC 6962, section 2.1: the Merkle tree itself, as golang.org/x/mod/sumdb/tlog
//     computes it.
//
// # The parts
//
//   - [Open], [Log]: write a log of one's own.
//   - [OpenView], [View]: read anybody's log and make proofs.
//   - [Mirror], [LoadHead]: keep a verified copy of somebody's log.
//   - [VerifyProof]: check a proof with nothing but the policy.
//   - [CheckEvidence]: check what a [ForkError] or [EntriesError] proves.
//
// # What this package may touch
//
// Memory only. Blocks and heads go through a [Store], foreign logs come through
// a [Fetcher]. Nothing here knows a disk or a network.
package anchor

const (
	// MaxRecordSize is the length in bytes of the longest record. With its
	// length prefix of two bytes a record takes at most 4,096 bytes, so that a
	// bundle of 256 records is at most 1,048,576 bytes: exactly the chunk size
	// of the CID profile. Every tile and bundle is therefore one raw IPFS block.
	MaxRecordSize = 4094
	// MaxCheckpointSize is the length in bytes of the longest signed head that
	// is read.
	MaxCheckpointSize = 64 << 10
	// MaxProofSize is the length in bytes of the longest proof.
	MaxProofSize = 64 << 10
	// MaxPolicySize is the length in bytes of the longest policy.
	MaxPolicySize = 64 << 10
	// MaxOriginSize is the length in bytes of the longest origin.
	MaxOriginSize = 255
	// MaxEndpointSize is the length in bytes of the longest answer that a
	// [Fetcher] need return: an entry bundle, and some room.
	MaxEndpointSize = 1<<20 + 512
)

// maxSize bounds the sizes of trees: above it, indexes of stored hashes would
// not fit into 63 bits.
const maxSize = 1<<62 - 1
