package savepoints

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// InitOptions describes the log of a new repository.
type InitOptions struct {
	// Origin names the log; if empty, a name is made from the random id of the
	// instance.
	Origin string
	// Witnesses are those of the trust policy, each as NAME VKEY [URL].
	Witnesses []string
	// Quorum is how many of them must have cosigned a head that counts; more than
	// half of them if 0.
	Quorum int
	// PrivateIDs: the log names policies by a keyed hash of their ids, so that who
	// sees only the log cannot guess them. The key is made with the repository.
	PrivateIDs bool
	// Topic, if not empty, is what the trust policy says of a topic of the Hedera
	// Consensus Service: TOPIC MIRROR-URL MIRROR-URL…. See [anchor.PolicyTopic].
	Topic string
}

// Check reports whether a log can be made as o describes it. The error wraps ErrUsage.
func (o InitOptions) Check() error {
	origin := cmp.Or(o.Origin, "log.invalid")
	if err := anchor.CheckOrigin(origin); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	_, vkey, err := anchor.GenerateKey(origin)
	if err != nil {
		return err
	}
	_, err = o.policy(vkey, nameScheme+"name")
	return err
}

// Init makes a repository with a log of its own in dir, which must be empty or
// absent, or hold a repository that has no log yet: one that was made by restoring
// or following, or whose init was interrupted.
func Init(ctx context.Context, dir string, o InitOptions) (*Bank, error) {
	var instance [16]byte
	if _, err := rand.Read(instance[:]); err != nil {
		return nil, err
	}
	if o.Origin == "" {
		o.Origin = "ipfs-savepoint.invalid/" + hex.EncodeToString(instance[:])
	}
	if err := anchor.CheckOrigin(o.Origin); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	skey, vkey, err := anchor.GenerateKey(o.Origin)
	if err != nil {
		return nil, err
	}
	nameKey, err := node.NewNameKey()
	if err != nil {
		return nil, err
	}
	name, err := node.NameOf(nameKey)
	if err != nil {
		return nil, err
	}
	policy, err := o.policy(vkey, nameScheme+name)
	if err != nil {
		return nil, err
	}
	repo, err := openWithoutLog(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	if err := initLog(ctx, repo, instance, skey, nameKey, policy); err != nil {
		return nil, errors.Join(fmt.Errorf("init %s: %w", dir, err), repo.Close())
	}
	if err := repo.Close(); err != nil {
		return nil, err
	}
	return Open(ctx, dir)
}

// policy is the trust policy of the new log.
func (o InitOptions) policy(vkey string, urls ...string) ([]byte, error) {
	text, err := o.trust(vkey, urls)
	if err != nil {
		return nil, err
	}
	if o.PrivateIDs {
		text = append(text, anchor.PrivateIDsLine...)
	}
	if o.Topic != "" {
		line, err := anchor.TopicLine(o.Topic)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrUsage, err) // not of a policy that somebody gave
		}
		text = append(text, line...)
	}
	return text, nil
}

func (o InitOptions) trust(vkey string, urls []string) ([]byte, error) {
	if len(o.Witnesses) == 0 {
		if o.Quorum != 0 {
			return nil, fmt.Errorf("%w: a quorum of %d, and no witnesses", ErrUsage, o.Quorum)
		}
		return anchor.FormatPolicy(vkey, urls...), nil
	}
	if o.Quorum == 0 {
		o.Quorum = len(o.Witnesses)/2 + 1
	}
	policy, err := anchor.FormatWitnessedPolicy(vkey, o.Witnesses, o.Quorum, urls...)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrUsage, err) // not of a policy that somebody gave
	}
	return policy, nil
}

// openWithoutLog makes or opens a repository, and refuses one that has a log, or
// had one: a log whose key is lost must not be forgotten by mistake.
func openWithoutLog(ctx context.Context, dir string) (*node.Repo, error) {
	repo, err := node.Open(ctx, dir)
	if errors.Is(err, node.ErrNoRepo) {
		return node.Create(ctx, dir)
	}
	if err != nil {
		return nil, err
	}
	if err := checkNoLog(ctx, repo); err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	return repo, nil
}

func checkNoLog(ctx context.Context, repo *node.Repo) error {
	_, err := repo.ReadFile(logKeyFile)
	if err == nil {
		return fmt.Errorf("%w: in %s", ErrLogExists, repo.Dir())
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := repo.ReadFile(trustFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := anchor.ParsePolicy(data)
	if err != nil {
		return nil // cut short by a crash
	}
	for _, name := range []string{anchor.HeadName(p.Origin), anchor.PendingName(p.Origin)} {
		head, err := repo.Head(ctx, name)
		if err != nil {
			return err
		}
		if head == nil {
			continue
		}
		if h, err := anchor.ReadStored(head); err != nil || h.Size > 0 {
			return fmt.Errorf("%w: the one in %s had %s, whose key is missing", ErrLogExists, repo.Dir(), p.Origin)
		}
	}
	return nil
}

// forgetEmpty removes the head of an empty log, which another key of this name signed that
// was never kept: an interruption came before. Nobody can have anything of that log. It
// refuses a name of which the repository has entries.
func forgetEmpty(ctx context.Context, repo *node.Repo, origin string) error {
	for _, name := range []string{anchor.HeadName(origin), anchor.PendingName(origin)} {
		head, err := repo.Head(ctx, name)
		if err != nil {
			return err
		}
		if head == nil {
			continue
		}
		if h, err := anchor.ReadStored(head); err != nil || h.Size > 0 {
			return fmt.Errorf("%w: the one in %s has a copy of a log %s, and a new one needs another name", ErrLogExists, repo.Dir(), origin)
		}
		if err := repo.DeleteHead(name); err != nil {
			return err
		}
	}
	return nil
}

func initLog(ctx context.Context, repo *node.Repo, instance [16]byte, skey string, nameKey, policy []byte) error {
	signer, err := anchor.NewSigner(skey)
	if err != nil {
		return err
	}
	p, err := anchor.ParsePolicy(policy)
	if err != nil {
		return err
	}
	if err := repo.WriteFile(instanceFile, []byte(hex.EncodeToString(instance[:])+"\n")); err != nil {
		return err
	}
	if err := repo.WriteFile(nameKeyFile, nameKey); err != nil {
		return err
	}
	if err := repo.WriteFile(trustFile, policy); err != nil {
		return err
	}
	if p.PrivateIDs {
		if err := newPolicyKey(repo); err != nil {
			return err
		}
	}
	if err := forgetEmpty(ctx, repo, p.Origin); err != nil {
		return err
	}
	if _, err := anchor.Open(ctx, logStore{repo.Blocks, repo}, signer, anchor.Options{Create: true, Policy: p}); err != nil {
		return err
	}
	// The key comes last: without it the repository is a reader's, not a
	// writer's with half a log.
	return repo.WriteFile(logKeyFile, []byte(skey+"\n"))
}
