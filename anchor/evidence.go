package anchor

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxEvidenceSize is the length in bytes of the longest evidence.
const MaxEvidenceSize = 256 << 10

// Evidence shows that a log is not what it claims to be, or what somebody was shown of it.
//
// A fork: the log signed two heads of which the new one does not extend the old one.
// Entries: it has two different records at one index. Both are proofs: who has the policy
// can check them with nothing else. An observation: who wrote it knew of the head Old when
// Source presented the older New. Both heads are the log's, and that is all that can be
// checked.
type Evidence struct {
	Kind     string // EvidenceFork, EvidenceEntries or EvidenceObservation
	Old, New Head
	// Root is, of a fork, the root hash of New's first Old.Size records, which Old
	// contradicts.
	Root tlog.Hash
	// Index is, of entries, where they are.
	Index int64
	// Source and Time are of an observation: who presented New, and when.
	Source string
	Time   time.Time
}

// Proves reports whether the evidence proves something against the log, and not only
// tells what somebody saw.
func (e Evidence) Proves() bool { return e.Kind != EvidenceObservation }

// Kinds of evidence.
const (
	EvidenceFork        = "fork"
	EvidenceEntries     = "entries"
	EvidenceObservation = "observation"
)

const evidenceVersion = 1

// evidence is the one encoding of an Evidence: JSON as json.MarshalIndent gives it with
// an indent of two spaces, and a newline.
type evidence struct {
	Version int          `json:"v"`
	Kind    string       `json:"kind"`
	Origin  string       `json:"origin"`
	Old     evidenceHead `json:"old"`
	New     evidenceHead `json:"new"`
	// Root and Proof are of a fork only; hashes are base64, as in a checkpoint.
	Root  string   `json:"root"`
	Proof []string `json:"proof"`
	// Entries are of that kind only: two proofs of records.
	Entries []string `json:"entries,omitempty"`
	// Source and Time are of an observation only; the time is RFC 3339, UTC.
	Source string `json:"source,omitempty"`
	Time   string `json:"time,omitempty"`
}

type evidenceHead struct {
	Size     int64  `json:"size"`
	RootHash string `json:"rootHash"`
	// Checkpoint is empty where the head is the floor of the policy.
	Checkpoint string `json:"checkpoint"`
}

func base64Hash(h tlog.Hash) string { return base64.StdEncoding.EncodeToString(h[:]) }

func newEvidence(kind string, old, new Head) evidence {
	head := func(h Head) evidenceHead { return evidenceHead{h.Size, base64Hash(h.RootHash), string(h.Checkpoint)} }
	return evidence{Version: evidenceVersion, Kind: kind, Origin: new.Origin, Old: head(old), New: head(new), Proof: []string{}}
}

// Evidence returns the fork as a file that others can check with [CheckEvidence], or
// with any implementation of RFC 6962.
func (e *ForkError) Evidence() ([]byte, error) {
	out := newEvidence(EvidenceFork, e.Old, e.New)
	out.Root = base64Hash(e.Root)
	for _, h := range e.Proof {
		out.Proof = append(out.Proof, base64Hash(h))
	}
	return out.encode()
}

// Evidence returns the two proofs as a file that others can check with [CheckEvidence].
func (e *EntriesError) Evidence() ([]byte, error) {
	heads := make([]Head, 2)
	for i, proof := range [][]byte{e.Old, e.New} {
		_, _, signed, err := splitProof(proof)
		if err != nil {
			return nil, err
		}
		text, _, _ := strings.Cut(string(signed), "\n\n")
		c, err := torchwood.ParseCheckpoint(text + "\n")
		if err != nil {
			return nil, err
		}
		heads[i] = Head{Origin: e.Origin, Size: c.N, RootHash: c.Hash, Checkpoint: signed}
	}
	out := newEvidence(EvidenceEntries, heads[0], heads[1])
	out.Entries = []string{string(e.Old), string(e.New)}
	return out.encode()
}

// Observation returns the rollback as a file that says who presented the older head, and
// when. Both heads must have a checkpoint, which the larger one has not where a witness
// only said that it saw one.
func (e *RollbackError) Observation(source string, at time.Time) ([]byte, error) {
	out := newEvidence(EvidenceObservation, e.Old, e.New)
	out.Source, out.Time = source, at.UTC().Format(time.RFC3339)
	return out.encode()
}

func (e evidence) encode() ([]byte, error) {
	b, err := json.MarshalIndent(e, "", "  ")
	if err == nil && len(b) >= MaxEvidenceSize {
		err = fmt.Errorf("evidence has %d bytes, more than %d", len(b), MaxEvidenceSize)
	}
	return append(b, '\n'), err
}

