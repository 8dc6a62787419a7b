package entry_test

import (
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
	s := entry.Of("log.example/a", m, c)
	if !equal(s, sample()) {
		t.Fatalf("entry of the manifest: %+v", s)
	}
	if err := s.Agrees(m, c); err != nil {
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
		err := other.Agrees(&with, c)
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
		if err := s.Agrees(&with, c); !errors.Is(err, entry.ErrContradiction) {
			t.Errorf("manifest with another %s: %v", field, err)
		}
	}
}
