package savepoints

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

const (
	// wholeKind has, by log, what an open found of the receipts of the own log.
	wholeKind = "whole"
	// wholeEvery is by how many entries a log has to grow until that is noted anew:
	// so many receipts are verified at each open.
	wholeEvery = 64
)

// wholeRecord says that the receipts of the own log were whole up to a size, so that not
// each open has to verify them all. It holds only for as many of them and under the same
// trust policy, and goes when one turns out to be damaged.
type wholeRecord struct {
	Version  int    `json:"v"`
	Size     int64  `json:"size"`
	Receipts int    `json:"receipts"` // of entries below size, those of retired save points too
	Cosigned int64  `json:"cosigned"` // up to which they have the cosignatures of the policy
	Policy   string `json:"policy"`   // the SHA-256 of trust.policy, in hexadecimal
	// Checkpoint is the newest signed head at that time, which the log must extend: the
	// receipts that are not verified again cannot say so.
	Checkpoint string `json:"checkpoint"`
}

// load reads the receipts and then the log, and finishes what a crash left between the
// two: an entry whose receipt is missing, or damaged, gets it.
func (l *ledger) load(ctx context.Context) error {
	h, _ := l.head()
	before, err := l.wholeBefore(ctx, h.Size)
	if err != nil {
		return err
	}
	l.whole, l.wholeCosigned = before.Size, before.Cosigned
	l.cosigned.Store(h.Size)
	if before.Cosigned < before.Size {
		l.cosigned.Store(before.Cosigned)
	}
	held, err := l.heldFrom(ctx, before.Size)
	if err != nil {
		return err
	}
	if err := l.finish(ctx, held); err != nil {
		return err
	}
	if l.done < before.Size+wholeEvery {
		return nil
	}
	return l.noteWhole()
}

// wholeBefore returns the record that an earlier open left; an empty one if it says
// nothing of the receipts that are here now.
func (l *ledger) wholeBefore(ctx context.Context, size int64) (wholeRecord, error) {
	data, err := l.b.repo.Record(wholeKind, LogID(l.b.own.Origin)[:16])
	if err != nil || data == nil {
		return wholeRecord{}, err
	}
	var r wholeRecord
	if err := json.Unmarshal(data, &r); err != nil || r.Version != 1 {
		return wholeRecord{}, nil
	}
	head, err := anchor.VerifyCheckpoint(l.b.own.KeyOnly(), []byte(r.Checkpoint))
	if err != nil {
		return wholeRecord{}, nil // of another key, or damaged
	}
	if err := l.has(ctx, head); err != nil {
		return wholeRecord{}, err
	}
	if r.Size > size {
		return wholeRecord{}, nil
	}
	now, err := l.wholeNow(r.Size)
	if err != nil || r.Receipts != now.Receipts || r.Policy != now.Policy {
		return wholeRecord{}, err
	}
	return r, nil
}

// wholeNow is the record of what is here.
func (l *ledger) wholeNow(size int64) (wholeRecord, error) {
	policy, err := l.b.repo.ReadFile(trustFile)
	if err != nil {
		return wholeRecord{}, err
	}
	sum := sha256.Sum256(policy)
	h, _ := l.head()
	r := wholeRecord{Version: 1, Size: size, Cosigned: min(size, l.cosigned.Load()), Policy: hex.EncodeToString(sum[:]), Checkpoint: string(h.Checkpoint)}
	for _, kind := range []string{receiptKind, retiredKind} {
		err := l.ownKeys(kind, func(_ string, index int64) error {
			if index < size {
				r.Receipts++
			}
			return nil
		})
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func (l *ledger) noteWhole() error {
	r, err := l.wholeNow(l.done)
	if err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	l.whole, l.wholeCosigned = r.Size, r.Cosigned
	return l.b.repo.PutRecord(wholeKind, LogID(l.b.own.Origin)[:16], data)
}

// noteCosigned notes anew that the receipts have their cosignatures, if what was noted
// says otherwise: else each open would make them again.
func (l *ledger) noteCosigned() error {
	if l.wholeCosigned >= l.whole {
		return nil
	}
	return l.noteWhole()
}

// notWhole has the next open verify all receipts.
func (b *Bank) notWhole() error {
	return b.repo.DeleteRecord(wholeKind, LogID(b.own.Origin)[:16])
}

// ownKeys calls f for the keys of records of entries of the own log.
func (l *ledger) ownKeys(kind string, f func(key string, index int64) error) error {
	keys, err := l.b.repo.Records(kind)
	if err != nil {
		return err
	}
	prefix := LogID(l.b.own.Origin)[:16] + "-"
	for _, key := range keys {
		digits, own := strings.CutPrefix(key, prefix)
		index, err := strconv.ParseInt(digits, 10, 64)
		if !own || err != nil {
			continue
		}
		if err := f(key, index); err != nil {
			return fmt.Errorf("%s of entry %d: %w", kind, index, err)
		}
	}
	return nil
}

// heldFrom returns for which entries, from an index on, there is a sound receipt, also
// of a save point that is retired. Those that lack cosignatures lower l.cosigned. A
// receipt is made after the head that it is under was signed: one under a head that the
// log does not have says that the log is an old copy (ErrRollback), or forked.
func (l *ledger) heldFrom(ctx context.Context, from int64) (map[int64]bool, error) {
	held := map[int64]bool{}
	var newest anchor.Head
	own := l.b.own
	for _, kind := range []string{receiptKind, retiredKind} {
		err := l.ownKeys(kind, func(key string, index int64) error {
			if index < from || ctx.Err() != nil {
				return ctx.Err()
			}
			proof, err := l.b.repo.Record(kind, key)
			if err != nil {
				return err
			}
			r, err := anchor.VerifyProof(own.KeyOnly(), proof)
			if err != nil || r.Index != index {
				return nil // damaged
			}
			if r.Head.Size > newest.Size {
				newest = r.Head
			}
			if s, err := entry.DecodeSavepoint(r.Record); err != nil || s.Origin != own.Origin {
				return nil
			}
			held[index] = true
			if _, err := anchor.VerifyCheckpoint(own, r.Head.Checkpoint); err != nil && kind == receiptKind {
				l.uncosigned(index)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return held, l.has(ctx, newest)
}

// has requires that the log extends a head that it once signed.
func (l *ledger) has(ctx context.Context, signed anchor.Head) error {
	h, _ := l.head()
	if signed.Size > h.Size {
		return l.stop(rolledBack(h, signed))
	}
	if signed.Size == 0 {
		return nil
	}
	v, err := l.b.view(ctx, l.b.own)
	if err == nil {
		err = v.Extends(ctx, signed)
	}
	if mustStop(err) {
		err = l.stop(err)
	}
	return err
}
