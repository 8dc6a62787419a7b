package anchor

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxEvidenceSize is the length in bytes of the longest evidence.
const MaxEvidenceSize = 256 << 10

// Evidence shows that a log is not what it claims to be. Who has the policy can check it
// with nothing else.
//
// A fork: the log signed two heads of which the new one does not extend the old one. A
// rollback: New was presented although the larger Old had been signed; the log's keeper
// need not be at fault, whoever presented New may have an old copy.
type Evidence struct {
	Kind     string // EvidenceFork or EvidenceRollback
	Old, New Head
	// Root is, of a fork, the root hash of New's first Old.Size records, which Old
	// contradicts.
	Root tlog.Hash
}

// Kinds of evidence.
const (
	EvidenceFork     = "fork"
	EvidenceRollback = "rollback"
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

// Evidence returns the rollback as a file that others can check with [CheckEvidence]. It
// shows something only if Old has a checkpoint, which it has not where a witness said
// that it saw a larger tree.
func (e *RollbackError) Evidence() ([]byte, error) {
	return newEvidence(EvidenceRollback, e.Old, e.New).encode()
}

func (e evidence) encode() ([]byte, error) {
	b, err := json.MarshalIndent(e, "", "  ")
	if err == nil && len(b) >= MaxEvidenceSize {
		err = fmt.Errorf("evidence has %d bytes, more than %d", len(b), MaxEvidenceSize)
	}
	return append(b, '\n'), err
}

// CheckEvidence verifies evidence: both checkpoints under p's log key, whose witnesses
// do not matter here, and that the one contradicts the other. The error wraps ErrCorrupt
// if it shows nothing, ErrUntrusted if the log's key did not sign a head.
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
	case EvidenceRollback:
		if e.Root != "" || len(e.Proof) > 0 || out.Old.Size <= out.New.Size {
			err = errors.New("the old head is not the larger one")
		}
	default:
		err = fmt.Errorf("kind %q", e.Kind)
	}
	if err != nil {
		return fail(err)
	}
	return out, nil
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
