package savepoints_test

import (
	"errors"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

func TestTrust(t *testing.T) {
	of := initBank(t)
	policy, err := of.TrustPolicy()
	must(t, err)
	b, err := savepoints.OpenReader(ctx, t.TempDir())
	must(t, err)
	defer b.Close()
	with, p, err := b.Trust(policy)
	must(t, err)
	if p.Origin != of.Origin() || len(with.Policies()) != 1 || len(b.Policies()) != 0 {
		t.Errorf("%q, %d policies in force, %d before", p.Origin, len(with.Policies()), len(b.Policies()))
	}
	if _, _, err := b.Trust([]byte("nonsense")); !errors.Is(err, anchor.ErrPolicy) {
		t.Errorf("nonsense: %v", err)
	}
	if err := b.Keep([]byte("nonsense")); !errors.Is(err, anchor.ErrPolicy) {
		t.Errorf("nonsense is kept: %v", err)
	}
	must(t, b.Close())
	b = openBank(t, b.Repo().Dir())
	if len(b.Policies()) != 0 {
		t.Error("Trust lasts without Keep")
	}

	must(t, b.Keep(policy))
	must(t, b.Keep(policy))
	b = reopen(t, b)
	if l := b.Policies(); len(l) != 1 || l[0].Origin != of.Origin() {
		t.Errorf("%d policies kept", len(l))
	}
	// Another policy for the same log is for a person to decide.
	_, vkey, err := anchor.GenerateKey(of.Origin())
	must(t, err)
	another := anchor.FormatPolicy(vkey)
	if _, _, err := b.Trust(another); !errors.Is(err, savepoints.ErrTrustConflict) {
		t.Errorf("trust: %v", err)
	}
	if err := b.Keep(another); !errors.Is(err, savepoints.ErrTrustConflict) {
		t.Errorf("keep: %v", err)
	}
	if _, _, err := of.Trust(another); !errors.Is(err, savepoints.ErrTrustConflict) {
		t.Errorf("for the own log: %v", err)
	}
	must(t, of.Keep(policy)) // its own, as it is
	// A policy for another log is welcome beside it.
	_, vkey, err = anchor.GenerateKey("another.example/log")
	must(t, err)
	must(t, b.Keep(anchor.FormatPolicy(vkey)))
	if b = reopen(t, b); len(b.Policies()) != 2 || b.Policies()[0].Origin != "another.example/log" {
		t.Errorf("%d policies", len(b.Policies()))
	}
}
