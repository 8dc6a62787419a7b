package savepoints

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
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
	// Init describes the new log, or the one that began so. If its Origin is empty, a name
	// is made from that of the other log.
	Init InitOptions
}

// NewLog makes the repository in dir go on with the policy of a save point of another log,
// whose key is not at hand. It gets a log whose first entry is a takeover that names the
// other log and its head; if it has such a log already, of the same instance, the takeover
// is appended to that. Who reads has to be given the trust policy of the new log. The error
// wraps ErrLogExists if the repository has a log that began otherwise, in which the policy
// runs, or that is not as Init describes it, and entry.ErrFrozen if it has one that is frozen.
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

// CanTakeOver returns nil if [NewLog] can make the policy of another log's save point go on
// in the bank's repository. The sources are not asked. A takeover that was begun there is
// finished before. The error is as at [NewLog], or wraps ErrUsage if there is nothing to find
// the other log at.
func (b *Bank) CanTakeOver(ctx context.Context, o NewLogOptions) error {
	with, p, err := b.Trust(o.Policy)
	if err != nil {
		return err
	}
	if err := with.canFind(ctx, p, o.Sources); err != nil {
		return err
	}
	if b.own == nil {
		return hasNoKey(b.repo)
	}
	if err := b.write(ctx, func(l *ledger) error { return l.canTakeOver(o.Savepoint) }); err != nil {
		return err
	}
	return b.isAs(o.Init, p)
}

// isAs refuses a description that is not that of the bank's own log, which begins with a
// takeover from the log of p. An empty one asks for nothing.
func (b *Bank) isAs(o InitOptions, p *anchor.Policy) error {
	if reflect.ValueOf(o).IsZero() {
		return nil
	}
	own, err := b.TrustPolicy()
	if err != nil {
		return err
	}
	// The key is its own, whatever is asked for.
	_, vkey, err := anchor.GenerateKey(b.own.Origin)
	if err != nil {
		return err
	}
	if own, err = withKey(own, vkey); err != nil {
		return err
	}
	o.PrivateIDs = o.PrivateIDs || p.PrivateIDs
	described, err := o.policy(vkey, b.own.URLs...)
	if err != nil {
		return err
	}
	if o.Origin != "" && o.Origin != b.own.Origin || !bytes.Equal(described, own) {
		return fmt.Errorf("%w: %s, which is another than is described", ErrLogExists, b.own.Origin)
	}
	return nil
}

// canTakeOver reports whether the policy of a save point can go on in the bank's own log.
// The error wraps ErrLogExists, or entry.ErrFrozen.
func (l *ledger) canTakeOver(s Savepoint) error {
	origin := l.b.own.Origin
	if l.history.Frozen() {
		return frozenError{origin}
	}
	refuse := func(why string) error {
		return fmt.Errorf("%w: %s, %s", ErrLogExists, origin, why)
	}
	k, _ := l.b.naming(origin).Key(s.Entry.Instance, s.Manifest.Policy.ID)
	from := l.history.TakenFrom(k)
	_, known := l.history.EpochOf(k)
	first, begun := l.history.Began()
	switch {
	case !begun || !l.history.Imported():
		return refuse("which did not begin with a takeover")
	case first.Instance != s.Entry.Instance:
		return refuse("which is of another instance")
	case known && (from == nil || from.Origin != s.Origin || l.history.Last(k) != nil):
		return refuse("in which the policy runs")
	}
	return nil
}

func (b *Bank) prepareNewLog(ctx context.Context, o NewLogOptions) error {
	if err := b.CanTakeOver(ctx, o); err != nil {
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
	s := o.Savepoint
	epoch, _ := h.EpochOf(s.Entry.Policy)
	t := &entry.Takeover{
		Common:   entry.Common{Instance: s.Entry.Instance, Epoch: max(epoch, s.Entry.Epoch) + 1, Time: time.Now()},
		Previous: &entry.Previous{Origin: p.Origin, Checkpoint: v.Head().Checkpoint, Root: v.Head().Root},
	}
	policy := s.Manifest.Policy.ID
	if b.own == nil {
		o.Init.PrivateIDs = o.Init.PrivateIDs || p.PrivateIDs
		return b.beginLog(ctx, t, policy, o.Init)
	}
	t.Origin = b.own.Origin
	t.Policy, _ = b.naming(t.Origin).Key(t.Instance, policy)
	return b.putTakeover(t)
}

// beginLog prepares a log that begins with a takeover, and describes it as o does, with a
// name made from that of the other log if it has none.
func (b *Bank) beginLog(ctx context.Context, t *entry.Takeover, policy string, o InitOptions) error {
	t.Origin = o.Origin
	if t.Origin == "" {
		var suffix [4]byte
		if _, err := rand.Read(suffix[:]); err != nil {
			return err
		}
		t.Origin = t.Previous.Origin + "/" + hex.EncodeToString(suffix[:])
	}
	if err := anchor.CheckOrigin(t.Origin); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if t.Origin == t.Previous.Origin {
		return fmt.Errorf("%w: a new log has another origin than the log that it follows, %s", ErrUsage, t.Origin)
	}
	skey, vkey, err := anchor.GenerateKey(t.Origin)
	if err != nil {
		return err
	}
	nameKey, err := node.NewNameKey()
	if err != nil {
		return err
	}
	name, err := node.NameOf(nameKey)
	if err != nil {
		return err
	}
	trust, err := o.policy(vkey, nameScheme+name)
	if err != nil {
		return err
	}
	n := entry.Naming{Private: o.PrivateIDs}
	if o.PrivateIDs {
		if err := newPolicyKey(b.repo); err != nil {
			return err
		}
		if n.Secret, err = readHex(b.repo, policyKeyFile, entry.SecretSize); err != nil {
			return err
		}
	}
	t.Policy, _ = n.Key(t.Instance, policy)
	if err := b.putTakeover(t); err != nil {
		return err
	}
	return initLog(ctx, b.repo, t.Instance, skey, nameKey, trust)
}

// putTakeover keeps a takeover that is to be appended.
func (b *Bank) putTakeover(t *entry.Takeover) error {
	record, err := encodeShortened(t)
	if err != nil {
		return err
	}
	return b.repo.PutRecord(takeoverKind, LogID(t.Origin)[:16], record)
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
