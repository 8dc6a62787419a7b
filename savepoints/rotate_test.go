package savepoints_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// While a key is replaced, heads are believed by the old policy and by the new one; after
// it by the new one.
func TestRotateKey(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	if err := b.FinishRotation(ctx); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("finished before it began: %v", err)
	}
	before, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	old, err := b.TrustPolicy()
	must(t, err)
	next, err := b.RotateKey(ctx)
	must(t, err)
	if bytes.Equal(old, next) {
		t.Fatal("the policies are the same")
	}
	if _, err := b.RotateKey(ctx); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("rotated twice: %v", err)
	}
	// Nothing that both signed is published yet.
	if err := b.FinishRotation(ctx); !errors.Is(err, savepoints.ErrConflict) {
		t.Errorf("finished too early: %v", err)
	}
	b = reopen(t, b)
	_, err = b.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	h, err := b.Head(ctx, "")
	must(t, err)
	for _, text := range [][]byte{old, next} {
		p, err := anchor.ParsePolicy(text)
		must(t, err)
		_, err = anchor.OpenView(ctx, anchor.LocalFetcher(b.Repo().Blocks, h.Root), p)
		must(t, err)
	}
	// The witness cosigned these heads because of the old key.
	if err := b.FinishRotation(ctx); !errors.Is(err, anchor.ErrNoQuorum) {
		t.Errorf("finished although the witness does not know the new key: %v", err)
	}
	if now, err := b.TrustPolicy(); err != nil || !bytes.Equal(now, old) {
		t.Errorf("the policy is %s, %v", now, err)
	}
	w.trust(t, next)
	_, err = b.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "q", Witnessed: time.Minute})
	must(t, err)
	must(t, b.FinishRotation(ctx))
	b = reopen(t, b)
	if now, err := b.TrustPolicy(); err != nil || !bytes.Equal(now, next) {
		t.Errorf("the policy now: %s, %v", now, err)
	}
	last, err := b.Take(ctx, smallState(3), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	if last.Entry.Sequence != 3 || last.Manifest.Parent.Sequence != 2 {
		t.Errorf("%+v", last.Entry)
	}
	// All save points, those too that only the old key had signed, verify by the new one.
	l := list(t, b)
	if len(l) != 4 || l[0].CID != before.CID {
		t.Fatalf("%d save points", len(l))
	}
	for _, s := range l {
		_, err := b.Verify(ctx, s)
		must(t, err)
		must(t, exportTo(t, b, s, fresh(t, b)))
	}
	if pOld, err := anchor.ParsePolicy(old); err == nil {
		h, err := b.Head(ctx, "")
		must(t, err)
		if _, err := anchor.OpenView(ctx, anchor.LocalFetcher(b.Repo().Blocks, h.Root), pOld); !errors.Is(err, anchor.ErrUntrusted) {
			t.Errorf("by the old policy: %v", err)
		}
	}
	_, err = b.Collect(ctx, segments.CollectOptions{All: true})
	must(t, err)
}

