package mrv

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// Load makes a Runner from the documents of a state, in any order, and
// nothing else. The run goes on exactly as the saved one would have.
//
// The state is checked against itself and the policy before anything runs; a
// state that is not whole, is malformed, or belongs to another policy is
// refused with a *StateError. An error of docs itself is returned wrapped.
// The check covers form, counts, references and the hashes of credentials; it
// does not replace the check of the snapshot the documents came from.
func Load(p *Policy, docs iter.Seq2[Document, error]) (*Runner, error) {
	l := &loader{policy: p, docs: map[string][]byte{}}
	for d, err := range docs {
		if err != nil {
			return nil, fmt.Errorf("load state: %w", err)
		}
		if _, _, ok := partPath(d.Path); !ok {
			return nil, &StateError{Path: d.Path, Err: fmt.Errorf("%w: no path of a state", ErrMalformedState)}
		}
		if _, twice := l.docs[d.Path]; twice {
			return nil, &StateError{Path: d.Path, Err: fmt.Errorf("%w: given twice", ErrUnexpectedDocument)}
		}
		l.docs[d.Path] = bytes.Clone(d.Bytes)
	}
	if err := l.checkRun(); err != nil {
		return nil, err
	}
	for _, path := range slices.Sorted(maps.Keys(l.docs)) {
		if err := l.checkDocument(path); err != nil {
			return nil, &StateError{Path: path, Err: err}
		}
	}
	return &Runner{policy: p, docs: l.docs, run: l.run}, nil
}

// LoadFS is Load from a folder that holds the documents at their paths and
// nothing else.
func LoadFS(p *Policy, fsys fs.FS) (*Runner, error) {
	stop := errors.New("stop")
	return Load(p, func(yield func(Document, error) bool) {
		err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := fs.ReadFile(fsys, path)
			if err != nil {
				return err
			}
			if !yield(Document{Path: path, Bytes: b}, nil) {
				return stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			yield(Document{}, err)
		}
	})
}

// loader checks a state.
type loader struct {
	policy *Policy
	docs   map[string][]byte
	run    runRecord
}

// checkRun checks the record of the run and the number of documents.
func (l *loader) checkRun() error {
	refuse := func(err error) error { return &StateError{Path: runPath, Err: err} }
	b, ok := l.docs[runPath]
	if !ok {
		return refuse(ErrMissingDocument)
	}
	if err := unmarshal(b, &l.run); err != nil {
		return refuse(err)
	}
	run := &l.run
	if run.PolicyID != l.policy.ID() || run.PolicyHash != l.policy.hash {
		return refuse(fmt.Errorf("%w: made under %s with hash %s", ErrPolicyMismatch, shown(run.PolicyID), shown(run.PolicyHash)))
	}
	if run.Seed == "" || run.Inputs < 0 || run.Inputs > 999_999 || run.NextInput < 1 || run.NextInput > run.Inputs+1 {
		return refuse(fmt.Errorf("%w: no seed or a bad queue position", ErrMalformedState))
	}
	if queued := run.Inputs - run.NextInput + 1; run.Documents[colInputs] != queued {
		return refuse(fmt.Errorf("%w: the queue of inputs", ErrMalformedState))
	}
	if run.Documents == nil {
		run.Documents = map[string]int{}
	}
	return l.checkCounts()
}

func (l *loader) checkCounts() error {
	have := map[string]int{}
	for path := range l.docs {
		collection, _, _ := strings.Cut(path, "/")
		have[collection]++
	}
	if have[colRun] != 1 {
		return &StateError{Path: colRun, Err: ErrUnexpectedDocument}
	}
	for _, c := range collections() {
		want := l.run.Documents[c]
		switch {
		case c == colRun:
		case have[c] < want:
			return &StateError{Path: c, Err: fmt.Errorf("%w: %d of %d", ErrMissingDocument, have[c], want)}
		case have[c] > want:
			return &StateError{Path: c, Err: fmt.Errorf("%w: %d instead of %d", ErrUnexpectedDocument, have[c], want)}
		}
	}
	return nil
}

