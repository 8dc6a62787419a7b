package savepoints_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// policies returns the trust policy of a log, and the one that names its next key.
func policies(t *testing.T) (now, next []byte) {
	t.Helper()
	b := initBank(t)
	now, err := b.TrustPolicy()
	must(t, err)
	next, err = b.RotateKey(ctx)
	must(t, err)
	return now, next
}

func newReader(t *testing.T) *savepoints.Bank {
	t.Helper()
	b, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "reader"))
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// keptFiles returns the files of the trust policies of followed logs.
func keptFiles(t *testing.T, b *savepoints.Bank) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.Repo().Dir(), "trust.d/*.policy"))
	must(t, err)
	return files
}

// A witness goes over to the next key of a log when it is told to, and not back.
func TestSucceed(t *testing.T) {
	now, next := policies(t)
	_, other := policies(t)
	b := newReader(t)
	inForce := func(given, want []byte) {
		t.Helper()
		with, p, err := b.Succeed(given)
		must(t, err)
		file := keptFiles(t, b)[0]
		if kept, err := os.ReadFile(file); err != nil || string(kept) != string(want) {
			t.Errorf("%s is kept, %v", kept, err)
		}
		counts, err := anchor.ParsePolicy(want)
		must(t, err)
		if q := with.Policies(); len(q) != 1 || q[0] != p || p.Key().KeyHash() != counts.Key().KeyHash() {
			t.Errorf("in force: %+v", q)
		}
		b = reopen(t, b)
	}
	inForce(now, now)
	inForce(now, now)
	inForce(next, next)
	inForce(now, next)
	if n := len(keptFiles(t, b)); n != 1 {
		t.Errorf("%d files", n)
	}
	_, _, err := b.Succeed(append(other, "# of another log\n"...))
	must(t, err)
	// Whatever else differs is for a person to decide.
	file := keptFiles(t, b)[0]
	_, _, err = b.Succeed(append(next, "# ipfs-savepoint: max-age 1h\n"...))
	if !errors.Is(err, savepoints.ErrTrustConflict) || !strings.Contains(err.Error(), "trust.d/") {
		t.Errorf("%v; %s", err, file)
	}
}

// A policy lies in the file in which a person has put it, and there are not two for a log.
func TestOneTrustPolicyOfALog(t *testing.T) {
	now, next := policies(t)
	b := newReader(t)
	dir := filepath.Join(b.Repo().Dir(), "trust.d")
	must(t, os.MkdirAll(dir, 0o700))
	mine, second := filepath.Join(dir, "mine.policy"), filepath.Join(dir, "a.policy")
	must(t, os.WriteFile(mine, now, 0o600))
	b = reopen(t, b)
	must(t, b.Keep(now))
	if files := keptFiles(t, b); len(files) != 1 {
		t.Errorf("kept in %q", files)
	}
	if err := b.Keep(next); !errors.Is(err, savepoints.ErrTrustConflict) || !strings.Contains(err.Error(), mine) {
		t.Errorf("another policy: %v", err)
	}
	must(t, os.WriteFile(second, now, 0o600))
	b = reopen(t, b)
	must(t, os.WriteFile(second, next, 0o600))
	must(t, b.Close())
	_, err := savepoints.Open(ctx, b.Repo().Dir())
	if !errors.Is(err, savepoints.ErrTrustConflict) || !strings.Contains(err.Error(), mine) || !strings.Contains(err.Error(), second) {
		t.Errorf("two policies: %v", err)
	}
	must(t, os.Remove(mine))
	openBank(t, b.Repo().Dir())
}
