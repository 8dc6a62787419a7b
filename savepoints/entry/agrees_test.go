package entry_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// An entry anchors one manifest only: each of its fields is compared.
func TestAgrees(t *testing.T) {
	m := &dag.Manifest{
		Instance: sample().Instance, Policy: dag.Policy{ID: "policy-1"}, Sequence: 7, Epoch: 1,
		Height: height(1000), Time: sample().Time,
	}
	c := sample().Savepoint
	s := entry.Of("log.example/a", m, c, entry.Naming{})
	if !equal(s, sample()) {
		t.Fatalf("entry of the manifest: %+v", s)
	}
	if err := s.Agrees(m, c, entry.Naming{}); err != nil {
		t.Fatal(err)
	}
	m.Time = m.Time.In(time.UTC)
	for field, change := range map[string]func(*entry.Savepoint){
		"savepoint":      func(s *entry.Savepoint) { s.Savepoint = dag.RawBlock([]byte("other")).CID },
		"instance":       func(s *entry.Savepoint) { s.Instance[15]++ },
		"policy":         func(s *entry.Savepoint) { s.Policy[0]++ },
		"epoch":          func(s *entry.Savepoint) { s.Epoch++ },
		"sequence":       func(s *entry.Savepoint) { s.Sequence++ },
		"height":         func(s *entry.Savepoint) { s.Height = height(1001) },
		"height absent":  func(s *entry.Savepoint) { s.Height = nil },
		"time":           func(s *entry.Savepoint) { s.Time = s.Time.Add(1) },
		"height present": func(s *entry.Savepoint) { s.Height = height(0) },
	} {
		other := s
		change(&other)
		with := *m
		if field == "height present" {
			with.Height = nil
		}
		err := other.Agrees(&with, c, entry.Naming{})
		if !errors.Is(err, entry.ErrContradiction) || !strings.Contains(err.Error(), strings.Fields(field)[0]) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for field, change := range map[string]func(*dag.Manifest){
		"policy":   func(m *dag.Manifest) { m.Policy.ID = "policy-2" },
		"instance": func(m *dag.Manifest) { m.Instance[0]++ },
		"sequence": func(m *dag.Manifest) { m.Sequence-- },
		"time":     func(m *dag.Manifest) { m.Time = m.Time.Add(-time.Nanosecond) },
	} {
		with := *m
		change(&with)
		if err := s.Agrees(&with, c, entry.Naming{}); !errors.Is(err, entry.ErrContradiction) {
			t.Errorf("manifest with another %s: %v", field, err)
		}
	}
}

const privateKey = "b2ac2db19913a92471654aadcc47fb1b2d37cf7b770a6234e14ecd320391cc7a"

// A keyed name of a policy is compared by who has the key; for others the CID binds
// entry and manifest.
func TestAgreesPrivately(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	writer, stranger := entry.Naming{Private: true, Secret: secret}, entry.Naming{Private: true}
	m := &dag.Manifest{Instance: sample().Instance, Policy: dag.Policy{ID: "policy-1"}, Sequence: 7, Epoch: 1, Height: height(1000), Time: sample().Time}
	s := entry.Of("log.example/a", m, sample().Savepoint, writer)
	// HMAC-SHA-256 as Python's hmac module gives it.
	if got := hex.EncodeToString(s.Policy[:]); got != privateKey {
		t.Errorf("key of the policy: %s", got)
	}
	must(t, s.Agrees(m, sample().Savepoint, writer))
	must(t, s.Agrees(m, sample().Savepoint, stranger))
	if err := s.Agrees(m, sample().Savepoint, entry.Naming{}); !errors.Is(err, entry.ErrContradiction) {
		t.Errorf("read as if it were not private: %v", err)
	}
	other := *m
	other.Policy.ID = "policy-2"
	if err := s.Agrees(&other, sample().Savepoint, writer); !errors.Is(err, entry.ErrContradiction) {
		t.Errorf("another policy: %v", err)
	}
	other.Sequence++
	if err := s.Agrees(&other, sample().Savepoint, stranger); !errors.Is(err, entry.ErrContradiction) {
		t.Errorf("another sequence: %v", err)
	}
	if _, ok := stranger.Key(m.Instance, "policy-1"); ok {
		t.Error("a stranger can tell the key")
	}
}
