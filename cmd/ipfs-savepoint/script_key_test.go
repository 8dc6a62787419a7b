package main

import (
	"os"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdIdentity makes an age identity in a file, and sets a variable to its recipient.
func cmdIdentity(ts *testscript.TestScript, _ bool, args []string) {
	id, err := age.GenerateX25519Identity()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("# an age identity\n"+id.String()+"\n"), 0o600))
	ts.Setenv(args[1], id.Recipient().String())
}
