package entry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

// writer makes entries of one log, one a second.
type writer struct{ clock int64 }

func (w *writer) common(epoch uint64) entry.Common {
	w.clock++
	return entry.Common{Origin: "log.example/a", Instance: [16]byte{1}, Epoch: epoch, Time: time.Unix(1e9+w.clock, 0).UTC()}
}

func policyKey(name string) entry.PolicyKey { return entry.KeyOf([16]byte{1}, name) }

func manifestCID(policy string, sequence uint64) cid.Cid {
	return cid.NewCidV1(cid.DagCBOR, dag.RawBlock(fmt.Append(nil, policy, sequence)).CID.Hash())
}

func (w *writer) savepoint(policy string, epoch, sequence uint64, h ...uint64) *entry.Savepoint {
	s := &entry.Savepoint{Common: w.common(epoch), Policy: policyKey(policy), Sequence: sequence, Savepoint: manifestCID(policy, sequence)}
	if len(h) > 0 {
		s.Height = &h[0]
	}
	return s
}

func (w *writer) retire(policy string, epoch, sequence uint64) *entry.Retire {
	return &entry.Retire{Common: w.common(epoch), Policy: policyKey(policy), Sequence: sequence, Savepoint: manifestCID(policy, sequence)}
}

func (w *writer) takeover(policy string, epoch uint64, from string) *entry.Takeover {
	t := &entry.Takeover{Common: w.common(epoch), Policy: policyKey(policy)}
	if from != "" {
		t.Previous = &entry.Previous{Origin: from, Checkpoint: []byte(from + "\n1\nAAAA\n\n\u2014 " + from + " x\n"), Root: cid.NewCidV1(cid.DagProtobuf, rawCID("x").Hash())}
	}
	return t
}

// history is that of entries which break no rule.
func history(t *testing.T, entries ...entry.Entry) *entry.History {
	t.Helper()
	h := entry.NewHistory("log.example/a")
	for i, e := range entries {
		must(t, h.Add(int64(i), e))
	}
	return h
}

func TestHistory(t *testing.T) {
	var w writer
	h := history(t,
		w.savepoint("p", 0, 1, 10), w.savepoint("q", 0, 1), w.savepoint("p", 0, 2), w.savepoint("p", 0, 3, 11),
		w.retire("p", 0, 2),
		&entry.Note{Common: w.common(0), Text: "a"},
		w.takeover("p", 1, ""),
		&entry.Erase{Common: w.common(1), Documents: []cid.Cid{rawCID("x")}},
		w.savepoint("p", 1, 4, 3), w.savepoint("q", 0, 2), w.retire("p", 1, 1),
	)
	p, q := policyKey("p"), policyKey("q")
	if e, ok := h.EpochOf(p); !ok || e != 1 {
		t.Errorf("epoch %d", e)
	}
	if _, ok := h.EpochOf(policyKey("r")); ok || h.Last(policyKey("r")) != nil || h.High(policyKey("r")) != nil {
		t.Error("an unknown policy is known")
	}
	if l := h.Last(q); l.Index != 9 || l.Entry.Sequence != 2 || h.High(q) != nil {
		t.Errorf("last of q: %+v", l)
	}
	if l := h.High(p); l.Index != 8 || *l.Entry.Height != 3 {
		t.Errorf("highest of p: %+v", l)
	}
	for sequence, want := range map[uint64]bool{1: true, 2: true, 3: false, 4: false, 5: false} {
		if _, got := h.Retired(p, sequence); got != want {
			t.Errorf("%d retired: %t", sequence, got)
		}
	}
	if first, ok := h.Began(); !ok || first.Instance != [16]byte{1} || h.Epoch() != 1 || len(h.Policies()) != 2 || h.TakenFrom(p) != nil {
		t.Errorf("%+v, epoch %d, policies %v", first, h.Epoch(), h.Policies())
	}
	if n := h.Retirements(); n != 2 {
		t.Errorf("%d retired", n)
	}
	// What was given before is passed over, also if it would break a rule now.
	must(t, h.Add(3, w.savepoint("p", 0, 3, 11)))
}

