package anchor_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"golang.org/x/mod/sumdb/note"
)

const emptyRoot = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

func TestParsePolicy(t *testing.T) {
	k := newKey(t, "log.example/policy")
	p := parsePolicy(t, strings.Join([]string{
		"# for a person",
		"# ipfs-savepoint: mirror https://a.example/tlog/",
		"# ipfs-savepoint: mirror https://b.example/tlog/",
		"# ipfs-savepoint: max-age 36h",
		"#ipfs-savepoint: floor 0 " + emptyRoot,
		"# ipfs-savepoint: colour blue",
		"",
		"  log " + k.vkey + " ipns://k51example  ",
		"quorum none",
	}, "\n"))
	if p.Origin != "log.example/policy" || !slices.Equal(p.URLs, []string{"ipns://k51example"}) ||
		!slices.Equal(p.Mirrors, []string{"https://a.example/tlog/", "https://b.example/tlog/"}) ||
		p.MaxAge != 36*time.Hour || p.Floor == nil || p.Floor.N != 0 || p.Floor.Hash.String() != emptyRoot ||
		len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "colour") {
		t.Fatalf("%+v", p)
	}
}

func TestUnusablePolicies(t *testing.T) {
	a, b := newKey(t, "log.example/a"), newKey(t, "log.example/b")
	logLine := "log " + a.vkey + "\n"
	ok := logLine + "quorum none\n"
	w := newVkey(t, "w.example/one", 4, 1)
	two := logLine + "witness w1 " + w + "\nwitness w2 " + newVkey(t, "w.example/two", 4, 2) + "\n"
	for _, c := range []struct {
		name, text string
		line       int
	}{
		{"empty", "", 0},
		{"no log", "quorum none\n", 0},
		{"no quorum", logLine, 0},
		{"two logs", logLine + "log " + b.vkey + "\nquorum none\n", 2},
		{"same log twice", logLine + ok, 2},
		{"two quorums", ok + "quorum none\n", 3},
		{"unknown quorum", logLine + "quorum all\n", 2},
		{"quorum before its group", two + "quorum q\ngroup q 1 w1\n", 4},
		{"quorum of nothing", logLine + "quorum\n", 2},
		{"quorum and more", logLine + "quorum none w\n", 2},
		{"bad key", "log " + a.vkey[:len(a.vkey)-4] + "\nquorum none\n", 1},
		{"log without key", "log\nquorum none\n", 1},
		{"too many fields", "log " + a.vkey + " https://a https://b\nquorum none\n", 1},
		{"unknown keyword", ok + "colour blue\n", 3},
		{"witness without key", ok + "witness w\n", 3},
		{"witness called none", "witness none " + a.vkey + "\n" + ok, 1},
		{"group of strangers", ok + "group g 1 x\n", 3},
		{"comment after text", "log " + a.vkey + " #mine\nquorum none\n", 1},
		{"witness with a comment", "witness w " + a.vkey + " #none\n" + ok, 1},
		{"bad floor", "# ipfs-savepoint: floor 3\n" + ok, 1},
		{"bad floor size", "# ipfs-savepoint: floor -1 " + emptyRoot + "\n" + ok, 1},
		{"bad floor root", "# ipfs-savepoint: floor 1 AAAA\n" + ok, 1},
		{"two floors", strings.Repeat("# ipfs-savepoint: floor 0 "+emptyRoot+"\n", 2) + ok, 2},
		{"bad age", ok + "# ipfs-savepoint: max-age soon\n", 3},
		{"negative age", ok + "# ipfs-savepoint: max-age -1h\n", 3},
		{"not UTF-8", ok + "# \xff\n", 0},
		{"CRLF", logLine + "quorum none\r\n", 2},
		{"CR in a comment", "# mine\r\n" + ok, 1},
		{"NUL", ok + "# \x00\n", 3},
		{"DEL", ok + "\x7f\n", 3},
		{"NBSP as white space", "log\u00a0" + a.vkey + "\nquorum none\n", 1},
		{"NBSP in a name", logLine + "witness w\u00a01 " + w + "\nquorum none\n", 2},
		{"line of an NBSP", ok + "\u00a0\n", 3},
		{"a key under two names", logLine + "witness w1 " + w + "\nwitness w2 " + newVkey(t, "w.example/other", 4, 1) + "\nquorum none\n", 3},
		{"a key twice", logLine + "witness w1 " + w + "\nwitness w2 " + w + "\nquorum none\n", 3},
		{"a name twice", logLine + "witness w1 " + w + "\nwitness w1 " + newVkey(t, "w.example/two", 4, 2) + "\nquorum none\n", 3},
		{"log as its witness", "log " + newVkey(t, "log.example/own", 1, 1) + "\nwitness w1 " + w + "\nquorum none\n", 2},
		{"witness before its log", "witness w1 " + w + "\nlog " + newVkey(t, "log.example/own", 1, 1) + "\nquorum none\n", 2},
		{"witness of the log's name", logLine + "witness w1 " + newVkey(t, "log.example/a", 4, 1) + "\nquorum none\n", 2},
		{"witness of the name of a log after it", "witness w1 " + newVkey(t, "log.example/a", 4, 1) + "\n" + ok, 2},
		{"member twice", two + "group q 2 w1 w1\nquorum q\n", 4},
		{"member of two groups", two + "group a any w1 w2\ngroup b any w1\ngroup q all a b\nquorum q\n", 5},
		{"group of itself", two + "group q 1 q\nquorum q\n", 4},
		{"group called none", two + "group none 1 w1\nquorum none\n", 4},
		{"group without members", two + "group q all\nquorum q\n", 4},
		{"group of a witness's name", two + "group w2 1 w1\nquorum w2\n", 4},
		{"threshold of 0", two + "group q 0 w1\nquorum q\n", 4},
		{"threshold too high", two + "group q 2 w1\nquorum q\n", 4},
		{"threshold with a sign", two + "group q +1 w1\nquorum q\n", 4},
		{"too long", ok + strings.Repeat("#\n", anchor.MaxPolicySize), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := anchor.ParsePolicy([]byte(c.text))
			wantError(t, err, anchor.ErrPolicy)
			var e *anchor.PolicyError
			if !errors.As(err, &e) || e.Line != c.line {
				t.Fatalf("%v, want line %d", err, c.line)
			}
		})
	}
}

