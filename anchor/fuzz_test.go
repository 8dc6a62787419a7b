package anchor_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

func FuzzParsePolicy(f *testing.F) {
	k := newKey(f, "log.example/fuzz")
	f.Add(anchor.FormatPolicy(k.vkey))
	f.Add([]byte("# ipfs-savepoint: floor 3 " + emptyRoot + "\nlog " + k.vkey + " https://x\nwitness w " + k.vkey + "\ngroup g any w\nquorum g\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := anchor.ParsePolicy(b)
		if err != nil {
			wantError(t, err, anchor.ErrPolicy)
			return
		}
		must(t, anchor.CheckOrigin(p.Origin))
	})
}

func FuzzVerifyProof(f *testing.F) {
	store, k := newMemStore(), newKey(f, "log.example/fuzz")
	l := filled(f, store, k, 300)
	v := view(f, store, l.Head(), k)
	for _, e := range []int64{0, 255, 299} {
		proof, err := v.Prove(ctx, e, numbered(int(e), 1)[0])
		must(f, err)
		f.Add(proof)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := anchor.VerifyProof(k.policy, b)
		switch {
		case errors.Is(err, anchor.ErrCorrupt) || errors.Is(err, anchor.ErrUntrusted):
		case err != nil:
			t.Fatal(err)
		case !bytes.Equal(r.Record, numbered(int(r.Index), 1)[0]):
			t.Fatalf("proof of a record that is not in the log: %+v", r)
		}
	})
}

func FuzzHeadRecord(f *testing.F) {
	store, k := newMemStore(), newKey(f, "log.example/fuzz")
	filled(f, store, k, 3)
	f.Add(store.heads[anchor.HeadName("log.example/fuzz")])
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := anchor.RecodeRecord(b)
		if err != nil {
			wantError(t, err, anchor.ErrCorrupt)
			return
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%q decodes to %q", b, again)
		}
	})
}