// What comes after sound entries and breaks one rule.
func TestRules(t *testing.T) {
	begin := func(w *writer) []entry.Entry {
		return []entry.Entry{w.savepoint("p", 0, 1, 10), w.savepoint("p", 0, 2), w.takeover("q0", 1, "")}[:2]
	}
	for name, next := range map[string]func(*writer) entry.Entry{
		"a gap in the sequence":      func(w *writer) entry.Entry { return w.savepoint("p", 0, 4) },
		"a sequence again":           func(w *writer) entry.Entry { return w.savepoint("p", 0, 2) },
		"another policy's first":     func(w *writer) entry.Entry { return w.savepoint("q", 0, 2) },
		"the first in a later epoch": func(w *writer) entry.Entry { return w.savepoint("q", 1, 1) },
		"another epoch":              func(w *writer) entry.Entry { return w.savepoint("p", 1, 3) },
		"the same height":            func(w *writer) entry.Entry { return w.savepoint("p", 0, 3, 10) },
		"a lower height":             func(w *writer) entry.Entry { return w.savepoint("p", 0, 3, 9) },
		"an earlier time": func(w *writer) entry.Entry {
			s := w.savepoint("p", 0, 3)
			s.Time = s.Time.Add(-time.Minute)
			return s
		},
		"another log":                      func(w *writer) entry.Entry { s := w.savepoint("p", 0, 3); s.Origin = "log.example/b"; return s },
		"another instance":                 func(w *writer) entry.Entry { s := w.savepoint("p", 0, 3); s.Instance[0]++; return s },
		"retire of nothing":                func(w *writer) entry.Entry { return w.retire("p", 0, 3) },
		"retire of another policy's":       func(w *writer) entry.Entry { return w.retire("q", 0, 1) },
		"retire of another CID":            func(w *writer) entry.Entry { r := w.retire("p", 0, 1); r.Savepoint = manifestCID("p", 2); return r },
		"retire in another epoch":          func(w *writer) entry.Entry { return w.retire("p", 1, 1) },
		"takeover that skips an epoch":     func(w *writer) entry.Entry { return w.takeover("p", 2, "") },
		"takeover of an unknown policy":    func(w *writer) entry.Entry { return w.takeover("q", 1, "") },
		"takeover from another log":        func(w *writer) entry.Entry { return w.takeover("q", 1, "log.example/b") },
		"takeover from another log of one": func(w *writer) entry.Entry { return w.takeover("p", 1, "log.example/b") },
		"note in another epoch":            func(w *writer) entry.Entry { return &entry.Note{Common: w.common(1), Text: "x"} },
		"freeze in another epoch":          func(w *writer) entry.Entry { return &entry.Freeze{Common: w.common(7)} },
	} {
		var w writer
		h := history(t, begin(&w)...)
		bad := next(&w)
		if err := h.Check(bad); !errors.Is(err, entry.ErrRule) || errors.Is(err, entry.ErrFrozen) {
			t.Errorf("%s: %v", name, err)
		}
		if err := h.Add(2, bad); !errors.Is(err, entry.ErrRule) {
			t.Errorf("%s, added: %v", name, err)
		}
		// It counts for nothing.
		must(t, h.Add(3, w.savepoint("p", 0, 3, 11)))
	}
}

func TestRulesOfRetireAndFreeze(t *testing.T) {
	var w writer
	h := history(t, w.savepoint("p", 0, 1), w.retire("p", 0, 1))
	if err := h.Check(w.retire("p", 0, 1)); !errors.Is(err, entry.ErrRule) {
		t.Errorf("retired twice: %v", err)
	}
	must(t, h.Add(2, &entry.Freeze{Common: w.common(0)}))
	for _, e := range []entry.Entry{w.savepoint("p", 0, 2), &entry.Freeze{Common: w.common(0)}, &entry.Note{Common: w.common(0), Text: "x"}, w.takeover("p", 1, "")} {
		if err := h.Check(e); !errors.Is(err, entry.ErrFrozen) || !errors.Is(err, entry.ErrRule) {
			t.Errorf("%s after a freeze: %v", e.Type(), err)
		}
	}
}

