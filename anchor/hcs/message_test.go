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
	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/note"
)

func TestMessageFormat(t *testing.T) {
	h := anchor.Head{Root: rootCID, Checkpoint: []byte("log.example/<a&b>\n3\nAAAA\n\n\u2014 log.example/<a&b> \"c\\\n")}
	want := `{"p":"ipfs-savepoint","v":1,"cp":"log.example/<a&b>\n3\nAAAA\n\n` + "\u2014" + ` log.example/<a&b> \"c\\\n","root":"` + rootCID.String() + `"}`
	got := message(t, h)
	if string(got) != want {
		t.Fatalf("%s\nwant\n%s", got, want)
	}
	checkpoint, root, err := hcs.DecodeHead(got)
	must(t, err)
	if !bytes.Equal(checkpoint, h.Checkpoint) || root != h.Root {
		t.Fatalf("%q %v", checkpoint, root)
	}
}

// A head fits with the cosignatures of three witnesses, and is refused with ten.
func TestMessageSize(t *testing.T) {
	k := newKey(t, "ipfs-savepoint.invalid/0123456789abcdef0123456789abcdef")
	witnesses := func(n int) (ws []note.Signer) {
		for i := range n {
			seed := bytes.Repeat([]byte{byte(i)}, ed25519.SeedSize)
			w, err := torchwood.NewCosignatureSigner(fmt.Sprintf("witness%d.example.org", i), ed25519.NewKeyFromSeed(seed))
			must(t, err)
			ws = append(ws, w)
		}
		return ws
	}
	b := message(t, k.head(t, 1<<40, "", witnesses(3)...))
	t.Logf("%d bytes with three witnesses", len(b))
	_, err := hcs.EncodeHead(k.head(t, 1<<40, "", witnesses(10)...))
	wantError(t, err, hcs.ErrSize)
}

func TestHeadsThatCannotBePublished(t *testing.T) {
	for name, h := range map[string]anchor.Head{
		"no root":     {Checkpoint: []byte("x\n")},
		"other hash":  {Checkpoint: []byte("x\n"), Root: cid.MustParse("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n")},
		"not a text":  {Checkpoint: []byte("\xff\n"), Root: rootCID},
		"much longer": {Checkpoint: bytes.Repeat([]byte("x"), 1<<20), Root: rootCID},
	} {
		if b, err := hcs.EncodeHead(h); err == nil {
			t.Errorf("%s: %q", name, b)
		}
	}
}

func TestForeignMessages(t *testing.T) {
	good := string(message(t, anchor.Head{Root: rootCID, Checkpoint: []byte("a\n1\n")}))
	if _, _, err := hcs.DecodeHead([]byte(good)); err != nil {
		t.Fatal(err)
	}
	root := rootCID.String()
	for name, bad := range map[string]string{
		"empty":              "",
		"text":               "Message 1",
		"other protocol":     strings.Replace(good, "ipfs-savepoint", "hcs-6", 1),
		"other version":      strings.Replace(good, `"v":1`, `"v":2`, 1),
		"half of it":         good[:len(good)/2],
		"white space":        strings.Replace(good, ",", ", ", 1),
		"newline after":      good + "\n",
		"twice":              good + good,
		"other order":        strings.Replace(good, `"p":"ipfs-savepoint","v":1`, `"v":1,"p":"ipfs-savepoint"`, 1),
		"key in upper case":  strings.Replace(good, `"cp"`, `"CP"`, 1),
		"key twice":          strings.Replace(good, `"cp"`, `"cp":"b\n2\n","cp"`, 1),
		"further key":        strings.Replace(good, `"root"`, `"x":1,"root"`, 1),
		"escaped letter":     strings.Replace(good, `a\n`, `\u0061\n`, 1),
		"no root":            strings.Replace(good, root, "", 1),
		"root in upper case": strings.Replace(good, root, strings.ToUpper(root), 1),
		"root of version 0":  strings.Replace(good, root, "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n", 1),
		"too long":           strings.Replace(good, `a\n`, strings.Repeat("a", 1024), 1),
	} {
		t.Run(name, func(t *testing.T) {
			if bad == good {
				t.Fatal("nothing was changed")
			}
			_, _, err := hcs.DecodeHead([]byte(bad))
			wantError(t, err, hcs.ErrForeign)
		})
	}
}
