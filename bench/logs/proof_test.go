package logs

import (
	"testing"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/formats/witness"
	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// verify is a verifier of tlog-proofs that uses transparency-dev's libraries only.
func verify(vkey, origin string, text, record []byte) error {
	var p proof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	c, _, _, err := log.ParseCheckpoint(p.Checkpoint, origin, v)
	if err != nil {
		return err
	}
	hashes := make([][]byte, len(p.Hashes))
	for i := range p.Hashes {
		hashes[i] = p.Hashes[i][:]
	}
	return merkle.VerifyInclusion(rfc6962.DefaultHasher, p.Index, c.Size, rfc6962.DefaultHasher.HashLeaf(record), hashes, c.Hash)
}

// TestProofElsewhere verifies what "log prove --raw" writes with other people's libraries.
func TestProofElsewhere(t *testing.T) {
	b := newBank(t, savepoints.InitOptions{})
	take(t, b, 20)
	_, vkey := policyOf(t, b)
	list, err := b.List(ctx, "")
	must(t, err)
	var last []byte
	for _, s := range list {
		text, record, err := b.RawProof(ctx, s)
		must(t, err)
		if err := verify(vkey, b.Origin(), text, record); err != nil {
			t.Errorf("entry %d: %v", s.LogIndex, err)
		}
		if err := verify(vkey, b.Origin(), text, last); err == nil {
			t.Errorf("entry %d: its proof is one of another record", s.LogIndex)
		}
		last = record
	}
}

// TestPolicyElsewhere has other people's parsers read the trust policies that init writes.
func TestPolicyElsewhere(t *testing.T) {
	w := newOurWitness(t)
	for name, o := range map[string]savepoints.InitOptions{
		"no witness": {}, "witnessed": {Witnesses: []string{"w " + w.key + " " + w.url}},
		"all comments": {PrivateIDs: true, Topic: "0.0.4711 https://mirror.example https://other.example"},
	} {
		t.Run(name, func(t *testing.T) {
			text, _ := policyOf(t, newBank(t, o))
			if _, err := torchwood.ParsePolicy(text); err != nil {
				t.Errorf("torchwood: %v\n%s", err, text)
			}
			g, err := witness.ParsePolicy(text)
			if err != nil {
				t.Errorf("transparency-dev: %v\n%s", err, text)
			}
			if got, want := len(g.Endpoints()), len(o.Witnesses); got != want {
				t.Errorf("transparency-dev sees %d witnesses, not %d", got, want)
			}
		})
	}
}