// CheckEvidence verifies evidence: both checkpoints under p's log key, whose witnesses
// do not matter here, and that the one contradicts the other, or of an observation that
// the old head is the larger one. The error wraps ErrCorrupt if it shows nothing,
// ErrUntrusted if the log's key did not sign a head.
func CheckEvidence(p *Policy, data []byte) (Evidence, error) {
	fail := func(err error) (Evidence, error) { return Evidence{}, fmt.Errorf("%w: evidence: %w", ErrCorrupt, err) }
	if p == nil || p.key == nil {
		return Evidence{}, &PolicyError{Err: errors.New("no policy")}
	}
	if len(data) > MaxEvidenceSize {
		return fail(fmt.Errorf("%d bytes, more than %d", len(data), MaxEvidenceSize))
	}
	var e evidence
	if err := json.Unmarshal(data, &e); err != nil {
		return fail(err)
	}
	if again, err := e.encode(); err != nil || !bytes.Equal(again, data) {
		return fail(errors.New("not in its one encoding"))
	}
	if e.Version != evidenceVersion || e.Origin != p.Origin {
		return fail(fmt.Errorf("version %d, log %q", e.Version, e.Origin))
	}
	out := Evidence{Kind: e.Kind}
	var err error
	if out.Old, err = e.Old.open(p); err != nil {
		return Evidence{}, fmt.Errorf("evidence: old head: %w", err)
	}
	if out.New, err = e.New.open(p); err != nil {
		return Evidence{}, fmt.Errorf("evidence: new head: %w", err)
	}
	switch e.Kind {
	case EvidenceFork:
		out.Root, err = e.checkFork(out.Old, out.New)
	case EvidenceEntries:
		out.Index, err = e.checkEntries(p)
	case EvidenceObservation:
		out.Source = e.Source
		out.Time, err = e.checkObservation(out.Old, out.New)
	default:
		err = fmt.Errorf("kind %q", e.Kind)
	}
	if err == nil && (e.Kind != EvidenceFork && (e.Root != "" || len(e.Proof) > 0) ||
		e.Kind != EvidenceEntries && len(e.Entries) > 0 || e.Kind != EvidenceObservation && e.Source+e.Time != "") {
		err = fmt.Errorf("it says more than a %s", e.Kind)
	}
	if err != nil {
		return fail(err)
	}
	return out, nil
}

// checkEntries returns the index at which two records are proven to be.
func (e evidence) checkEntries(p *Policy) (int64, error) {
	if len(e.Entries) != 2 {
		return 0, fmt.Errorf("%d proofs, not 2", len(e.Entries))
	}
	old, err := VerifyProof(p.KeyOnly(), []byte(e.Entries[0]))
	if err != nil {
		return 0, err
	}
	other, err := VerifyProof(p.KeyOnly(), []byte(e.Entries[1]))
	switch {
	case err != nil:
		return 0, err
	case string(old.Head.Checkpoint) != e.Old.Checkpoint || string(other.Head.Checkpoint) != e.New.Checkpoint:
		return 0, errors.New("the proofs are of other heads")
	case old.Index != other.Index || bytes.Equal(old.Record, other.Record):
		return 0, errors.New("the proofs do not contradict each other")
	}
	return old.Index, nil
}

func (e evidence) checkObservation(old, new Head) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, e.Time)
	switch {
	case err != nil || at.UTC().Format(time.RFC3339) != e.Time:
		return at, fmt.Errorf("time %q", e.Time)
	case e.Source == "":
		return at, errors.New("it does not say who presented the new head")
	case old.Size <= new.Size:
		return at, errors.New("the old head is not the larger one")
	}
	return at, nil
}

// checkFork returns the root hash of new's first old.Size records, of which the evidence
// proves that it is not old's.
func (e evidence) checkFork(old, new Head) (tlog.Hash, error) {
	root, err := parseHash(e.Root)
	if err != nil {
		return root, err
	}
	var proof tlog.TreeProof
	for _, line := range e.Proof {
		h, err := parseHash(line)
		if err != nil {
			return root, err
		}
		proof = append(proof, h)
	}
	switch {
	case old.Size > new.Size:
		return root, errors.New("the old head is the larger one")
	case root == old.RootHash:
		return root, errors.New("the heads do not contradict each other")
	case old.Size == new.Size && (root != new.RootHash || len(proof) > 0):
		return root, errors.New("the root is not the new head's")
	case old.Size == new.Size:
		return root, nil
	case old.Size == 0 && (root != emptyRoot() || len(proof) > 0):
		return root, errors.New("the root is not the empty tree's")
	case old.Size == 0:
		return root, nil
	}
	return root, tlog.CheckTree(proof, new.Size, new.RootHash, old.Size, root)
}

// open verifies a head of evidence. Without a checkpoint it must be the policy's floor.
func (h evidenceHead) open(p *Policy) (Head, error) {
	root, err := parseHash(h.RootHash)
	if err != nil {
		return Head{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	out := Head{Origin: p.Origin, Size: h.Size, RootHash: root}
	if h.Checkpoint == "" {
		if p.Floor == nil || *p.Floor != out.tree() {
			return Head{}, fmt.Errorf("%w: no checkpoint, and not the floor of the trust policy", ErrUntrusted)
		}
		return out, nil
	}
	signed, err := verifyCheckpoint(p.KeyOnly(), []byte(h.Checkpoint))
	if err == nil && signed.tree() != out.tree() {
		err = fmt.Errorf("%w: its checkpoint says size %d and root %v", ErrCorrupt, signed.Size, signed.RootHash)
	}
	return signed, err
}

// parseHash reads the one base64 of a hash: what is lenient would give one piece of
// evidence many encodings.
func parseHash(text string) (tlog.Hash, error) {
	h, err := tlog.ParseHash(text)
	if err == nil && h.String() != text {
		err = fmt.Errorf("hash %.60q is not in its one encoding", text)
	}
	return h, err
}
