package entry

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
)

// PolicyKey stands for a policy in the log; see [Naming].
type PolicyKey [sha256.Size]byte

// SecretSize is the length in bytes of the key under which policy ids are private.
const SecretSize = 32

const policyTag = "ipfs-savepoint/v1 policy\x00"

// Naming says how a log names policies. In the zero value the key of a policy is a hash
// of its id: it can be computed by who knows the id, and tells nobody else what it is
// unless it can be guessed.
type Naming struct {
	// Private: the hash is keyed, so that the id cannot be guessed either.
	Private bool
	// Secret is the key, of SecretSize bytes; nil where it is not at hand. Whoever
	// reads does without: the manifest has the id.
	Secret []byte
}

// Key returns the key of a policy of an instance, and whether that can be told: not if
// it is private and the secret is not at hand.
func (n Naming) Key(instance [16]byte, policyID string) (PolicyKey, bool) {
	if n.Private && n.Secret == nil {
		return PolicyKey{}, false
	}
	h := sha256.New()
	if n.Private {
		h = hmac.New(func() hash.Hash { return sha256.New() }, n.Secret)
	}
	h.Write([]byte(policyTag))
	h.Write(instance[:])
	h.Write([]byte(policyID))
	return PolicyKey(h.Sum(nil)), true
}

// KeyOf returns the key of a policy of an instance where ids are not private.
func KeyOf(instance [16]byte, policyID string) PolicyKey {
	k, _ := Naming{}.Key(instance, policyID)
	return k
}

// PolicyOf returns the key of the policy that an entry is of, and whether it is of one.
func PolicyOf(e Entry) (PolicyKey, bool) {
	switch e := e.(type) {
	case *Savepoint:
		return e.Policy, true
	case *Retire:
		return e.Policy, true
	case *Takeover:
		return e.Policy, true
	}
	return PolicyKey{}, false
}

// MarshalText returns the key in hexadecimal.
func (k PolicyKey) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, k[:]), nil }

// UnmarshalText reads what MarshalText returns.
func (k *PolicyKey) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(k)) {
		return fmt.Errorf("policy key of %d digits, not %d", len(text), hex.EncodedLen(len(k)))
	}
	_, err := hex.Decode(k[:], text)
	return err
}
