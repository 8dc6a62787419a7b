package node

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
)

const swarmKeyFile = "swarm.key"

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

// PeerID returns the id by which libp2p peers know the repository's node.
func (r *Repo) PeerID() (string, error) {
	key, err := r.identity()
	if err != nil {
		return "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return id.String(), err
}

// SwarmKey returns the swarm key of the repository, or nil: with one the node talks
// only to peers that have it too.
func (r *Repo) SwarmKey() ([]byte, error) {
	data, err := r.ReadFile(swarmKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// SetSwarmKey makes a swarm key (/key/swarm/psk/1.0.0/) that of the repository.
func (r *Repo) SetSwarmKey(key []byte) error {
	if _, err := pnet.DecodeV1PSK(bytes.NewReader(key)); err != nil {
		return fmt.Errorf("swarm key: %w", err)
	}
	return r.WriteFile(swarmKeyFile, key)
}
