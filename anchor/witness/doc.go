// Package witness is the witness protocol of transparency logs: a client for logs and
// their readers, and a server for whoever wants to be a witness.
//
// A witness cosigns a head of a log only if the log proves that it extends what the
// witness cosigned before. A log whose heads need the cosignatures of a quorum cannot
// show one history to some and another to others, and who is shown an old head is told
// so by the witnesses.
//
// # Specifications
//
//   - c2sp.org/tlog-witness: add-checkpoint, and the retrieval of the latest cosigned
//     checkpoint by monitors. Not sign-subtree, which is optional.
//   - c2sp.org/tlog-cosignature: timestamped Ed25519 cosignatures (cosignature/v1).
//
// # What this package may touch
//
// HTTP. A server keeps what it has cosigned through [Heads], and knows no disk.
package witness

import (
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// maxProof is how many hashes a consistency proof has at most.
	maxProof = 63
	// maxBody is the length in bytes of the longest request: a proof, and a
	// checkpoint of at most anchor.MaxCheckpointSize.
	maxBody = 64<<10 + 8<<10
	// maxAnswer is the length in bytes of the longest answer that is read.
	maxAnswer = 16 << 10
	// maxSize bounds the sizes of trees, as in package anchor.
	maxSize = 1<<62 - 1
	// sizeType is the media type of the body of a 409.
	sizeType = "text/x.tlog.size"

	// DefaultTimeout bounds one request to a witness.
	DefaultTimeout = 5 * time.Second
)

// request is the body of add-checkpoint.
type request struct {
	old        int64
	proof      tlog.TreeProof
	checkpoint []byte
}
