package witness

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"golang.org/x/mod/sumdb/note"
)

// GenerateKey makes the key of a witness, in the encoding of secret keys of
// golang.org/x/mod/sumdb/note. The key must serve nothing else: cosignatures do not
// commit to the cosigner's name. The error wraps anchor.ErrOrigin for an unusable
// name.
func GenerateKey(name string) (skey string, err error) {
	if err := anchor.CheckOrigin(name); err != nil {
		return "", err
	}
	skey, _, err = note.GenerateKey(rand.Reader, name)
	return skey, err
}

// NewSigner returns the signer of a key as [GenerateKey] makes it. Errors do not
// repeat the key.
func NewSigner(skey string) (*torchwood.CosignatureSigner, error) {
	malformed := errors.New("malformed witness key")
	s, err := note.NewSigner(skey)
	if err != nil {
		return nil, malformed
	}
	// PRIVATE+KEY+<name>+<hash>+<base64>, and the last may hold more of them.
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(skey, "+", 5)[4])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, malformed
	}
	signer, err := torchwood.NewCosignatureSigner(s.Name(), ed25519.NewKeyFromSeed(raw[1:]))
	if err != nil {
		return nil, fmt.Errorf("witness key: %w", err)
	}
	return signer, nil
}
