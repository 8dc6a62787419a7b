package savepoints

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"golang.org/x/mod/sumdb/note"
)

// witnessKeyFile holds the key of a repository that is a witness.
const witnessKeyFile = "witness.key"

// Witness returns a witness of all logs for which the bank has a trust policy in
// force, except its own: nobody is their own witness. What it cosigns is kept in the
// repository, durably, before it answers. Its key is made the first time, under name;
// later name may be empty, and must otherwise be the same (ErrUsage).
func (b *Bank) Witness(name string, o witness.ServerOptions) (*witness.Server, error) {
	var keys []note.Verifier
	for _, p := range b.Policies() {
		if p.Origin != b.Origin() {
			keys = append(keys, p.Key())
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: a witness of no log", ErrNoTrust)
	}
	// A new key comes last: its name is for ever.
	skey, err := b.repo.ReadFile(witnessKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		skey, err = b.newWitnessKey(name)
	}
	if err != nil {
		return nil, err
	}
	signer, err := witness.NewSigner(strings.TrimSpace(string(skey)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", witnessKeyFile, err)
	}
	if name != "" && name != signer.Name() {
		return nil, fmt.Errorf("%w: this repository is the witness %q, not %q", ErrUsage, signer.Name(), name)
	}
	return witness.NewServer(signer, b.repo, keys, o), nil
}

func (b *Bank) newWitnessKey(name string) ([]byte, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: a new witness needs a name", ErrUsage)
	}
	skey, err := witness.GenerateKey(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return []byte(skey), b.repo.WriteFile(witnessKeyFile, []byte(skey+"\n"))
}