// A crash in the middle of the last step leaves a repository that works, in which no other
// rotation begins, and in which the step can be done again.
func TestFinishRotationAfterACrash(t *testing.T) {
	for _, done := range [][]string{
		{"trust.policy"}, {"trust.policy", "-trust.next.policy"}, {"trust.policy", "log.key"},
		{"trust.policy", "log.key", "-log.next.key"}, {"trust.policy", "log.key", "-trust.next.policy"},
	} {
		b := initBank(t)
		take(t, b, smallState(1), "p")
		next, err := b.RotateKey(ctx)
		must(t, err)
		must(t, b.Close())
		dir := b.Repo().Dir()
		for _, step := range done {
			if name, gone := strings.CutPrefix(step, "-"); gone {
				must(t, os.Remove(filepath.Join(dir, name)))
				continue
			}
			from := map[string]string{"trust.policy": "trust.next.policy", "log.key": "log.next.key"}[step]
			data, err := os.ReadFile(filepath.Join(dir, from))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, step), data, 0o600))
		}
		b = openBank(t, dir)
		refused := func() {
			t.Helper()
			before := rotationFiles(t, dir)
			if _, err := b.RotateKey(ctx); !errors.Is(err, savepoints.ErrUsage) || !strings.Contains(err.Error(), "--finish") {
				t.Errorf("%v: another rotation: %v", done, err)
			}
			if !maps.Equal(before, rotationFiles(t, dir)) {
				t.Errorf("%v: files have changed", done)
			}
		}
		refused()
		if k, err := b.PublicKeys(); err != nil || !strings.Contains(string(next), k.Log) || k.NextLog != "" {
			t.Errorf("%v: the keys are %+v, %v", done, k, err)
		}
		// What is exported meanwhile is of use, too.
		_, err = continueOn(t, filepath.Join(t.TempDir(), "next"), savepoints.ContinueOptions{
			Keys: keysOf(t, b), Sources: []string{serve(t, openBank(t, copyBank(t, b))).GatewayURL()}, Unwitnessed: true,
		})
		must(t, err)
		if s := take(t, b, smallState(2), "p"); s.Entry.Sequence != 2 {
			t.Errorf("%v: %+v", done, s.Entry)
		}
		b = reopen(t, b)
		take(t, b, smallState(3), "p")
		refused()
		must(t, b.FinishRotation(ctx))
		if done[len(done)-1] == "trust.policy" { // the old key was read before, and signs yet
			refused()
		}
		b = reopen(t, b)
		take(t, b, smallState(4), "p")
		for _, s := range list(t, b) {
			_, err := b.Verify(ctx, s)
			must(t, err)
		}
		for name := range rotationFiles(t, dir) {
			if strings.Contains(name, "next") {
				t.Errorf("%v: %s is left", done, name)
			}
		}
		if now, err := b.TrustPolicy(); err != nil || !bytes.Equal(now, next) {
			t.Errorf("%v: the policy is %s, %v", done, now, err)
		}
		// The next rotation is as any.
		_, err = b.RotateKey(ctx)
		must(t, err)
		take(t, b, smallState(5), "p")
		must(t, b.FinishRotation(ctx))
		take(t, reopen(t, b), smallState(6), "p")
	}
}

// rotationFiles returns what the files of a repository hold that a rotation changes, of
// those that there are.
func rotationFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range []string{"log.key", "log.next.key", "trust.policy", "trust.next.policy"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(t, err)
		out[name] = string(data)
	}
	return out
}

// An export of while both keys sign continues the log, whichever of them signs when it is
// needed.
func TestContinueFromAnExportInARotation(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	takeWitnessed(t, b, 1)
	old, err := b.TrustPolicy()
	must(t, err)
	next, err := b.RotateKey(ctx)
	must(t, err)
	keys := keysOf(t, b)
	takeFor := func(b *savepoints.Bank) {
		t.Helper()
		_, err := b.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
		must(t, err)
	}
	check := func(from *savepoints.Bank, both bool) *savepoints.Bank {
		t.Helper()
		got, err := continueOn(t, filepath.Join(t.TempDir(), "next"), savepoints.ContinueOptions{Keys: keys, Sources: []string{serve(t, from).GatewayURL()}})
		must(t, err)
		takeFor(got)
		h := mustHead(t, got)
		for _, policy := range [][]byte{old, next} {
			p, err := anchor.ParsePolicy(policy)
			must(t, err)
			_, err = anchor.VerifyCheckpoint(p, h.Checkpoint)
			if want := both || bytes.Equal(policy, next); want != (err == nil) {
				t.Errorf("both keys sign: %t, but %v", both, err)
			}
		}
		if k, err := got.PublicKeys(); err != nil || (k.NextLog != "") != both {
			t.Errorf("the next key is %q, %v", k.NextLog, err)
		}
		return got
	}
	// Before anything that both signed is published, and after.
	again := check(b, true)
	again = check(again, true)
	w.trust(t, next)
	must(t, again.FinishRotation(ctx))
	again = reopen(t, again)
	takeFor(again)
	check(again, false)
}

// A frozen log cannot say that its key is replaced, so nothing is begun.
func TestRotateKeyOfAFrozenLog(t *testing.T) {
	b := initBank(t)
	_, err := b.Freeze(ctx)
	must(t, err)
	if _, err := b.RotateKey(ctx); !errors.Is(err, entry.ErrFrozen) {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"log.next.key", "trust.next.policy"} {
		if _, err := os.Stat(filepath.Join(b.Repo().Dir(), name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there", name)
		}
	}
}

// A policy without its key is no rotation: it has to be begun again.
func TestRotateKeyWithoutTheNextKey(t *testing.T) {
	b := initBank(t)
	_, err := b.RotateKey(ctx)
	must(t, err)
	must(t, os.Remove(filepath.Join(b.Repo().Dir(), "log.next.key")))
	b = reopen(t, b)
	if k, err := b.PublicKeys(); err != nil || k.NextLog != "" {
		t.Errorf("the next key is %q, %v", k.NextLog, err)
	}
	if err := b.FinishRotation(ctx); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("finished: %v", err)
	}
	keysOf(t, b)
	next, err := b.RotateKey(ctx)
	must(t, err)
	must(t, b.FinishRotation(ctx))
	b = reopen(t, b)
	if now, err := b.TrustPolicy(); err != nil || !bytes.Equal(now, next) {
		t.Errorf("the policy is %s, %v", now, err)
	}
	take(t, b, smallState(1), "p")
}

