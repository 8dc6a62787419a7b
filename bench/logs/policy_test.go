package logs

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	ourwitness "github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/transparency-dev/formats/witness"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// TestPolicyElsewhere has other people's parsers read the trust policies that init
// writes, with all of our comments added. They judge the same heads as we do.
func TestPolicyElsewhere(t *testing.T) {
	var signers []*torchwood.CosignatureSigner
	var lines []string
	for i := range 3 {
		skey, err := ourwitness.GenerateKey(fmt.Sprint("witness.example/", i))
		must(t, err)
		s, err := ourwitness.NewSigner(skey)
		must(t, err)
		signers = append(signers, s)
		lines = append(lines, fmt.Sprintf("w%d %s http://127.0.0.1:9/%d", i, s.Verifier(), i))
	}
	for name, c := range map[string]struct {
		o    savepoints.InitOptions
		need int // cosignatures
	}{
		"no witness":          {savepoints.InitOptions{}, 0},
		"private ids":         {savepoints.InitOptions{PrivateIDs: true}, 0},
		"two of three":        {savepoints.InitOptions{Witnesses: lines}, 2},
		"all, private ids":    {savepoints.InitOptions{Witnesses: lines, Quorum: 3, PrivateIDs: true}, 3},
		"one, named by a URL": {savepoints.InitOptions{Witnesses: lines[:1], Origin: "log.example.org/prod"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, c.o)
			text, _ := policyOf(t, b)
			own := fmt.Sprintf("%s\n# a comment\n# ipfs-savepoint: mirror https://mirror.example/tlog/\n# ipfs-savepoint: max-age 24h\n# ipfs-savepoint: floor 0 %s\n"+
				"# ipfs-savepoint: hcs 0.0.4711 https://mirror.example https://other.example\n",
				text, tlog.Hash(sha256.Sum256(nil)))
			p, err := anchor.ParsePolicy([]byte(own))
			must(t, err)
			if p.MaxAge != 24*time.Hour || len(p.Mirrors) != 1 || p.Floor == nil || p.PrivateIDs != c.o.PrivateIDs || p.Topic == nil || len(p.Warnings) > 0 {
				t.Errorf("of our comments we read %+v", p)
			}
			skey, err := b.Repo().ReadFile("log.key")
			must(t, err)
			log, err := anchor.NewSigner(strings.TrimSpace(string(skey)))
			must(t, err)
			for _, text := range []string{string(text), own} {
				readElsewhere(t, text, log, signers[:len(c.o.Witnesses)], c.need)
			}
		})
	}
}

// readElsewhere checks that a policy accepts heads of the log with as many cosignatures
// as it needs, and no others.
func readElsewhere(t *testing.T, text string, log note.Signer, witnesses []*torchwood.CosignatureSigner, need int) {
	t.Helper()
	rule, err := torchwood.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatalf("torchwood: %v\n%s", err, text)
	}
	group, err := witness.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatalf("transparency-dev: %v\n%s", err, text)
	}
	if got := len(group.Endpoints()); got != len(witnesses) {
		t.Errorf("transparency-dev sees %d witnesses, not %d", got, len(witnesses))
	}
	head := torchwood.Checkpoint{Origin: log.Name(), Tree: tlog.Tree{N: 1, Hash: tlog.RecordHash([]byte("record"))}}
	for n := range len(witnesses) + 1 {
		by := []note.Signer{log}
		for _, w := range witnesses[:n] {
			by = append(by, w)
		}
		signed, err := note.Sign(&note.Note{Text: head.String()}, by...)
		must(t, err)
		if _, _, err := torchwood.VerifyCheckpoint(signed, rule); (err == nil) != (n >= need) {
			t.Errorf("torchwood, %d cosignatures of %d: %v", n, need, err)
		}
		if ok := group.Satisfied(signed); ok != (n >= need) {
			t.Errorf("transparency-dev, %d cosignatures of %d: %v", n, need, ok)
		}
	}
	stranger, err := note.Sign(&note.Note{Text: head.String()}, newSigner(t, log.Name()))
	must(t, err)
	if _, _, err := torchwood.VerifyCheckpoint(stranger, rule); err == nil {
		t.Error("torchwood accepts a head of another key")
	}
}
