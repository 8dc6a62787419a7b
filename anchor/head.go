package anchor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/tlog"
)

// Store is what a log needs of its host. All methods are safe for concurrent use.
type Store interface {
	dag.Source
	dag.Sink
	// Sync returns when all blocks put before are on disk.
	Sync(ctx context.Context) error
	// Head returns the bytes last stored under name; nil, nil if there are none.
	Head(ctx context.Context, name string) ([]byte, error)
	// SwapHead durably replaces the bytes under name if they equal old, where
	// nil stands for none. Any error leaves it open which of the two is stored.
	SwapHead(ctx context.Context, name string, old, new []byte) error
}

// HeadName is the name under which a Store keeps the head of the log of the
// given origin: letters, digits and "-" only.
func HeadName(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return "log-" + hex.EncodeToString(sum[:])
}

// PendingName is the name under which a Store keeps the newest signed head of a log
// whose heads count only with the cosignatures of witnesses. What is under [HeadName]
// then is the newest that has them.
func PendingName(origin string) string { return HeadName(origin) + "-pending" }

// Head is a verified, signed head of a log (c2sp.org/tlog-checkpoint).
type Head struct {
	Origin   string
	Size     int64 // records in the log
	RootHash tlog.Hash
	// Root is the log root CID: the tlog-tiles directory of this head. It is
	// undefined where the head was not read from or written to a store.
	Root cid.Cid
	// Checkpoint is the signed note. It must not be changed.
	Checkpoint []byte
}

func (h Head) tree() tlog.Tree { return tlog.Tree{N: h.Size, Hash: h.RootHash} }

// VerifyCheckpoint reads a signed head, from wherever it came, and checks it against
// the policy. It does not compare it with the policy's floor, which takes tiles, and
// leaves Root undefined. The error wraps ErrUntrusted, or ErrPolicy if p is no policy.
func VerifyCheckpoint(p *Policy, signed []byte) (Head, error) { return verifyCheckpoint(p, signed) }

// verifyCheckpoint reads a signed head. The error wraps ErrUntrusted.
func verifyCheckpoint(p *Policy, signed []byte) (Head, error) {
	fail := func(err error) (Head, error) { return Head{}, fmt.Errorf("%w: %w", ErrUntrusted, err) }
	if p == nil || p.rule == nil {
		return Head{}, &PolicyError{Err: errors.New("no policy")}
	}
	if len(signed) > MaxCheckpointSize {
		return fail(fmt.Errorf("checkpoint has %d bytes, more than %d", len(signed), MaxCheckpointSize))
	}
	c, n, err := torchwood.VerifyCheckpoint(signed, p.rule)
	if err != nil {
		return fail(err)
	}
	switch {
	case c.Origin != p.Origin:
		return fail(fmt.Errorf("origin %q, not %q", c.Origin, p.Origin))
	case c.Extension != "":
		return fail(errors.New("checkpoint has extension lines"))
	case c.N > maxSize:
		return fail(fmt.Errorf("size %d is not possible", c.N))
	case c.N == 0 && c.Hash != emptyRoot():
		return fail(errors.New("empty tree with a wrong root hash"))
	}
	// Lenient base64 would let two different files pass for one signature.
	for _, s := range n.Sigs {
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return fail(fmt.Errorf("signature of %s: %w", s.Name, err))
		}
	}
	return Head{Origin: c.Origin, Size: c.N, RootHash: c.Hash, Checkpoint: bytes.Clone(signed)}, nil
}

// emptyRoot is the root hash of a tree without records.
func emptyRoot() tlog.Hash { return tlog.Hash(sha256.Sum256(nil)) }

// stored is a head as a Store holds it.
type stored struct {
	Head
	recent []recent
	record []byte // the bytes in the store; nil if there are none
}

