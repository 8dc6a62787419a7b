package anchor_test

import (
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// The public key of a secret one is what was made with it, whatever letters both have.
func TestVerifierKey(t *testing.T) {
	for range 50 {
		skey, vkey, err := anchor.GenerateKey("log.example/a")
		must(t, err)
		got, err := anchor.VerifierKey(skey)
		if err != nil || got != vkey {
			t.Fatalf("%q instead of %q, %v", got, vkey, err)
		}
		if got, err := anchor.VerifierKey(skey + "x"); err == nil {
			t.Errorf("of a malformed key: %q", got)
		}
		if got, err := anchor.VerifierKey(vkey); err == nil {
			t.Errorf("of a public key: %q", got)
		}
	}
}
