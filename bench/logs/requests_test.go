package logs

import (
	"fmt"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// watched is what is shown to witnesses: heads of a log, of a fork of it, and of a log
// of which nothing else is shown.
type watched struct {
	signer           note.Signer
	vkey             string
	three, seven     anchor.Head
	grown, forkGrown tlog.TreeProof // from three to seven, from seven to forked
	forked           anchor.Head
	another          anchor.Head
	anotherKey       string
	// trust policies
	trusted, anotherTrusted string
}

func newWatched(t testing.TB) watched {
	t.Helper()
	b := newBank(t, savepoints.InitOptions{})
	text, vkey := policyOf(t, b)
	skey, err := b.Repo().ReadFile("log.key")
	must(t, err)
	signer, err := anchor.NewSigner(strings.TrimSpace(string(skey)))
	must(t, err)
	w := watched{signer: signer, vkey: vkey, trusted: string(text)}
	take(t, b, 3)
	fork := copyOf(t, b)
	w.three = headOf(t, b)
	take(t, b, 4)
	w.seven = headOf(t, b)
	w.grown = consistency(t, b, w.seven, 3)
	_, err = fork.Take(ctx, state("another"), savepoints.TakeOptions{Policy: "policy-0"})
	must(t, err)
	take(t, fork, 5)
	w.forked = headOf(t, fork)
	w.forkGrown = consistency(t, fork, w.forked, 7)
	c := newBank(t, savepoints.InitOptions{})
	take(t, c, 1)
	w.another = headOf(t, c)
	text, w.anotherKey = policyOf(t, c)
	w.anotherTrusted = string(text)
	return w
}

// sign signs any text with the log's key.
func (w watched) sign(t testing.TB, text string, more ...note.Signer) string {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: text}, append([]note.Signer{w.signer}, more...)...)
	must(t, err)
	return string(signed)
}

// tree is the text of a checkpoint of a tree with a root that is nobody's.
func (w watched) tree(n int64, root byte) string {
	return torchwood.Checkpoint{Origin: w.signer.Name(), Tree: tlog.Tree{N: n, Hash: tlog.Hash{root}}}.String()
}

// request is a request to a witness, and the answer that c2sp.org/tlog-witness demands.
type request struct {
	what, body string
	status     int
	size       string // of a 409: its body
	others     differ
}

// differ is the other answers of some witnesses, by their names.
type differ map[string]int

func add(old string, proof tlog.TreeProof, checkpoint string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %s\n", old)
	for _, h := range proof {
		fmt.Fprintf(&b, "%s\n", h)
	}
	return b.String() + "\n" + checkpoint
}