// newVkey returns the vkey (c2sp.org/signed-note) of the nth of some keys, of a type of
// signature: 1 of logs, 4 of witnesses.
func newVkey(t *testing.T, name string, typ, n byte) string {
	t.Helper()
	public := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	key := append([]byte{typ}, public...)
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return fmt.Sprintf("%s+%x+%s", name, sum[:4], base64.StdEncoding.EncodeToString(key))
}

// White space is of spaces and tabs; other octets are of names, which have no meaning
// outside of the file.
func TestPolicyOctets(t *testing.T) {
	w := newVkey(t, "w.example/one", 4, 1)
	p := parsePolicy(t, "#\u00a0für alle\n\tlog \t "+newVkey(t, "log.example/octets", 1, 2)+"\t\n \t\n"+
		"witness wärter "+w+"\ngroup älle all wärter\nquorum älle")
	if !p.Quorum || len(p.Witnesses) != 1 || p.Witnesses[0].Name != "wärter" || p.Witnesses[0].Verifier.String() != w {
		t.Errorf("%+v", p)
	}
}

// A policy with a quorum accepts only heads that the witness cosigned.
func TestPolicyWithWitness(t *testing.T) {
	k := newKey(t, "log.example/witnessed")
	seed := bytes.Repeat([]byte{'w'}, ed25519.SeedSize)
	w, err := torchwood.NewCosignatureSigner("witness.example", ed25519.NewKeyFromSeed(seed))
	must(t, err)
	p := parsePolicy(t, "log "+k.vkey+"\nwitness w "+w.Verifier().String()+"\nquorum w\n")

	store := newMemStore()
	h := filled(t, store, k, 3).Head()
	local := anchor.LocalFetcher(store, h.Root)
	_, err = anchor.OpenView(ctx, local, p)
	wantError(t, err, anchor.ErrUntrusted)

	n, err := note.Open(h.Checkpoint, note.VerifierList(k.signer.Verifier()))
	must(t, err)
	cosigned, err := note.Sign(n, w)
	must(t, err)
	v, err := anchor.OpenView(ctx, replaced(local, "checkpoint", func([]byte) ([]byte, error) { return cosigned, nil }), p)
	must(t, err)
	if v.Head().Size != 3 {
		t.Fatalf("size %d", v.Head().Size)
	}
}

