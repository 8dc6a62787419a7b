package savepoints_test

import (
	"bytes"
	"errors"
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

// A crash in the middle of the last step leaves a repository that works, and in which
// the step can be done again.
func TestFinishRotationAfterACrash(t *testing.T) {
	for _, done := range [][]string{{"trust.policy"}, {"trust.policy", "log.key"}, {"trust.policy", "log.key", "-log.next.key"}} {
		b := initBank(t)
		take(t, b, smallState(1), "p")
		_, err := b.RotateKey(ctx)
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
		// What is exported meanwhile is of use, too.
		_, err = continueOn(t, filepath.Join(t.TempDir(), "next"), savepoints.ContinueOptions{
			Keys: keysOf(t, b), Sources: []string{serve(t, openBank(t, copyBank(t, b))).GatewayURL()}, Unwitnessed: true,
		})
		must(t, err)
		if s := take(t, b, smallState(2), "p"); s.Entry.Sequence != 2 {
			t.Errorf("%v: %+v", done, s.Entry)
		}
		must(t, b.FinishRotation(ctx))
		b = reopen(t, b)
		take(t, b, smallState(3), "p")
		for _, s := range list(t, b) {
			_, err := b.Verify(ctx, s)
			must(t, err)
		}
		for _, name := range []string{"log.next.key", "trust.next.policy"} {
			if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v: %s is left", done, name)
			}
		}
	}
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

// One of the two files of a rotation alone is none: it has to be begun again.
func TestRotateKeyAfterACrash(t *testing.T) {
	for _, lost := range []string{"log.next.key", "trust.next.policy"} {
		b := initBank(t)
		_, err := b.RotateKey(ctx)
		must(t, err)
		must(t, os.Remove(filepath.Join(b.Repo().Dir(), lost)))
		b = reopen(t, b)
		if k, err := b.PublicKeys(); err != nil || k.NextLog != "" {
			t.Errorf("without %s the next key is %q, %v", lost, k.NextLog, err)
		}
		if err := b.FinishRotation(ctx); !errors.Is(err, savepoints.ErrUsage) {
			t.Errorf("finished without %s: %v", lost, err)
		}
		keysOf(t, b)
		next, err := b.RotateKey(ctx)
		must(t, err)
		must(t, b.FinishRotation(ctx))
		b = reopen(t, b)
		if now, err := b.TrustPolicy(); err != nil || !bytes.Equal(now, next) {
			t.Errorf("without %s: the policy is %s, %v", lost, now, err)
		}
		take(t, b, smallState(1), "p")
	}
}
