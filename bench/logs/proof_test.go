package logs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/formats/witness"
	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// verify is a verifier of tlog-proofs that uses transparency-dev's libraries only. It
// returns the checkpoint.
func verify(vkey, origin string, text, record []byte) ([]byte, error) {
	var p proof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	c, _, _, err := log.ParseCheckpoint(p.Checkpoint, origin, v)
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(p.Hashes))
	for i := range p.Hashes {
		hashes[i] = p.Hashes[i][:]
	}
	return p.Checkpoint, merkle.VerifyInclusion(rfc6962.DefaultHasher, p.Index, c.Size, rfc6962.DefaultHasher.HashLeaf(record), hashes, c.Hash)
}

// TestProofElsewhere verifies what "log prove --raw" writes with other people's
// libraries, without witnesses and with one.
func TestProofElsewhere(t *testing.T) {
	for name, witnessed := range map[string]bool{"no witness": false, "witnessed": true} {
		t.Run(name, func(t *testing.T) {
			r := newTrial(t, 0, witnessed)
			for range 6 {
				out, err := r.run(r.changed()...)
				must(t, err)
				r.printed(out)
			}
			text, err := os.ReadFile(filepath.Join(r.dir, "trust.policy"))
			must(t, err)
			rule, err := torchwood.ParsePolicy(text)
			must(t, err)
			group, err := witness.ParsePolicy(text)
			must(t, err)
			for c, index := range r.acknowledged {
				proof, entry := r.prove(t, c)
				checkpoint, err := verify(r.vkey, r.origin(), proof, entry)
				if err != nil || !group.Satisfied(checkpoint) {
					t.Errorf("entry %d: transparency-dev: %v; the quorum: %v", index, err, group.Satisfied(checkpoint))
				}
				if err := torchwood.VerifyProof(rule, tlog.RecordHash(entry), proof); err != nil {
					t.Errorf("entry %d: torchwood: %v", index, err)
				}
				for i := range entry {
					wrong := slices.Clone(entry)
					wrong[i] ^= 1
					if _, err := verify(r.vkey, r.origin(), proof, wrong); err == nil {
						t.Fatalf("entry %d: its proof is one of another record", index)
					}
				}
				if at := strings.Index(string(proof), "\nindex "); at < 0 {
					t.Errorf("entry %d: %q has no index", index, proof)
				} else {
					wrong := slices.Clone(proof)
					wrong[at+len("\nindex ")] ^= 1
					if _, err := verify(r.vkey, r.origin(), wrong, entry); err == nil {
						t.Errorf("entry %d: it is proven at another index too", index)
					}
				}
			}
		})
	}
}

// prove has the proof of a save point written, and reads the files.
func (r *trial) prove(t testing.TB, c string) (proof, entry []byte) {
	t.Helper()
	out, err := r.run("log", "prove", c, "--raw", filepath.Join(filepath.Dir(r.dir), "proofs"), "--json", "--repo", r.dir)
	must(t, err)
	var files struct{ Proof, Entry string }
	must(t, json.Unmarshal([]byte(out), &files))
	proof, err = os.ReadFile(files.Proof)
	must(t, err)
	entry, err = os.ReadFile(files.Entry)
	must(t, err)
	return proof, entry
}