func TestCheckOrigin(t *testing.T) {
	for _, good := range []string{"a", "log.example/prod", "ipfs-savepoint.invalid/0123", "protokoll.example/ä", strings.Repeat("x", 255)} {
		must(t, anchor.CheckOrigin(good))
	}
	for _, bad := range []string{"", "a b", "a+b", "a\nb", "a\x01b", "a#b", "a\u00a0b", "\xff", strings.Repeat("x", 256)} {
		wantError(t, anchor.CheckOrigin(bad), anchor.ErrOrigin)
		_, _, err := anchor.GenerateKey(bad)
		wantError(t, err, anchor.ErrOrigin)
	}
	_, err := anchor.NewSigner("PRIVATE+KEY+secret")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Fatalf("error %v", err)
	}
}

// The comment is this project's own: whoever does not know it reads the same policy.
func TestPolicyOfPrivateIDs(t *testing.T) {
	_, vkey, err := anchor.GenerateKey("log.example/a")
	must(t, err)
	plain := anchor.FormatPolicy(vkey)
	p, err := anchor.ParsePolicy(append(plain, anchor.PrivateIDsLine...))
	must(t, err)
	if !p.PrivateIDs || len(p.Warnings) > 0 {
		t.Errorf("%+v", p)
	}
	if p, err := anchor.ParsePolicy(plain); err != nil || p.PrivateIDs {
		t.Errorf("without it: %+v, %v", p, err)
	}
	if _, err := anchor.ParsePolicy(append(plain, "# ipfs-savepoint: private-ids yes\n"...)); !errors.Is(err, anchor.ErrPolicy) {
		t.Errorf("with a value: %v", err)
	}
}

// A topic of a public ledger is named with at least two of its mirror nodes.
func TestPolicyTopic(t *testing.T) {
	_, vkey, err := anchor.GenerateKey("log.example/a")
	must(t, err)
	parse := func(values string) (*anchor.Policy, error) {
		return anchor.ParsePolicy(append(anchor.FormatPolicy(vkey), "# ipfs-savepoint: hcs "+values+"\n"...))
	}
	const mirrors = " https://a.example https://b.example/x http://127.0.0.1:5551"
	hash := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 48))
	p, err := parse("0.0.4711" + mirrors)
	must(t, err)
	want := anchor.PolicyTopic{ID: "0.0.4711", Mirrors: strings.Fields(mirrors)}
	if len(p.Warnings) > 0 || !reflect.DeepEqual(*p.Topic, want) {
		t.Errorf("%+v", p.Topic)
	}
	p, err = parse("0.0.4711@12:" + hash + mirrors)
	must(t, err)
	want.Sequence, want.RunningHash = 12, bytes.Repeat([]byte{7}, 48)
	if !reflect.DeepEqual(*p.Topic, want) {
		t.Errorf("%+v", p.Topic)
	}
	for _, values := range []string{
		"", "0.0.4711", "0.0.4711 https://a.example", "4711" + mirrors, "0.0.x" + mirrors, "0.0.04711" + mirrors, "0.0.-1" + mirrors, "0.0.1.2" + mirrors,
		"0.0.4711 https://a.example https://A.example/y", "0.0.4711 http://a.example https://b.example", "0.0.4711 https://a.example ftp://b.example",
		"0.0.4711 https://a.example https://b.example?x=1", "0.0.4711 https://a.example b.example",
		"0.0.4711@" + mirrors, "0.0.4711@12" + mirrors, "0.0.4711@0:" + hash + mirrors, "0.0.4711@012:" + hash + mirrors,
		"0.0.4711@12:" + hash[4:] + mirrors, "0.0.4711@12:" + hash + "A" + mirrors,
		"0.0.4711" + mirrors + "\n# ipfs-savepoint: hcs 0.0.4711" + mirrors,
		"0.0.4711 https://a.example https://A.example:443", "0.0.4711 https://a.example https://a.example.",
	} {
		if _, err := parse(values); !errors.Is(err, anchor.ErrPolicy) {
			t.Errorf("%q: %v", values, err)
		}
		if _, err := anchor.TopicLine(values); !strings.Contains(values, "\n") && !errors.Is(err, anchor.ErrPolicy) {
			t.Errorf("line of %q: %v", values, err)
		}
	}
	line, err := anchor.TopicLine("  0.0.4711 \n" + mirrors)
	if err != nil || line != "# ipfs-savepoint: hcs 0.0.4711"+mirrors+"\n" {
		t.Errorf("%q %v", line, err)
	}
}

