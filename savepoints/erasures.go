package savepoints

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// erasures knows which IPFS blocks logs, trusted or not, say are erased, for those who ask
// of a block alone. It is shared by all views of a bank.
type erasures struct {
	b *Bank

	mu     sync.Mutex
	loaded bool
	known  map[cid.Cid][]string // documents, and their raw blocks: the logs that erased them
	large  map[cid.Cid]bool     // documents whose blocks are not known yet
	// documents are those of each log.
	documents map[string]map[cid.Cid]bool
	// look says that nodes may have come since these were looked for.
	look bool

	// proven are the entries that records prove, by the keys of these, and kept the size
	// of a log up to which all that it erased has its record, by the log's policy.
	proven map[string]provenErasure
	kept   map[*anchor.Policy]int64

	// removals counts the times at which IPFS blocks were removed. Guarded by keeping.
	removals int
}

func newErasures(b *Bank) *erasures {
	return &erasures{b: b, large: map[cid.Cid]bool{}, known: map[cid.Cid][]string{}, documents: map[string]map[cid.Cid]bool{}, proven: map[string]provenErasure{}, kept: map[*anchor.Policy]int64{}}
}

// verifiedAs is what a proof was verified with.
type verifiedAs struct {
	policy *anchor.Policy
	proof  [sha256.Size]byte
}

type provenErasure struct {
	as   verifiedAs
	said *entry.Erase
}

// verified returns the entry that a record was found to prove; nil if it was not, or with
// something else.
func (e *erasures) verified(key string, as verifiedAs) *entry.Erase {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.proven[key]; p.as == as {
		return p.said
	}
	return nil
}

func (e *erasures) setVerified(key string, as verifiedAs, said *entry.Erase) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.proven[key] = provenErasure{as, said}
}

func (e *erasures) keptUpTo(p *anchor.Policy) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.kept[p]
}

func (e *erasures) setKept(p *anchor.Policy, size int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kept[p] = max(e.kept[p], size)
}

func (e *erasures) add(origin string, documents []cid.Cid) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.addLocked(origin, documents)
}

func (e *erasures) addLocked(origin string, documents []cid.Cid) {
	for _, c := range documents {
		if e.documents[origin] == nil {
			e.documents[origin] = map[cid.Cid]bool{}
		}
		if e.documents[origin][c] {
			continue
		}
		e.documents[origin][c] = true
		e.note(origin, c)
		if c.Type() != cid.Raw {
			e.large[c], e.look = true, true
		}
	}
}

func (e *erasures) note(origin string, c cid.Cid) {
	if !slices.Contains(e.known[c], origin) {
		e.known[c] = append(e.known[c], origin)
	}
}

// came says that the nodes of another save point are here.
func (e *erasures) came() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.look = true
}

// gone reports whether some log says of a document, or of the one that a raw IPFS block is
// part of, that it was erased.
func (e *erasures) gone(ctx context.Context, c cid.Cid) bool { return len(e.by(ctx, c)) > 0 }

// goneFrom reports whether a certain log does.
func (e *erasures) goneFrom(ctx context.Context, origin string, c cid.Cid) bool {
	return slices.Contains(e.by(ctx, c), origin)
}

// by returns the logs that erased a document or one that a raw IPFS block is part of.
func (e *erasures) by(ctx context.Context, c cid.Cid) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.loaded {
		e.loaded = e.load() == nil
	}
	if e.look {
		e.look = e.resolve(ctx) != nil
	}
	return e.known[c]
}

// resolve finds the raw blocks of large documents whose nodes are here.
func (e *erasures) resolve(ctx context.Context) error {
	for doc := range e.large {
		var leaves []cid.Cid
		for part, err := range dag.Walk(ctx, e.b.repo.Blocks, dag.Limits{}, doc) {
			if err != nil {
				leaves = nil // its nodes have not come yet
				break
			}
			if part.Type() == cid.Raw {
				leaves = append(leaves, part)
			}
		}
		if leaves == nil {
			continue
		}
		delete(e.large, doc)
		for _, origin := range e.known[doc] {
			for _, c := range leaves {
				e.note(origin, c)
			}
		}
	}
	return ctx.Err()
}

func (e *erasures) load() error {
	keys, err := e.b.repo.Records(erasureKind)
	if err != nil {
		return err
	}
	for _, key := range keys {
		proof, err := e.b.repo.Record(erasureKind, key)
		if err != nil {
			return err
		}
		_, record, err := anchor.ProofRecord(proof)
		if err != nil {
			continue
		}
		if said, err := entry.Decode(record); err == nil {
			if said, ok := said.(*entry.Erase); ok {
				e.addLocked(said.Origin, said.Documents)
			}
		}
	}
	return nil
}

// needed returns those of some IPFS blocks that logs erased which something here needs all
// the same: a save point of a log that did not erase it, or a pin of no save point.
func (b *Bank) needed(ctx context.Context, blocks []cid.Cid) ([]cid.Cid, error) {
	pins, err := b.repo.Pins()
	if err != nil {
		return nil, err
	}
	logs, _, err := b.receiptLogs() // what a damaged one is of is here for no log
	if err != nil {
		return nil, err
	}
	roots := map[string][]cid.Cid{} // by log; "": of none
	for _, p := range pins {
		origins := logs[p.CID]
		if p.Owner != "" || len(origins) == 0 {
			origins = []string{""}
		}
		for _, origin := range origins {
			roots[origin] = append(roots[origin], p.CID)
		}
	}
	var out []cid.Cid
	for origin, roots := range roots {
		found, err := dag.Needed(ctx, b.repo.Blocks, blocks, b.erasures.of(origin), roots)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return sortCIDs(out), nil
}

// of returns the documents that a log erased.
func (e *erasures) of(origin string) map[cid.Cid]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.documents[origin])
}
