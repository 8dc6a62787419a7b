package hcs_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"golang.org/x/mod/sumdb/note"
)

// witnessed returns a key whose log has n witnesses, and they. The lines after the witness
// lines of its trust policy are given.
func witnessed(t *testing.T, n int, lines string) (key, []note.Signer) {
	t.Helper()
	skey, vkey, err := anchor.GenerateKey("ipfs-savepoint.invalid/0123456789abcdef0123456789abcdef")
	must(t, err)
	signer, err := anchor.NewSigner(skey)
	must(t, err)
	text, _, _ := strings.Cut(string(anchor.FormatPolicy(vkey)), "quorum")
	var ws []note.Signer
	for i := range n {
		seed := bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize)
		w, err := torchwood.NewCosignatureSigner(fmt.Sprintf("witness%d.example.org", i), ed25519.NewKeyFromSeed(seed))
		must(t, err)
		text += fmt.Sprintf("witness w%d %s\n", i, w.Verifier())
		ws = append(ws, w)
	}
	policy, err := anchor.ParsePolicy([]byte(text + lines))
	must(t, err)
	return key{signer, policy}, ws
}

// Of many cosignatures as few are left out as it takes, and the policy accepts the rest.
func TestFitHead(t *testing.T) {
	all := "w0 w1 w2 w3 w4 w5"
	for name, c := range map[string]struct {
		witnesses int
		quorum    string
		want      int // cosignatures; 0 if none of its sets fits
	}{
		"three":              {3, "group g 2 w0 w1 w2\nquorum g\n", 3},
		"six":                {6, "group g 3 " + all + "\nquorum g\n", 4},
		"none needed":        {6, "quorum none\n", 4},
		"the last is needed": {6, "quorum w5\n", 4},
		"a pair or one":      {6, "group p all w3 w4\ngroup g any p w0\nquorum g\n", 4},
		"more than fit":      {6, "group g 5 " + all + "\nquorum g\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			k, ws := witnessed(t, c.witnesses, c.quorum)
			h := k.head(t, 1<<40, "", ws...)
			fit, err := hcs.FitHead(k.policy, h)
			if c.want == 0 {
				wantError(t, err, hcs.ErrSize)
				return
			}
			must(t, err)
			again, err := anchor.VerifyCheckpoint(k.policy, fit.Checkpoint)
			must(t, err)
			if again.Size != h.Size || again.RootHash != h.RootHash || fit.Root != h.Root || bytes.Count(fit.Checkpoint, []byte("\n\u2014 ")) != 1+c.want {
				t.Errorf("%s", fit.Checkpoint)
			}
			message(t, fit)
		})
	}
}

// Both keys of a log stay while one replaces the other.
func TestFitHeadOfTwoKeys(t *testing.T) {
	k, ws := witnessed(t, 6, "quorum w2\n")
	next := newKey(t, k.signer.Name())
	fit, err := hcs.FitHead(k.policy, k.head(t, 1<<40, "", append(ws, next.signer)...))
	must(t, err)
	for _, p := range []*anchor.Policy{k.policy, next.policy} {
		_, err := anchor.VerifyCheckpoint(p, fit.Checkpoint)
		must(t, err)
	}
}

func TestFitHeadWithoutRoot(t *testing.T) {
	k := newKey(t, "log.example/a")
	h := k.head(t, 3, "")
	h.Root = rootCID
	same, err := hcs.FitHead(k.policy, h)
	must(t, err)
	if !bytes.Equal(same.Checkpoint, h.Checkpoint) {
		t.Error("it was changed")
	}
	h.Checkpoint = []byte("\xff\n")
	if _, err := hcs.FitHead(k.policy, h); err == nil {
		t.Error("what is no text fits")
	}
}
