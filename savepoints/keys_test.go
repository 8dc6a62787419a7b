package savepoints_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
)

// exportKeys returns the file and what it holds.
func exportKeys(t *testing.T, b *savepoints.Bank) ([]byte, savepoints.Keys) {
	t.Helper()
	mine, yours := newIdentity(t), newIdentity(t)
	var file bytes.Buffer
	must(t, b.ExportKeys(&file, mine.Recipient(), yours.Recipient()))
	if _, err := savepoints.OpenKeys(bytes.NewReader(file.Bytes()), newIdentity(t)); !errors.Is(err, savepoints.ErrKeys) {
		t.Errorf("opened by a stranger: %v", err)
	}
	_, err := savepoints.OpenKeys(bytes.NewReader(file.Bytes()), yours)
	must(t, err)
	keys, err := savepoints.OpenKeys(bytes.NewReader(file.Bytes()), mine)
	must(t, err)
	if keys.Origin() != b.Origin() {
		t.Errorf("keys of %q", keys.Origin())
	}
	return file.Bytes(), keys
}

// secrets are the forms in which the secret key of a log may show.
func secrets(t *testing.T, dir, name string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	skey := strings.TrimSpace(string(text))
	parts := strings.SplitN(skey, "+", 5) // the last one is base64, which has + too
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	must(t, err)
	seed := raw[1:]
	if len(seed) != 32 {
		t.Fatalf("a seed of %d bytes", len(seed))
	}
	return [][]byte{[]byte(skey), []byte(parts[len(parts)-1]), seed, []byte(fmt.Sprintf("%x", seed)), []byte(base64.StdEncoding.EncodeToString(seed))}
}

// The log's key is in its file and nowhere else: not in the store, the log, the records,
// an archive, an exported file, or what is printed.
func TestTheLogKeyIsNowhere(t *testing.T) {
	b := initBank(t)
	s := take(t, b, someState(), "p")
	_, err := b.RotateKey(ctx)
	must(t, err)
	take(t, b, smallState(1), "p")
	dir := b.Repo().Dir()
	all := append(secrets(t, dir, "log.key"), secrets(t, dir, "log.next.key")...)
	check := func(where string, data []byte) {
		for _, secret := range all {
			if bytes.Contains(data, secret) {
				t.Errorf("%s has the key", where)
			}
		}
	}
	var car bytes.Buffer
	must(t, b.Export(ctx, s.Savepoint, &car))
	check("the archive", car.Bytes())
	file, keys := exportKeys(t, b)
	check("the exported file", file)
	check("what is printed", fmt.Appendf(nil, "%v %+v %#v %s", keys, keys, keys, keys))
	public, err := b.PublicKeys()
	must(t, err)
	check("what is shown", fmt.Appendf(nil, "%+v", public))
	_, err = anchor.NewSigner(string(all[0]) + "x")
	if err == nil {
		t.Fatal("a key with a letter more is a key")
	}
	check("an error", []byte(err.Error()))
	must(t, b.Repo().Blocks.Seal(ctx))
	seen := 0
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "log.key" || d.Name() == "log.next.key" {
			return err
		}
		data, err := os.ReadFile(path)
		seen++
		check(path, data)
		return err
	}))
	if seen < 10 {
		t.Errorf("looked at %d files", seen)
	}
}

// Whatever is wrong with a file of keys, nothing is taken from it.
func TestOpenKeysRefuses(t *testing.T) {
	b := initBank(t)
	id := newIdentity(t)
	var file bytes.Buffer
	must(t, b.ExportKeys(&file, id.Recipient()))
	for what, data := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "half": file.Bytes()[:file.Len()/2],
		"a byte changed": bytes.Replace(file.Bytes(), []byte("\n"), []byte("\nA"), 4),
	} {
		if k, err := savepoints.OpenKeys(bytes.NewReader(data), id); !errors.Is(err, savepoints.ErrKeys) {
			t.Errorf("%s: %v, %v", what, k, err)
		}
	}
	if err := b.ExportKeys(&file); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("exported to nobody: %v", err)
	}
	if _, err := savepoints.Recipient("age1nonsense"); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("a wrong recipient: %v", err)
	}
	if _, err := savepoints.Recipient(id.String()); !errors.Is(err, savepoints.ErrUsage) || strings.Contains(err.Error(), id.String()) {
		t.Errorf("an identity: %v", err)
	}
	// A key and the policy of another log.
	other := initBank(t)
	skey, err := os.ReadFile(filepath.Join(b.Repo().Dir(), "log.key"))
	must(t, err)
	policy, err := other.TrustPolicy()
	must(t, err)
	if _, err := savepoints.LogKey(skey, policy); !errors.Is(err, savepoints.ErrKeys) {
		t.Errorf("the key of another log: %v", err)
	}
	if _, err := savepoints.LogKey([]byte("x"), policy); !errors.Is(err, savepoints.ErrKeys) {
		t.Errorf("no key: %v", err)
	}
}

