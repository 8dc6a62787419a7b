package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdIdentity makes an age identity in a file, and sets a variable to its recipient,
// and another to itself.
func cmdIdentity(ts *testscript.TestScript, _ bool, args []string) {
	id, err := age.GenerateX25519Identity()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("# an age identity\n"+id.String()+"\n"), 0o600))
	ts.Setenv(args[1], id.Recipient().String())
	if len(args) > 2 {
		ts.Setenv(args[2], id.String())
	}
}

// cmdHolds tells whether a file, or any below a folder, holds a secret key of a
// repository, as text or as bytes: holds FILE REPO [IDENTITY]. An armored file is looked
// at as it is inside; what is encrypted, with an identity, as whoever has it sees it.
func cmdHolds(ts *testscript.TestScript, neg bool, args []string) {
	secrets := secretsOf(ts, ts.MkAbs(args[1]))
	found, files := "", 0
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(data, []byte(armor.Header)) {
			if data, err = unarmored(data, args[2:]); err != nil {
				return err
			}
		}
		for name, secret := range secrets {
			if bytes.Contains(data, secret) {
				found = fmt.Sprintf("%s holds %s", path, name)
			}
		}
		return nil
	}))
	switch {
	case files == 0:
		ts.Fatalf("%s has no file", args[0])
	case neg && found != "":
		ts.Fatalf("%s", found)
	case !neg && found == "":
		ts.Fatalf("%s holds no key of %s", args[0], args[1])
	}
}

// secretsOf returns the secret keys of a repository in the forms in which they could have
// got somewhere.
func secretsOf(ts *testscript.TestScript, repo string) map[string][]byte {
	secrets := map[string][]byte{}
	text, err := os.ReadFile(filepath.Join(repo, "log.key"))
	ts.Check(err)
	encoded := strings.SplitN(strings.TrimSpace(string(text)), "+", 5)[4]
	key, err := base64.StdEncoding.DecodeString(encoded)
	ts.Check(err)
	seeds := map[string][]byte{"log.key": key[1:]}
	for _, name := range []string{"ipns.key", "identity.key"} {
		data, err := os.ReadFile(filepath.Join(repo, name))
		ts.Check(err)
		seeds[name] = data[len(data)-64 : len(data)-32] // before the public key
	}
	secrets["log.key as it is"] = []byte(encoded)
	for name, seed := range seeds {
		secrets[name+" in bytes"] = seed
		secrets[name+" in hexadecimal"] = []byte(hex.EncodeToString(seed))
		secrets[name+" in base64"] = []byte(base64.RawStdEncoding.EncodeToString(seed))
	}
	return secrets
}

// unarmored returns what an armored age file holds, decrypted if there is an identity.
func unarmored(data []byte, identities []string) ([]byte, error) {
	r := armor.NewReader(bytes.NewReader(data))
	if len(identities) == 0 {
		return io.ReadAll(r)
	}
	var ids []age.Identity
	for _, text := range identities {
		id, err := age.ParseX25519Identity(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	plain, err := age.Decrypt(r, ids...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}