// A log that continues another one begins with what it takes over.
func TestRulesOfAnotherLog(t *testing.T) {
	var w writer
	h := history(t, w.takeover("p", 3, "log.example/b"), w.savepoint("p", 3, 17, 5), w.savepoint("r", 0, 1),
		w.takeover("q", 1, "log.example/b"), w.savepoint("q", 1, 1), w.savepoint("p", 3, 18, 6), w.takeover("p", 4, ""))
	if from := h.TakenFrom(policyKey("p")); from == nil || from.Origin != "log.example/b" {
		t.Errorf("taken from %+v", from)
	}
	for name, e := range map[string]entry.Entry{
		"once more":       w.takeover("p", 5, "log.example/b"),
		"a gap":           w.savepoint("p", 4, 20),
		"from itself":     w.takeover("s", 1, "log.example/a"),
		"an unknown one":  w.takeover("s", 1, ""),
		"the epoch again": w.takeover("p", 4, ""),
	} {
		if err := h.Check(e); !errors.Is(err, entry.ErrRule) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another entry first, and it continues none.
	h = history(t, &entry.Note{Common: w.common(0), Text: "x"})
	if err := h.Check(w.takeover("p", 1, "log.example/b")); !errors.Is(err, entry.ErrRule) {
		t.Errorf("after a note: %v", err)
	}
}

// Any entries in any order: what History lets through has the properties that the
// rules promise, counted here in another way.
func TestHistoryProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var w writer
		h := entry.NewHistory("log.example/a")
		var log []entry.Entry
		for i := range rapid.IntRange(1, 60).Draw(rt, "entries") {
			policy := rapid.SampledFrom([]string{"p", "q"}).Draw(rt, "policy")
			epoch, sequence := rapid.Uint64Range(0, 3).Draw(rt, "epoch"), rapid.Uint64Range(1, 6).Draw(rt, "sequence")
			var e entry.Entry
			switch rapid.IntRange(0, 9).Draw(rt, "type") {
			default:
				s := w.savepoint(policy, epoch, sequence)
				if rapid.Bool().Draw(rt, "with height") {
					s.Height = height(rapid.Uint64Range(0, 9).Draw(rt, "height"))
				}
				e = s
			case 0:
				e = w.retire(policy, epoch, sequence)
			case 1:
				e = w.takeover(policy, epoch+1, rapid.SampledFrom([]string{"", "log.example/b"}).Draw(rt, "from"))
			case 2:
				e = &entry.Note{Common: w.common(epoch), Text: "x"}
			case 3:
				if rapid.IntRange(0, 3).Draw(rt, "freeze") == 0 {
					e = &entry.Freeze{Common: w.common(epoch)}
				} else {
					e = &entry.Rekey{Common: w.common(epoch), KeyRing: rawCID("ring")}
				}
			}
			before := h.Check(e)
			if rapid.IntRange(0, 3).Draw(rt, "kept as JSON") == 0 {
				h = kept(rt, h)
				if got := h.Check(e); fmt.Sprint(got) != fmt.Sprint(before) {
					rt.Fatalf("Check says %v, after it was kept %v", before, got)
				}
			}
			if after := h.Add(int64(i), e); (before == nil) != (after == nil) {
				rt.Fatalf("Check says %v, Add %v", before, after)
			}
			if before == nil {
				log = append(log, e)
			}
		}
		checkLog(rt, log)
	})
}

