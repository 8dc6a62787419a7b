package savepoints

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// NewLogOptions says how the policy of a save point goes on in a new log.
type NewLogOptions struct {
	// Savepoint is the one from which the policy goes on. The repository holds it.
	Savepoint Savepoint
	// Sources are asked for the log it is in, of which the new one names the newest
	// head; with none the repository must have a copy.
	Sources []string
	// AcceptStale takes a log that may not be the newest, as at [FetchOptions]: its
	// witnesses may be gone with it.
	AcceptStale bool
	// Policy is the trust policy of its log.
	Policy []byte
	// Init describes the new log. If its Origin is empty, a name is made from that of
	// the other log.
	Init InitOptions
}

// NewLog makes the repository in dir, which must have no log of its own, go on with the
// policy of a save point of another log, whose key is not at hand. It gets a log whose
// first entry is a takeover that names the other log and its head. Who reads has to be
// given the trust policy of the new log. The error wraps node.ErrRepoExists if the
// repository has a log.
func NewLog(ctx context.Context, dir string, o NewLogOptions) (*Bank, error) {
	b, err := Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	err = b.prepareNewLog(ctx, o)
	if err = errors.Join(err, b.Close()); err != nil {
		return nil, fmt.Errorf("new log: %w", err)
	}
	return openAndTakeOver(ctx, dir)
}

func (b *Bank) prepareNewLog(ctx context.Context, o NewLogOptions) error {
	if err := hasNoKey(b.repo); err != nil {
		return err
	}
	if err := b.Keep(o.Policy); err != nil {
		return err
	}
	with, p, err := b.Trust(o.Policy)
	if err != nil {
		return err
	}
	defer b.repo.Blocks.Hold().Release()
	v, err := with.newestOf(ctx, p, ContinueOptions{Sources: o.Sources, acceptStale: o.AcceptStale})
	if err != nil {
		return err
	}
	h, err := historyOf(ctx, v)
	if err != nil {
		return err
	}
	origin, private := o.Init.Origin, o.Init.PrivateIDs || p.PrivateIDs
	if origin == "" {
		var suffix [4]byte
		if _, err := rand.Read(suffix[:]); err != nil {
			return err
		}
		origin = p.Origin + "/" + hex.EncodeToString(suffix[:])
	}
	if err := anchor.CheckOrigin(origin); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if origin == p.Origin {
		return fmt.Errorf("%w: a new log has another origin than the log that it follows, %s", ErrUsage, origin)
	}
	skey, vkey, err := anchor.GenerateKey(origin)
	if err != nil {
		return err
	}
	o.Init.PrivateIDs = private
	nameKey, err := node.NewNameKey()
	if err != nil {
		return err
	}
	name, err := node.NameOf(nameKey)
	if err != nil {
		return err
	}
	policy, err := o.Init.policy(vkey, nameScheme+name)
	if err != nil {
		return err
	}
	if private {
		if err := newPolicyKey(b.repo); err != nil {
			return err
		}
	}
	n := entry.Naming{Private: private}
	if private {
		if n.Secret, err = readHex(b.repo, policyKeyFile, entry.SecretSize); err != nil {
			return err
		}
	}
	s := o.Savepoint
	epoch, _ := h.EpochOf(s.Entry.Policy)
	t := &entry.Takeover{
		Common:   entry.Common{Origin: origin, Instance: s.Entry.Instance, Epoch: max(epoch, s.Entry.Epoch) + 1, Time: time.Now()},
		Previous: &entry.Previous{Origin: p.Origin, Checkpoint: v.Head().Checkpoint, Root: v.Head().Root},
	}
	t.Policy, _ = n.Key(s.Entry.Instance, s.Manifest.Policy.ID)
	record, err := encodeShortened(t)
	if err != nil {
		return err
	}
	if err := b.repo.PutRecord(takeoverKind, LogID(origin)[:16], record); err != nil {
		return err
	}
	return initLog(ctx, b.repo, s.Entry.Instance, skey, nameKey, policy)
}

// encodeShortened leaves out the last signatures of the other log's checkpoint, those of
// witnesses, if they are so many that the record would be too long.
func encodeShortened(t *entry.Takeover) ([]byte, error) {
	for {
		record, err := entry.Encode(t)
		short, cut := withoutLastSignature(t.Previous.Checkpoint)
		if err == nil || !cut {
			return record, err
		}
		t.Previous.Checkpoint = short
	}
}

// withoutLastSignature cuts the last line of a signed note, unless there is no other
// signature.
func withoutLastSignature(signed []byte) ([]byte, bool) {
	text := bytes.LastIndex(signed, []byte("\n\n"))
	i := bytes.LastIndexByte(bytes.TrimSuffix(signed, []byte("\n")), '\n')
	if text < 0 || i <= text+1 {
		return signed, false
	}
	return signed[:i+1], true
}
