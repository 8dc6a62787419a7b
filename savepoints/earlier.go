package savepoints

import (
	"crypto/sha256"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// policyKind has every trust policy that the repository kept for a log that it follows, also
// once a person has put another in its place, as after the log's key was replaced. By them
// is believed what was received then: receipts, the copy of the log, the head seen. What
// somebody shows must satisfy the policy in force.
const policyKind = "policies"

func policyKey(origin string, policy []byte) string {
	sum := sha256.Sum256(policy)
	return fmt.Sprintf("%s-%x", LogID(origin)[:16], sum[:8])
}

// notePolicy remembers that a policy was kept.
func (b *Bank) notePolicy(p *anchor.Policy, policy []byte) error {
	key := policyKey(p.Origin, policy)
	if held, err := b.repo.Record(policyKind, key); err != nil || held != nil {
		return err
	}
	return b.repo.PutRecord(policyKind, key, policy)
}

// keptPolicies remembers those in the files, and returns all that are remembered, by the
// origins of their logs.
func (b *Bank) keptPolicies(files []string) (map[string][]*anchor.Policy, error) {
	for _, name := range files {
		data, err := b.repo.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("trust policy: %w", err)
		}
		p, err := anchor.ParsePolicy(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := b.notePolicy(p, data); err != nil {
			return nil, err
		}
	}
	keys, err := b.repo.Records(policyKind)
	if err != nil {
		return nil, err
	}
	kept := map[string][]*anchor.Policy{}
	for _, key := range keys {
		data, err := b.repo.Record(policyKind, key)
		if err != nil {
			return nil, err
		}
		p, err := anchor.ParsePolicy(data)
		if err != nil || policyKey(p.Origin, data) != key {
			continue // a damaged one believes nothing
		}
		kept[p.Origin] = append(kept[p.Origin], p)
	}
	return kept, nil
}

// accepting returns the policy by which a head that is held here is believed: p, or the
// earlier one that it satisfies, with p's floor, which LoadHead has checked.
func (b *Bank) accepting(p *anchor.Policy, h anchor.Head) *anchor.Policy {
	if _, err := anchor.VerifyCheckpoint(p, h.Checkpoint); err == nil {
		return p
	}
	for _, e := range b.earlier[p.Origin] {
		if _, err := anchor.VerifyCheckpoint(e, h.Checkpoint); err == nil {
			return e
		}
	}
	return p
}

// then opens what was accepted here before: p may have been another then.
func then[T any](b *Bank, p *anchor.Policy, open func(*anchor.Policy) (T, error)) (T, error) {
	found, err := open(p)
	for _, e := range b.earlier[p.Origin] {
		if err == nil {
			break
		}
		if was, thenErr := open(e); thenErr == nil {
			found, err = was, nil
		}
	}
	return found, err
}

// openHeld is openProof of a proof that was received before.
func (b *Bank) openHeld(p *anchor.Policy, proof []byte) (Savepoint, error) {
	return then(b, p, func(p *anchor.Policy) (Savepoint, error) { return openProof(p, proof) })
}

// headThen verifies a head that was accepted before, under the log's key alone: the witnesses
// may have been others.
func (b *Bank) headThen(p *anchor.Policy, signed []byte) (anchor.Head, error) {
	return then(b, p, func(p *anchor.Policy) (anchor.Head, error) { return anchor.VerifyCheckpoint(p.KeyOnly(), signed) })
}