// loadStored reads the head of p's log that is kept under a name; its record is nil
// if there is none. The head must satisfy p or an earlier policy of the log.
func loadStored(ctx context.Context, store Store, p *Policy, name string, earlier ...*Policy) (stored, error) {
	if p == nil || p.rule == nil {
		return stored{}, &PolicyError{Err: errors.New("no policy")}
	}
	b, err := store.Head(ctx, name)
	if err != nil || b == nil {
		return stored{}, err
	}
	r, root, err := decodeRecord(b)
	if err != nil {
		return stored{}, err
	}
	h, err := verifyCheckpoint(p, []byte(r.Checkpoint))
	for _, e := range earlier {
		if err == nil || e.Origin != p.Origin {
			continue
		}
		if then, thenErr := verifyCheckpoint(e, []byte(r.Checkpoint)); thenErr == nil {
			h, err = then, nil
		}
	}
	if err != nil {
		return stored{}, fmt.Errorf("stored head: %w", err)
	}
	if last := r.Recent[len(r.Recent)-1]; last.Size != h.Size {
		return stored{}, fmt.Errorf("%w: stored head has size %d, its newest entry says %d", ErrCorrupt, h.Size, last.Size)
	}
	h.Root = root
	return stored{h, r.Recent, b}, nil
}

// Stored is what the bytes that a Store holds as a head say, which nothing has verified.
type Stored struct {
	Root   cid.Cid // log root CID
	Size   int64
	Signed time.Time // when the size was signed, or received by a mirror
}

// ReadStored reads the bytes that a Store holds as a head. The error wraps ErrCorrupt.
func ReadStored(head []byte) (Stored, error) {
	r, root, err := decodeRecord(head)
	if err != nil {
		return Stored{}, err
	}
	last := r.Recent[len(r.Recent)-1]
	return Stored{root, last.Size, time.Unix(last.Time, 0)}, nil
}

// StoredRoot returns the log root CID in the bytes that a Store holds as a head, which
// it does not verify. The error wraps ErrCorrupt.
func StoredRoot(head []byte) (cid.Cid, error) {
	_, root, err := decodeRecord(head)
	return root, err
}

// LoadHead returns the durable head of the policy's log, verified again against
// the policy, or an earlier one of the same log by which it may have been stored, and
// against the policy's floor, and whether there is one. It reads tiles only to
// check the floor. The error wraps ErrUntrusted, ErrCorrupt, ErrFork,
// ErrRollback, ErrUnavailable, or is the store's own.
func LoadHead(ctx context.Context, store Store, p *Policy, earlier ...*Policy) (Head, bool, error) {
	if p == nil {
		return Head{}, false, &PolicyError{Err: errors.New("no policy")}
	}
	s, err := loadStored(ctx, store, p, HeadName(p.Origin), earlier...)
	if err != nil || s.record == nil {
		return Head{}, false, err
	}
	v := newView(LocalFetcher(store, s.Root), s.Head)
	if err := v.checkFloor(ctx, p); err != nil {
		return Head{}, false, err
	}
	return s.Head, true, nil
}

// commit makes h, whose tiles have been put, the durable head under a name in place
// of old.
// The order is what a crash relies on: all blocks are on disk before the head
// names them, so what is found later is the old head or this one, complete.
func commit(ctx context.Context, store Store, name string, t *tree, h Head, old []byte) (stored, error) {
	root, err := t.writeDirectory(ctx, store, h.Checkpoint)
	if err != nil {
		return stored{}, err
	}
	if err := store.Sync(ctx); err != nil {
		return stored{}, fmt.Errorf("sync of log tiles: %w", err)
	}
	h.Root = root
	record, err := encodeRecord(h, t.recent)
	if err != nil {
		return stored{}, err
	}
	if err := store.SwapHead(ctx, name, old, record); err != nil {
		now, readErr := store.Head(ctx, name)
		if readErr == nil && !bytes.Equal(now, old) && !bytes.Equal(now, record) {
			return stored{}, fmt.Errorf("%w: %w", ErrHeadChanged, err)
		}
		return stored{}, fmt.Errorf("swap of log head: %w", err)
	}
	return stored{h, t.recent, record}, nil
}
