package anchor

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
)

// Signer signs the heads of one log. One key signs one log only: its name is the
// log's origin.
type Signer interface {
	note.Signer
	// Verifier returns the verifier of the same key, by which a log knows its
	// own heads.
	Verifier() note.Verifier
}

type keySigner struct {
	note.Signer
	verifier note.Verifier
}

func (s keySigner) Verifier() note.Verifier { return s.verifier }

// GenerateKey makes an Ed25519 key pair for the log of the given origin, in the
// encodings of c2sp.org/signed-note: skey is secret, vkey public.
func GenerateKey(origin string) (skey, vkey string, err error) {
	if err := CheckOrigin(origin); err != nil {
		return "", "", err
	}
	return note.GenerateKey(rand.Reader, origin)
}

// NewSigner returns the signer of a secret key as [GenerateKey] makes it. Errors
// do not repeat the key.
func NewSigner(skey string) (Signer, error) {
	s, err := note.NewSigner(skey)
	if err != nil {
		return nil, errors.New("malformed log key")
	}
	v, err := torchwood.NewVerifierFromSigner(skey)
	if err != nil {
		return nil, errors.New("malformed log key")
	}
	if err := CheckOrigin(s.Name()); err != nil {
		return nil, err
	}
	return keySigner{s, v}, nil
}

// VerifierKey returns the public key that belongs to a secret one, both as [GenerateKey]
// makes them. Errors do not repeat the key.
func VerifierKey(skey string) (string, error) {
	signer, err := NewSigner(skey)
	if err != nil {
		return "", err
	}
	// PRIVATE+KEY+<name>+<hash>+<base64 of the algorithm and the seed>; base64 has + too.
	fields := strings.SplitN(skey, "+", 5)
	key, err := base64.StdEncoding.DecodeString(fields[len(fields)-1])
	if err != nil || len(key) != 1+ed25519.SeedSize {
		return "", errors.New("malformed log key")
	}
	public := ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey)
	return note.NewEd25519VerifierKey(signer.Name(), public)
}

// HoldsSecret reports whether a text holds a secret key of a log or a witness (that begins
// with "PRIVATE+KEY") or of age ("AGE-SECRET-KEY"). Such a text is not to be repeated, as
// in an error: what is printed gets into logs.
func HoldsSecret(text string) bool {
	return strings.Contains(text, "PRIVATE+KEY") || strings.Contains(strings.ToUpper(text), "AGE-SECRET-KEY")
}

// CheckOrigin reports whether origin can be the name of a log and of its key:
// UTF-8 of 1 to [MaxOriginSize] bytes without white space, control characters
// and "+" (c2sp.org/signed-note, "Format"), and without "#", which would begin a
// comment in a policy. The error wraps ErrOrigin.
func CheckOrigin(origin string) error {
	switch {
	case HoldsSecret(origin):
		return fmt.Errorf("%w: it is a secret key", ErrOrigin)
	case origin == "":
		return fmt.Errorf("%w: empty", ErrOrigin)
	case len(origin) > MaxOriginSize:
		return fmt.Errorf("%w: %d bytes, more than %d", ErrOrigin, len(origin), MaxOriginSize)
	case !utf8.ValidString(origin):
		return fmt.Errorf("%w: %q is not UTF-8", ErrOrigin, origin)
	case strings.ContainsAny(origin, "+#"):
		return fmt.Errorf("%w: %q holds + or #", ErrOrigin, origin)
	case strings.ContainsFunc(origin, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("%w: %q holds white space or a control character", ErrOrigin, origin)
	}
	return nil
}
