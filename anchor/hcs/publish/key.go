package publish

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	hiero "github.com/hiero-ledger/hiero-sdk-go/v2/sdk"
)

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 16 << 10

// Key signs transactions for an account or a topic.
type Key struct {
	public hiero.PublicKey
	sign   func(message []byte) ([]byte, error)
}

// NewKey returns the key of an Ed25519 signer, which may be one that holds its key
// elsewhere.
func NewKey(s crypto.Signer) (Key, error) {
	public, ok := s.Public().(ed25519.PublicKey)
	if !ok {
		return Key{}, fmt.Errorf("key is a %T, not of Ed25519", s.Public())
	}
	k, err := hiero.PublicKeyFromBytesEd25519(public)
	if err != nil {
		return Key{}, fmt.Errorf("public key: %w", err)
	}
	// Ed25519 takes no randomness and the message unhashed.
	sign := func(message []byte) ([]byte, error) { return s.Sign(nil, message, crypto.Hash(0)) }
	return Key{k, sign}, nil
}

// LoadKey reads a key file: a private key of Ed25519 or ECDSA on secp256k1 in PKCS #8 (or
// SEC 1, for the latter), as PEM, or as the hexadecimal of its DER, which is how wallets
// of the ledger write it. Only its owner may have permissions on the file. Errors do not
// repeat what is in it.
func LoadKey(name string) (Key, error) {
	f, err := os.Open(name)
	if err != nil {
		return Key{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return Key{}, fmt.Errorf("key file %s has mode %v; only its owner may read it (chmod 600)", name, info.Mode())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return Key{}, err
	}
	k, err := parseKey(b)
	if err != nil {
		return Key{}, fmt.Errorf("key file %s: %w", name, err)
	}
	return k, nil
}

func parseKey(text []byte) (Key, error) {
	malformed := errors.New("neither PEM nor hexadecimal DER of a private key of Ed25519 or secp256k1")
	if len(text) > maxKeyFile {
		return Key{}, malformed
	}
	var der []byte
	if block, _ := pem.Decode(text); block != nil {
		der = block.Bytes
	} else if b, err := hex.DecodeString(strings.TrimSpace(string(text))); err == nil {
		der = b
	}
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if s, ok := k.(ed25519.PrivateKey); ok {
			return NewKey(s)
		}
		return Key{}, malformed
	}
	// 32 bytes without more could be a key of either kind.
	if len(der) <= ed25519.SeedSize {
		return Key{}, malformed
	}
	k, err := hiero.PrivateKeyFromBytesECDSA(der)
	if err != nil {
		return Key{}, malformed
	}
	return Key{k.PublicKey(), func(message []byte) ([]byte, error) { return k.Sign(message), nil }}, nil
}
