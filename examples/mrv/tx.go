package mrv

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// payload is what an event carries along.
type payload struct {
	user    string   // who set the chain going, empty for a timer
	docs    []*vcRow // never changed in place: events share them
	comment string
	units   *int64 // whole units found by a splitBlock
}

// event is a payload on its way to an input of a block.
type event struct {
	target *block
	input  string
	payload
}

// tx is one step in the making: an overlay on the committed documents. It is
// dropped as a whole if anything fails, so its cost is that of the documents
// it touches and the committed state never shows half a step.
type tx struct {
	policy *Policy
	base   map[string][]byte
	writes map[string][]byte // nil bytes: deleted
	run    runRecord
	queue  []event
	passed []*block // save-state blocks
	what   string
}

func newTx(p *Policy, base map[string][]byte, run runRecord) *tx {
	run.Documents = maps.Clone(run.Documents)
	return &tx{policy: p, base: base, writes: map[string][]byte{}, run: run}
}

func (t *tx) now() time.Time { return t.run.Clock }

// newID hands out the next id of the run.
func (t *tx) newID() string {
	t.run.LastID++
	return uuidOf(t.run.Seed, strconv.FormatUint(t.run.LastID, 10))
}

func (t *tx) get(path string) ([]byte, bool) {
	b, ok := t.writes[path]
	if !ok {
		b, ok = t.base[path]
	}
	return b, ok && b != nil
}

func (t *tx) put(path string, v any) error {
	b, err := encode(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if _, had := t.get(path); !had {
		t.count(path, 1)
	}
	t.writes[path] = b
	return nil
}

func (t *tx) del(path string) {
	if _, had := t.get(path); had {
		t.count(path, -1)
		t.writes[path] = nil
	}
}

// count keeps the number of documents by collection. The run record is not
// counted: it holds the counts.
func (t *tx) count(path string, by int) {
	collection, _, _ := strings.Cut(path, "/")
	if collection == colRun {
		return
	}
	if t.run.Documents[collection] += by; t.run.Documents[collection] == 0 {
		delete(t.run.Documents, collection)
	}
}

// read decodes a document; found is false if there is none.
func read[T any](t *tx, path string) (v T, found bool, err error) {
	b, ok := t.get(path)
	if !ok {
		return v, false, nil
	}
	if err := decodeStrict(b, &v); err != nil {
		return v, false, fmt.Errorf("read %s: %w", path, err)
	}
	return v, true, nil
}

// mustRead is read for a document that has to be there.
func mustRead[T any](t *tx, path string) (T, error) {
	v, found, err := read[T](t, path)
	if err == nil && !found {
		err = &StateError{Path: path, Err: ErrMissingDocument}
	}
	return v, err
}

// stateOf reads what b remembers; the zero state if it never had one.
func stateOf[S any](t *tx, b *block) (S, error) {
	row, _, err := read[stateRow[S]](t, docPath(colState, b.tag))
	return row.State, err
}

func setState[S any](t *tx, b *block, s S) error {
	row := stateRow[S]{PolicyID: t.policy.ID(), BlockID: b.id, BlockTag: b.tag, State: s}
	return t.put(docPath(colState, b.tag), row)
}

// credentials loads stored credentials in the order of ids.
func (t *tx) credentials(ids []string) ([]*vcRow, error) {
	var out []*vcRow
	for _, id := range ids {
		row, err := mustRead[vcRow](t, docPath(colVc, id))
		if err != nil {
			return nil, err
		}
		out = append(out, &row)
	}
	return out, nil
}

// storedIDs lists the ids of those payload documents that are in the state.
func (t *tx) storedIDs(docs []*vcRow) []string {
	out := []string{}
	for _, d := range docs {
		if _, ok := t.get(docPath(colVc, d.ID)); ok {
			out = append(out, d.ID)
		}
	}
	return out
}

// emit puts out an event of b: to every linked block and, for a RunEvent, to
// the next sibling.
func (t *tx) emit(b *block, output string, p payload) {
	for _, l := range b.links {
		if l.output == output {
			t.queue = append(t.queue, event{target: l.target, input: l.input, payload: p})
		}
	}
	if n := b.next(); output == eventRun && n != nil {
		t.queue = append(t.queue, event{target: n, input: eventRun, payload: p})
	}
}

// saves returns the sorted tags of the passed save-state blocks, each once.
func (t *tx) saves(when ...string) []string {
	var tags []string
	for _, b := range t.passed {
		if slices.Contains(when, b.options.(*saveOptions).when()) {
			tags = append(tags, b.tag)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}