// A next key whose policy was moved away, or was not written before a crash, goes on to
// sign, and its policy is made again as it was.
func TestRotateKeyWithoutTheNextPolicy(t *testing.T) {
	for how, begin := range map[string]func(b *savepoints.Bank) string{
		"moved away": func(b *savepoints.Bank) string {
			next, err := b.RotateKey(ctx)
			must(t, err)
			must(t, os.Remove(filepath.Join(b.Repo().Dir(), "trust.next.policy")))
			return string(next)
		},
		"never written": func(b *savepoints.Bank) string {
			skey, vkey, err := anchor.GenerateKey(b.Origin())
			must(t, err)
			must(t, b.Repo().WriteFile("log.next.key", []byte(skey+"\n")))
			now, err := b.TrustPolicy()
			must(t, err)
			k, err := b.PublicKeys()
			must(t, err)
			return strings.Replace(string(now), k.Log, vkey, 1)
		},
	} {
		for _, again := range []bool{true, false} {
			b := initBank(t)
			take(t, b, smallState(1), "p")
			given := begin(b)
			b = reopen(t, b)
			take(t, b, smallState(2), "p")
			before := rotationFiles(t, b.Repo().Dir())
			if k, err := b.PublicKeys(); err != nil || k.NextLog == "" || !strings.Contains(given, k.NextLog) {
				t.Errorf("%s: the next key is %q, %v", how, k.NextLog, err)
			}
			c, err := continueOn(t, filepath.Join(t.TempDir(), "next"), savepoints.ContinueOptions{
				Keys: keysOf(t, b), Sources: []string{serve(t, openBank(t, copyBank(t, b))).GatewayURL()}, Unwitnessed: true,
			})
			must(t, err)
			if rotationFiles(t, c.Repo().Dir())["trust.next.policy"] != given {
				t.Errorf("%s: an export has another next policy", how)
			}
			if again {
				next, err := b.RotateKey(ctx)
				must(t, err)
				before["trust.next.policy"] = given
				if string(next) != given || !maps.Equal(before, rotationFiles(t, b.Repo().Dir())) {
					t.Errorf("%s: the next policy is %s", how, next)
				}
				if _, err := b.RotateKey(ctx); !errors.Is(err, savepoints.ErrUsage) {
					t.Errorf("%s: rotated twice: %v", how, err)
				}
			}
			must(t, b.FinishRotation(ctx))
			b = reopen(t, b)
			if now, err := b.TrustPolicy(); err != nil || string(now) != given {
				t.Errorf("%s: the policy is %s, %v", how, now, err)
			}
			take(t, b, smallState(3), "p")
		}
	}
}

// A next policy of another key than the next one is refused, and loses no key.
func TestRotateKeyWithAnotherNextPolicy(t *testing.T) {
	b := initBank(t)
	next, err := b.RotateKey(ctx)
	must(t, err)
	now, err := b.TrustPolicy()
	must(t, err)
	must(t, b.Repo().WriteFile("trust.next.policy", now))
	b = reopen(t, b)
	before := rotationFiles(t, b.Repo().Dir())
	if _, err := b.RotateKey(ctx); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("rotated twice: %v", err)
	}
	if err := b.FinishRotation(ctx); !errors.Is(err, savepoints.ErrKeys) {
		t.Errorf("finished: %v", err)
	}
	if err := b.ExportKeys(io.Discard, newIdentity(t).Recipient()); !errors.Is(err, savepoints.ErrKeys) {
		t.Errorf("exported: %v", err)
	}
	if !maps.Equal(before, rotationFiles(t, b.Repo().Dir())) {
		t.Error("files have changed")
	}
	must(t, os.Remove(filepath.Join(b.Repo().Dir(), "trust.next.policy")))
	if again, err := b.RotateKey(ctx); err != nil || !bytes.Equal(again, next) {
		t.Errorf("%s, %v", again, err)
	}
}
