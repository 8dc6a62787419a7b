package anchor_test

import (
	"context"
	"fmt"
	"log"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// A log is written with its key; with the policy alone it is read, and a proof
// of one record is checked without the log.
func ExampleLog() {
	ctx := context.Background()
	skey, vkey, err := anchor.GenerateKey("log.example/demo")
	if err != nil {
		log.Fatal(err)
	}
	signer, err := anchor.NewSigner(skey)
	if err != nil {
		log.Fatal(err)
	}
	store := newMemStore() // any anchor.Store
	l, err := anchor.Open(ctx, store, signer, anchor.Options{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	index, head, err := l.Append(ctx, []byte("what happened"))
	if err != nil {
		log.Fatal(err)
	}

	policy, err := anchor.ParsePolicy(anchor.FormatPolicy(vkey))
	if err != nil {
		log.Fatal(err)
	}
	view, err := anchor.OpenView(ctx, anchor.LocalFetcher(store, head.Root), policy)
	if err != nil {
		log.Fatal(err)
	}
	proof, err := view.Prove(ctx, index, []byte("what happened"))
	if err != nil {
		log.Fatal(err)
	}
	result, err := anchor.VerifyProof(policy, proof)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: record %d of %d is %q\n", result.Head.Origin, result.Index, result.Head.Size, result.Record)
	// Output: log.example/demo: record 0 of 1 is "what happened"
}