// kept is a history that was written down and read again.
func kept(t rapid.TB, h *entry.History) *entry.History {
	data, err := json.Marshal(h)
	must(t, err)
	var again entry.History
	must(t, json.Unmarshal(data, &again))
	data2, err := json.Marshal(&again)
	must(t, err)
	if !bytes.Equal(data, data2) || again.Savepoints() != h.Savepoints() || again.Next() != h.Next() {
		t.Fatalf("%s became %s", data, data2)
	}
	return &again
}

func TestHistoryThatIsNotOne(t *testing.T) {
	for _, text := range []string{
		`[]`, `{}`, `{"Policies":{"00":{}}}`, `{"Policies":{"xx":null}}`,
		`{"Policies":{"` + strings.Repeat("00", 32) + `":null}}`,
		`{"Policies":{"` + strings.Repeat("00", 32) + `":{"Epoch":1}}}`,
		`{"Policies":{"` + strings.Repeat("00", 32) + `":{"Savepoints":{},"High":{"Index":1}}}}`,
	} {
		var h entry.History
		if err := json.Unmarshal([]byte(text), &h); err == nil {
			t.Errorf("%s is taken for a history", text)
		}
	}
}

func checkLog(rt *rapid.T, log []entry.Entry) {
	for _, name := range []string{"p", "q"} {
		key := policyKey(name)
		epochs, epoch := 0, uint64(0)
		var sequences, retired []uint64
		heights := map[uint64][]uint64{}
		for _, e := range log {
			switch e := e.(type) {
			case *entry.Savepoint:
				if e.Policy == key {
					if e.Epoch != epoch {
						rt.Fatalf("%s: epoch %d after %d", name, e.Epoch, epoch)
					}
					sequences = append(sequences, e.Sequence)
					if e.Height != nil {
						heights[e.Epoch] = append(heights[e.Epoch], *e.Height)
					}
				}
			case *entry.Retire:
				if e.Policy == key {
					retired = append(retired, e.Sequence)
				}
			case *entry.Takeover:
				if e.Policy == key {
					if epochs > 0 && e.Epoch != epoch+1 {
						rt.Fatalf("%s: takeover to %d in %d", name, e.Epoch, epoch)
					}
					epochs, epoch = epochs+1, e.Epoch
				}
			}
		}
		for i := 1; i < len(sequences); i++ {
			if sequences[i] != sequences[i-1]+1 {
				rt.Fatalf("%s: sequences %v", name, sequences)
			}
		}
		for _, rising := range heights {
			for i := 1; i < len(rising); i++ {
				if rising[i] <= rising[i-1] {
					rt.Fatalf("%s: heights %v", name, rising)
				}
			}
		}
		seen := map[uint64]bool{}
		for _, s := range retired {
			if seen[s] {
				rt.Fatalf("%s: %d is retired twice", name, s)
			}
			seen[s] = true
		}
	}
	for i, e := range log {
		if e.Type() == entry.TypeFreeze && i != len(log)-1 {
			rt.Fatalf("entries after a freeze: %v", log[i+1:])
		}
	}
}

func TestHistoryErased(t *testing.T) {
	c := sample().Common
	c.Epoch = 0
	docs := sortedCIDs(3)
	h := entry.NewHistory(c.Origin)
	must(t, h.Add(0, &entry.Erase{Common: c, Documents: docs[:2]}))
	must(t, h.Add(1, &entry.Erase{Common: c, Documents: docs[1:]}))
	other := c
	other.Origin = "log.example/b"
	if err := h.Add(2, &entry.Erase{Common: other, Documents: sortedCIDs(4)}); !errors.Is(err, entry.ErrRule) {
		t.Errorf("of another log: %v", err)
	}
	for i, want := range []int64{0, 0, 1} {
		if index, ok := h.Erased(docs[i]); !ok || index != want {
			t.Errorf("document %d: %d, %t", i, index, ok)
		}
	}
	if _, ok := h.Erased(rawCID("document 3")); ok {
		t.Error("an entry that counts for nothing erases")
	}
}