// requests are in order: each depends on what was cosigned before it.
func (w watched) requests(t testing.TB) []request {
	t.Helper()
	three, seven, forked := string(w.three.Checkpoint), string(w.seven.Checkpoint), string(w.forked.Checkpoint)
	stranger, thief := newSigner(t, "log.example/stranger"), newSigner(t, w.signer.Name())
	signed := func(text string, s note.Signer) string {
		n, err := note.Sign(&note.Note{Text: text}, s)
		must(t, err)
		return string(n)
	}
	text, signature, _ := strings.Cut(three, "\n\n")
	middle := len(signature) - 20
	broken := text + "\n\n" + signature[:middle] + swapped(signature[middle:middle+1]) + signature[middle+1:]
	sevenText, _, _ := strings.Cut(seven, "\n\n")
	sevenText += "\n"

	// 404 and 403 are demanded. To omniwitness all that it cannot open is an error of its own.
	internal := differ{"omniwitness": 500}
	// That these are refused is demanded since July 2026, and these releases are older.
	older := differ{"litewitness": 200, "omniwitness": 200}
	// The specification first demanded 409 here, and 422 since July 2026.
	once409 := differ{"omniwitness": 409}
	// How sizes and hashes are written is demanded of who asks; how other forms are answered is left open.
	lenient := differ{"litewitness": 200, "omniwitness": 200}
	unproven := differ{"omniwitness": 422}
	// It does not say either how a checkpoint is refused that is malformed and signed.
	malformed := differ{"litewitness": 500, "omniwitness": 500}
	return []request{
		{what: "an unknown log", body: add("0", nil, signed("log.example/stranger\n3\n"+w.three.RootHash.String()+"\n", stranger)), status: 404, others: internal},
		{what: "no checkpoint", body: "old 0\n\n", status: 404, others: internal},
		{what: "another key of the log's name", body: add("0", nil, signed(text+"\n", thief)), status: 403, others: internal},
		{what: "a signature that is wrong", body: add("0", nil, broken), status: 403, others: internal},
		{what: "an empty tree with a root", body: add("0", nil, w.sign(t, w.tree(0, 1))), status: 422, others: older},
		{what: "a proof where none is needed", body: add("0", tlog.TreeProof{{1}}, string(w.another.Checkpoint)), status: 422, others: older},
		{what: "a larger one than was shown", body: add("3", w.grown, seven), status: 409, size: "0\n"},
		{what: "the first head", body: add("0", nil, three), status: 200},
		{what: "the first again", body: add("0", nil, three), status: 409, size: "3\n"},
		{what: "the same", body: add("3", nil, three), status: 200},
		{what: "another tree of the same size", body: add("3", nil, w.sign(t, w.tree(3, 1))), status: 422, others: once409},
		{what: "a proof for the same size", body: add("3", tlog.TreeProof{{1}}, three), status: 422},
		{what: "an old size above the checkpoint's", body: add("7", w.grown, three), status: 400},
		{what: "a longer one without proof", body: add("3", nil, seven), status: 422},
		{what: "a longer one with a wrong proof", body: add("3", w.forkGrown, seven), status: 422},
		{what: "a longer one", body: add("3", w.grown, seven), status: 200},
		{what: "the same request again", body: add("3", w.grown, seven), status: 409, size: "7\n"},
		{what: "an older copy", body: add("3", nil, three), status: 409, size: "7\n"},
		{what: "an older copy that admits what was seen", body: add("7", nil, three), status: 400},
		{what: "a fork with a proof of its own", body: add("7", w.forkGrown, forked), status: 422},
		{what: "no old size", body: seven, status: 400},
		{what: "no empty line", body: "old 7", status: 400},
		{what: "a negative size", body: add("-7", nil, seven), status: 400},
		{what: "a size that is no number", body: add("seven", nil, seven), status: 400},
		{what: "a leading zero", body: add("07", nil, seven), status: 400, others: lenient},
		{what: "a hash that is none", body: "old 7\nhash\n\n" + seven, status: 400, others: unproven},
		{what: "64 hashes", body: add("7", make(tlog.TreeProof, 64), seven), status: 400, others: unproven},
		{what: "a signed text that is no checkpoint", body: add("7", nil, w.sign(t, w.signer.Name()+"\nx\n")), status: 400, others: malformed},
		{what: "a checkpoint that is cut", body: strings.TrimSuffix(add("7", nil, seven), "\n"), status: 400, others: malformed},
		{what: "signatures of unknown keys too", body: add("7", nil, w.sign(t, sevenText, stranger, thief)), status: 200},
		{what: "an extension line", body: add("7", nil, w.sign(t, sevenText+"extension\n")), status: 200},
		{what: "the same after all that", body: add("7", nil, seven), status: 200},
	}
}

func newSigner(t testing.TB, name string) note.Signer {
	t.Helper()
	skey, _, err := note.GenerateKey(nil, name)
	must(t, err)
	s, err := note.NewSigner(skey)
	must(t, err)
	return s
}

// swapped is another base64 character.
func swapped(c string) string {
	if c == "A" {
		return "B"
	}
	return "A"
}

func consistency(t testing.TB, b *savepoints.Bank, h anchor.Head, old int64) tlog.TreeProof {
	t.Helper()
	text, _ := policyOf(t, b)
	p, err := anchor.ParsePolicy(text)
	must(t, err)
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(b.Repo().Blocks, h.Root), p)
	must(t, err)
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = hashes[x]
		}
		return out, nil
	})
	for e, err := range v.Entries(ctx, 0) {
		must(t, err)
		more, err := tlog.StoredHashes(e.Index, e.Record, reader)
		must(t, err)
		hashes = append(hashes, more...)
	}
	proof, err := tlog.ProveTree(h.Size, old, reader)
	must(t, err)
	return proof
}
