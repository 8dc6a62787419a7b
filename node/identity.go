package node

import (
	"crypto/rand"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// newIdentity returns a new libp2p key in libp2p's own encoding.
func newIdentity() ([]byte, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	return crypto.MarshalPrivateKey(key)
}

func (r *Repo) identity() (crypto.PrivKey, error) {
	data, err := r.ReadFile(identityFile)
	if err != nil {
		return nil, err
	}
	key, err := crypto.UnmarshalPrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", identityFile, err)
	}
	return key, nil
}
