package savepoints_test

import (
	"errors"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// A head seen before that is damaged, or that only a policy which nobody kept believes, is told
// of once and does not end following: the head of the copy takes its place.
func TestFollowDamagedSeen(t *testing.T) {
	flip := func(t *testing.T, to *savepoints.Bank, origin string) *savepoints.Bank {
		t.Helper()
		data, err := to.Repo().Record("seen", savepoints.LogID(origin))
		must(t, err)
		data[len(data)/2] ^= 1
		must(t, to.Repo().PutRecord("seen", savepoints.LogID(origin), data))
		return to
	}
	for name, damage := range map[string]func(*testing.T, *savepoints.Bank, *savepoints.Bank, *anchor.Policy) (*savepoints.Bank, *savepoints.Bank, *anchor.Policy){
		"flipped": func(t *testing.T, b, to *savepoints.Bank, p *anchor.Policy) (*savepoints.Bank, *savepoints.Bank, *anchor.Policy) {
			return b, flip(t, to, p.Origin), p
		},
		"rotated": func(t *testing.T, b, to *savepoints.Bank, _ *anchor.Policy) (*savepoints.Bank, *savepoints.Bank, *anchor.Policy) {
			text, err := b.RotateKey(ctx)
			must(t, err)
			must(t, b.FinishRotation(ctx))
			next, err := anchor.ParsePolicy(text)
			must(t, err)
			return reopen(t, b), to, next
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := initBank(t)
			take(t, b, smallState(0), "p")
			_, url := countedGateway(t, b)
			to, p := nobody(t), policyOf(t, b)
			_, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url)
			must(t, err)
			b, to, p = damage(t, b, to, p)
			take(t, b, smallState(1), "p")
			_, url = countedGateway(t, b)
			h, err := b.Head(ctx, "")
			must(t, err)

			f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{url}})
			f.await(t, 1)
			take(t, b, smallState(2), "p")
			f.await(t, 2)
			f.stop(t)
			if len(f.failed) != 1 || !errors.Is(f.failed[0], savepoints.ErrDamaged) {
				t.Errorf("told: %v", f.failed)
			}
			data, err := to.Repo().Record("seen", savepoints.LogID(p.Origin))
			must(t, err)
			if string(data) != string(h.Checkpoint) {
				t.Errorf("seen is %q", data)
			}
		})
	}
}

// Where the policies of both times were kept nothing is told.
func TestFollowSeenBeforeRotation(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	_, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url)
	must(t, err)
	rotated, to, next := withNewKey(t, b, to)
	_, url = countedGateway(t, rotated)
	f := follow(t, to, savepoints.FollowOptions{Policy: next, Sources: []string{url}})
	f.await(t, 1)
	f.stop(t)
	if len(f.failed) > 0 {
		t.Errorf("told: %v", f.failed)
	}
}