func TestImportKeys(t *testing.T) {
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{PrivateIDs: true})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	first := take(t, b, smallState(1), "p")
	keys := keysOf(t, b)
	if err := initBank(t).ImportKeys(keys); !errors.Is(err, savepoints.ErrLogExists) {
		t.Errorf("into a bank with a log: %v", err)
	}
	r, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "next"))
	must(t, err)
	must(t, r.ImportKeys(keys))
	if _, err := r.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, savepoints.ErrNotContinued) {
		t.Errorf("take: %v", err)
	}
	if _, err := r.Note(ctx, "x"); !errors.Is(err, savepoints.ErrNotContinued) {
		t.Errorf("note: %v", err)
	}
	must(t, r.Close())
	next, err := continueOn(t, r.Repo().Dir(), savepoints.ContinueOptions{Sources: []string{serve(t, b).GatewayURL()}, Unwitnessed: true})
	must(t, err)
	// The key under which policies are named came too: it is the same policy.
	if s := take(t, next, smallState(2), "p"); s.Entry.Policy != first.Entry.Policy || s.Entry.Sequence != 2 || s.Entry.Epoch != 1 {
		t.Errorf("%+v", s.Entry)
	}
}

// A follower that was away while a log's key was replaced goes on when a person has put
// the new trust policy in the place of the old one: what it holds is believed by the policy
// of its time, and nothing else is.
func TestFollowerAfterRotation(t *testing.T) {
	b := initBank(t)
	before := take(t, b, smallState(1), "p")
	old := openBank(t, copyBank(t, b))
	to, p := reader(t, b)
	_, url := countedGateway(t, b)
	follows(t, to, p, url, 1)
	rotated, to, next := withNewKey(t, b, to)
	list(t, to)
	_, err := to.Verify(ctx, resolved(t, to, before.CID))
	must(t, err)
	held := resolved(t, to, before.CID)
	if err := to.Export(ctx, held, io.Discard); !errors.Is(err, anchor.ErrUntrusted) {
		t.Errorf("an archive that the policy in force does not accept: %v", err)
	}
	_, url = countedGateway(t, rotated)
	follows(t, to, next, url, 3, 2) // a note that the key is replaced is among them
	must(t, to.VerifyLog(ctx, next.Origin))
	_, err = fresh(t, rotated).Import(ctx, bytes.NewReader(export(t, to, held)), next, nil)
	must(t, err)

	// What the old key signs now does not count, at a source or in an archive.
	_, behind := countedGateway(t, old)
	if _, err := to.Discover(ctx, savepoints.FetchOptions{Policy: next, Sources: []string{behind}}); !errors.Is(err, anchor.ErrUntrusted) {
		t.Errorf("a source with the old key: %v", err)
	}
	forged := archived(t, old, take(t, old, smallState(9), "p"))
	if _, err := fetch(to, savepoints.Ref{Policy: "p", Sequence: 2}, next, forged); !errors.Is(err, anchor.ErrUntrusted) {
		t.Errorf("an archive with the old key: %v", err)
	}
}

// What a reader has seen of a log stays in force when the key is replaced.
func TestReaderAfterRotation(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	old := copyBank(t, b)
	take(t, b, smallState(2), "p")
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	_, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url)
	must(t, err)
	fork := openBank(t, old)
	for i := range 4 {
		take(t, fork, smallState(9+i), "p")
	}
	forked, to, next := withNewKey(t, fork, to)
	if l := list(t, to); len(l) != 1 {
		t.Errorf("%d save points are listed", len(l))
	}
	if h, err := to.Head(ctx, next.Origin); err != nil || h.Size != 2 {
		t.Errorf("size %d is remembered, %v", h.Size, err)
	}
	_, url = countedGateway(t, forked)
	if _, err := to.Discover(ctx, savepoints.FetchOptions{Policy: next, Sources: []string{url}}); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("another history under the new key: %v", err)
	}
}

func resolved(t *testing.T, b *savepoints.Bank, c cid.Cid) savepoints.Savepoint {
	t.Helper()
	s, err := b.Resolve(ctx, savepoints.Ref{CID: c}, "")
	must(t, err)
	return s
}

// withNewKey replaces the key of a bank's log, takes a save point, and has a reader trust
// the new key in place of the old one. Both repositories are opened again.
func withNewKey(t *testing.T, b *savepoints.Bank, to *savepoints.Bank) (rotated, again *savepoints.Bank, next *anchor.Policy) {
	t.Helper()
	text, err := b.RotateKey(ctx)
	must(t, err)
	must(t, b.FinishRotation(ctx))
	rotated = reopen(t, b)
	take(t, rotated, smallState(20), "p")
	next, err = anchor.ParsePolicy(text)
	must(t, err)
	must(t, to.Close())
	files, err := filepath.Glob(filepath.Join(to.Repo().Dir(), "trust.d/*.policy"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q %v", files, err)
	}
	must(t, os.WriteFile(files[0], text, 0o600))
	return rotated, openBank(t, to.Repo().Dir()), next
}

// A log whose ids are private is not written without their key: an entry would name the
// policy as another.
func TestNoPolicyKey(t *testing.T) {
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{PrivateIDs: true})
	must(t, err)
	taken := take(t, b, state{"a": "1"}, "p")
	key := filepath.Join(b.Repo().Dir(), "policy.key")
	must(t, os.Rename(key, key+".away"))
	b = reopen(t, b)
	if _, err := b.Take(ctx, state{"a": "2"}, savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, savepoints.ErrNoPolicyKey) {
		t.Errorf("without the key: %v", err)
	}
	if l := list(t, b); len(l) != 1 || l[0].CID != taken.CID {
		t.Errorf("%v", l)
	}
	must(t, os.Rename(key+".away", key))
	if next := take(t, reopen(t, b), state{"a": "2"}, "p"); next.Entry.Sequence != 2 {
		t.Errorf("with it again: sequence %d", next.Entry.Sequence)
	}
}
