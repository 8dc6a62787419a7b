package savepoints

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// Trust returns the bank with one more trust policy in force; b itself is as before.
// Both are one open repository, closed once. Keep makes the policy last. The error
// wraps anchor.ErrPolicy, or ErrTrustConflict if the repository keeps another
// policy for the same log: that is for a person to change.
func (b *Bank) Trust(policy []byte) (*Bank, *anchor.Policy, error) {
	p, err := anchor.ParsePolicy(policy)
	if err != nil {
		return nil, nil, err
	}
	name, kept, err := b.keptPolicy(p.Origin)
	if err != nil {
		return nil, nil, err
	}
	if kept != nil && string(kept) != string(policy) {
		return nil, nil, fmt.Errorf("%w: %s: %s differs. If the log's keeper has replaced the key, or the policy is to be another, put the new file in its place", ErrTrustConflict, p.Origin, b.path(name))
	}
	return b.with(p), p, nil
}

// clone returns another view of the same bank, whose policies can be changed.
func (b *Bank) clone() *Bank {
	c := *b
	c.policies = maps.Clone(b.policies)
	return &c
}

// with returns the bank with a policy in force in place of any other for its log.
func (b *Bank) with(p *anchor.Policy) *Bank {
	c := b.clone()
	c.policies[p.Origin] = p
	return c
}

// Keep makes a trust policy part of the repository, for a log that it follows.
func (b *Bank) Keep(policy []byte) error {
	_, p, err := b.Trust(policy)
	if err != nil || p.Origin == b.Origin() {
		return err
	}
	return b.keep(p, policy)
}

func (b *Bank) keep(p *anchor.Policy, policy []byte) error {
	name, err := b.policyFile(p.Origin)
	if err != nil {
		return err
	}
	return errors.Join(b.repo.WriteFile(name, policy), b.notePolicy(p, policy))
}

// Succeed is Trust and Keep of a policy for a witness: it also puts one that names the next
// key of a log, and is otherwise equal, in the place of the present one, and leaves the
// present one where it is the later of the two. A witness cosigns one history of a log,
// whatever key signs it. It returns the bank with the policy in force that is kept then.
func (b *Bank) Succeed(policy []byte) (*Bank, *anchor.Policy, error) {
	p, err := anchor.ParsePolicy(policy)
	if err != nil {
		return nil, nil, err
	}
	_, kept, err := b.keptPolicy(p.Origin)
	if err != nil {
		return nil, nil, err
	}
	if renewed, err := withKey(kept, vkeyOf(policy)); p.Origin == b.Origin() || err != nil || string(renewed) != string(policy) {
		with, p, err := b.Trust(policy)
		if err != nil {
			return nil, nil, err
		}
		return with, p, b.Keep(policy)
	}
	before, err := b.repo.Record(policyKind, policyKey(p.Origin, policy))
	if err != nil {
		return nil, nil, err
	}
	if before != nil {
		return b, b.policies[p.Origin], nil
	}
	return b.with(p), p, b.keep(p, policy)
}

// loadPolicies puts the policies of files in force. Which of two different ones for a log
// is to count, only a person can say.
func (b *Bank) loadPolicies(names []string) error {
	type file struct{ name, text string }
	loaded := map[string]file{} // by origin
	for _, name := range names {
		p, text, err := b.loadPolicy(name)
		if err != nil {
			return err
		}
		if other, ok := loaded[p.Origin]; ok && other.text != string(text) {
			return fmt.Errorf("%w: %s: %s and %s differ; keep the one by which the log is to be believed, and remove the other", ErrTrustConflict, p.Origin, b.path(other.name), b.path(name))
		}
		loaded[p.Origin] = file{name, string(text)}
	}
	return nil
}

// loadPolicy puts the policy of a file in force.
func (b *Bank) loadPolicy(name string) (*anchor.Policy, []byte, error) {
	text, err := b.repo.ReadFile(name)
	if err != nil {
		return nil, nil, fmt.Errorf("trust policy: %w", err)
	}
	p, err := anchor.ParsePolicy(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	b.policies[p.Origin] = p
	return p, text, nil
}

// keptPolicy returns the file that has the policy of a log, and what is in it; nil if
// there is none.
func (b *Bank) keptPolicy(origin string) (name string, policy []byte, err error) {
	name = trustFile
	if origin != b.Origin() {
		if name, err = b.policyFile(origin); err != nil {
			return "", nil, err
		}
	}
	policy, err = b.repo.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return name, nil, nil
	}
	return name, policy, err
}

// policyFile names the file of the policy of a log that is followed: the one that there
// is, which a person may have named, or the one to make.
func (b *Bank) policyFile(origin string) (string, error) {
	names, err := b.repo.Glob(trustDir + "/*.policy")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		policy, err := b.repo.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("trust policy: %w", err)
		}
		if p, err := anchor.ParsePolicy(policy); err == nil && p.Origin == origin {
			return name, nil
		}
	}
	return trustDir + "/" + LogID(origin)[:16] + ".policy", nil
}

// path is that of a file of the repository, for a person.
func (b *Bank) path(name string) string { return filepath.Join(b.repo.Dir(), name) }