// Two witnesses whose keys have one name are two.
func TestWitnessesOfOneName(t *testing.T) {
	k := newKey(t, "log.example/witnessed")
	var ws []note.Signer
	text, group := "log "+k.vkey+"\n", "group q all"
	for i := range 2 {
		w, err := torchwood.NewCosignatureSigner("witness.example", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, ed25519.SeedSize)))
		must(t, err)
		ws = append(ws, w)
		text += fmt.Sprintf("witness w%d %s\n", i, w.Verifier())
		group += fmt.Sprintf(" w%d", i)
	}
	p := parsePolicy(t, text+group+"\nquorum q\n")
	n, err := note.Open(filled(t, newMemStore(), k, 1).Head().Checkpoint, note.VerifierList(k.signer.Verifier()))
	must(t, err)
	signed, err := note.Sign(n, ws...)
	must(t, err)
	h, err := anchor.VerifyCheckpoint(p, signed)
	must(t, err)
	if at := anchor.CosignedAt(p, h); len(at) != 2 || at["w0"].IsZero() || at["w1"].IsZero() {
		t.Errorf("cosigned at %v", at)
	}
}

// A secret key in a policy, which is public, is refused and not repeated.
func TestSecretKeyInPolicy(t *testing.T) {
	skey, vkey, err := anchor.GenerateKey("log.example/a")
	must(t, err)
	log := "log " + vkey + "\n"
	for _, text := range []string{
		"log " + skey + "\nquorum none\n", log + "witness w " + skey + "\nquorum w\n", log + "quorum " + skey + "\n",
		log + "witness " + skey + "\nquorum none\n", log + "quorum none\n# mine: " + skey + "\n", log + "quorum none\n# AGE-SECRET-KEY-1QQ\n",
	} {
		_, err := anchor.ParsePolicy([]byte(text))
		wantNoSecret(t, err, anchor.ErrPolicy, skey)
	}
	for _, line := range []string{skey, "w " + skey, skey + "#"} {
		_, err := anchor.FormatWitnessedPolicy(vkey, []string{line}, 1)
		wantNoSecret(t, err, anchor.ErrPolicy, skey)
	}
	wantNoSecret(t, anchor.CheckOrigin(skey), anchor.ErrOrigin, skey)
}

func wantNoSecret(t *testing.T, err, want error, skey string) {
	t.Helper()
	wantError(t, err, want)
	if text := err.Error(); strings.Contains(text, skey) || strings.Contains(text, "KEY+") || strings.Contains(text, "SECRET-KEY-") {
		t.Errorf("%s", text)
	}
}
