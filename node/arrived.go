package node

import (
	"crypto/sha256"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// maxArrived is how many IPFS blocks an Arrived remembers, in about 80 bytes each.
const maxArrived = 1 << 19

// Arrived remembers the raw IPFS blocks, documents and parts of them, that a fetch
// brought and compared with their CIDs, so that whoever verifies what was fetched need
// not read them once more. It remembers half a million; the others are read. It is safe
// for concurrent use.
type Arrived struct {
	mu      sync.Mutex
	lengths map[[sha256.Size]byte]uint32
}

// add takes blocks that were compared with their CIDs and kept.
func (a *Arrived) add(blocks []dag.Block) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lengths == nil {
		a.lengths = map[[sha256.Size]byte]uint32{}
	}
	for _, b := range blocks {
		if b.CID.Type() == cid.Raw && len(a.lengths) < maxArrived {
			a.lengths[[sha256.Size]byte(b.CID.Hash()[2:])] = uint32(len(b.Data))
		}
	}
}

// Checked implements [dag.Checked].
func (a *Arrived) Checked(c cid.Cid) (length int, ok bool) {
	if c.Type() != cid.Raw || dag.CheckCID(c) != nil {
		return 0, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	n, ok := a.lengths[[sha256.Size]byte(c.Hash()[2:])]
	return int(n), ok
}