// checkDocument checks one document for itself and the documents it names.
func (l *loader) checkDocument(path string) error {
	collection, id, _ := partPath(path)
	b := l.docs[path]
	switch collection {
	case colState:
		return l.checkState(id, b)
	case colTimers:
		return l.checkTimer(id, b)
	case colInputs:
		return l.checkInput(id, b)
	case colVc:
		return checkRow[vcRow](l, id, b)
	case colVp:
		return checkRow[vpRow](l, id, b)
	case colAggregate:
		return checkRow[aggregateRow](l, id, b)
	case colSplit:
		return checkRow[splitRow](l, id, b)
	case colHistory:
		return checkRow[historyRow](l, id, b)
	case colMint:
		return checkRow[mintRow](l, id, b)
	case colRoles:
		return checkRow[roleRow](l, id, b)
	case colDid:
		return checkRow[didRow](l, id, b)
	}
	return nil // the record of the run, checked before
}

// own checks that a row belongs to its path and to the policy.
func (l *loader) own(rowID, id, policyID string) error {
	if rowID != id {
		return fmt.Errorf("%w: id %q does not fit the path", ErrMalformedState, shown(rowID))
	}
	if policyID != l.policy.ID() {
		return fmt.Errorf("%w: policy id %q", ErrPolicyMismatch, shown(policyID))
	}
	return nil
}

// names checks references to other documents.
func (l *loader) names(collection string, ids ...string) error {
	for _, id := range ids {
		if _, ok := l.docs[docPath(collection, id)]; !ok {
			return fmt.Errorf("%w: %s", ErrMissingDocument, shown(docPath(collection, id)))
		}
	}
	return nil
}

// block finds the block a row speaks of.
func (l *loader) block(id, tag, blockID, policyID string) (*block, error) {
	if err := l.own(tag, id, policyID); err != nil {
		return nil, err
	}
	b := l.policy.byTag[tag]
	if b == nil || b.id != blockID {
		return nil, fmt.Errorf("%w: %q with id %q", ErrUnknownTag, shown(tag), shown(blockID))
	}
	return b, nil
}

func (l *loader) checkTimer(id string, bytes []byte) error {
	var row timerRow
	if err := unmarshal(bytes, &row); err != nil {
		return err
	}
	b, err := l.block(id, row.BlockTag, row.BlockID, row.PolicyID)
	if err != nil {
		return err
	}
	if b.kind != kindTimer {
		return fmt.Errorf("%w: %q is no timer", ErrUnknownTag, b.tag)
	}
	if row.Ticks < 0 {
		return fmt.Errorf("%w: %d ticks", ErrMalformedState, row.Ticks)
	}
	return l.names(colVc, row.Documents...)
}

func (l *loader) checkInput(id string, bytes []byte) error {
	var row inputRow
	if err := unmarshal(bytes, &row); err != nil {
		return err
	}
	if inputID(row.Index) != id || row.Index < l.run.NextInput || row.Index > l.run.Inputs {
		return fmt.Errorf("%w: input %d is not one of %d to %d", ErrUnexpectedDocument, row.Index, l.run.NextInput, l.run.Inputs)
	}
	if b := l.policy.byTag[row.Block]; b == nil {
		return fmt.Errorf("%w: %q", ErrUnknownTag, shown(row.Block))
	}
	in := Input{At: row.At, User: row.User, Block: row.Block, Data: row.Data}
	if err := l.policy.checkInput(in, time.Time{}); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformedState, err)
	}
	return nil
}

func sameHash(document any, want string) error {
	got, err := hashOf(document)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: recorded %s, found %s", ErrHashMismatch, shown(want), got)
	}
	return nil
}

func unmarshal(b []byte, v any) error {
	if err := decodeStrict(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformedState, err)
	}
	return nil
}
