package dag

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
)

const (
	// ManifestVersion is the only major version of manifests there is.
	ManifestVersion = 1
	// MaxManifestSize is the length in bytes of the largest manifest.
	MaxManifestSize = 64 << 10
	// TimeFormat is RFC 3339 in UTC with all nine digits of the nanoseconds,
	// so that times compare as texts.
	TimeFormat = "2006-01-02T15:04:05.000000000Z"
)

var (
	// ErrManifest: a node that is not a manifest, or one that breaks a rule.
	ErrManifest = errors.New("invalid manifest")
	// ErrVersion: a manifest of a newer major version.
	ErrVersion = errors.New("unknown manifest version")
)

// Manifest is the root node of a save point. Fields that are left at their zero
// value and marked optional are absent from the encoding.
type Manifest struct {
	Version  uint64
	Profile  string
	Instance [16]byte // of the repository that took it; kept by takeovers
	Policy   Policy
	Triggers []Trigger
	Sequence uint64  // counts the save points of a policy from 1
	Epoch    uint64  // counts the takeovers of the policy
	Height   *uint64 // optional: executed policy blocks
	Time     time.Time
	Parent   *Parent // optional: absent in a policy's first save point

	State       cid.Cid
	Totals      Totals
	Consistency Consistency
	Provider    Provider
	Resources   cid.Cid           // optional
	Partial     []string          // optional: what is missing
	Secrets     []string          // optional: names of secrets that a restore needs
	Encryption  *Encryption       // optional
	Labels      map[string]string // optional
	Tool        Tool

	// unknown fields of a minor version, kept for re-encoding.
	unknown []extraField
}

type extraField struct {
	key   string
	value datamodel.Node
}

// Policy says what was running.
type Policy struct {
	ID      string
	Name    string  // optional
	Version string  // optional
	Topic   string  // optional
	Config  cid.Cid // optional: the policy's definition
}

// Kinds of triggers.
const (
	TriggerBlock    = "block"    // a save-state block; Tag names it
	TriggerInterval = "interval" // every N executed blocks
	TriggerManual   = "manual"
	TriggerImport   = "import"
	TriggerCatchUp  = "catch-up"
)

// Trigger says why a save point was taken.
type Trigger struct {
	Kind string
	Tag  string // optional
	N    uint64 // optional
}

// Parent names the previous save point of the policy without linking it.
type Parent struct {
	Savepoint cid.Cid
	Sequence  uint64
}

// Consistency says how the documents were made to belong to one moment.
type Consistency struct {
	Method     string
	Consistent bool
}

// Provider says what read the state.
type Provider struct {
	Name    string
	Plugins []string
}

// Encryption says how documents were sealed; never the key.
type Encryption struct {
	Scheme string
	KeyID  string
	Names  bool
}

// Tool is the program that took the save point.
type Tool struct {
	Name    string
	Version string
}

// MaxIDLen is the length in bytes of the longest policy id and block tag.
const MaxIDLen = 128

var idPattern = regexp.MustCompile(`^(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})+$`)

// IsID reports whether s can be the id of a policy or the tag of a save-state
// block: 1 to MaxIDLen of A-Z a-z 0-9 . _ -, other characters as %XX. So it can be
// written in a reference, in a path and on a terminal.
func IsID(s string) bool { return len(s) <= MaxIDLen && idPattern.MatchString(s) }

// Block returns the manifest's IPFS block. The error wraps ErrManifest if the
// manifest breaks a rule.
func (m *Manifest) Block() (Block, error) {
	if err := m.check(); err != nil {
		return Block{}, err
	}
	n, err := m.node()
	if err != nil {
		return Block{}, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	data, err := EncodeCBOR(n)
	if err != nil {
		return Block{}, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if len(data) > MaxManifestSize {
		return Block{}, fmt.Errorf("%w: %d bytes, more than %d", ErrManifest, len(data), MaxManifestSize)
	}
	return newBlock(codecDC, data), nil
}

// ReadManifest reads the manifest c from src.
func ReadManifest(ctx context.Context, src Source, c cid.Cid) (*Manifest, error) {
	if err := CheckCID(c); err != nil {
		return nil, err
	}
	if codecOf(c) != codecDC {
		return nil, fmt.Errorf("%w: %s is not DAG-CBOR", ErrManifest, c)
	}
	data, err := src.Get(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", c, err)
	}
	m, err := DecodeManifest(data)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", c, err)
	}
	return m, nil
}

// DecodeManifest reads a manifest from its canonical bytes. The error wraps
// ErrVersion, ErrNotCanonical, ErrUnsupported or ErrManifest.
func DecodeManifest(data []byte) (*Manifest, error) {
	n, err := DecodeCBOR(data, MaxManifestSize)
	if err != nil {
		return nil, err
	}
	m, err := manifestOf(n)
	if err != nil {
		return nil, err
	}
	return m, m.check()
}

// check applies the rules that hold beyond the types of the fields.
func (m *Manifest) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrManifest}, args...)...)
	}
	switch {
	case m.Version != ManifestVersion:
		return fmt.Errorf("%w: %d", ErrVersion, m.Version)
	case m.Profile != Profile:
		return bad("CID profile %q, not %q", m.Profile, Profile)
	case !IsID(m.Policy.ID):
		return bad("policy id %.40q", m.Policy.ID)
	case m.Sequence == 0:
		return bad("sequence 0")
	case len(m.Triggers) == 0:
		return bad("no trigger")
	case m.Time.IsZero() || m.Time.Location() != time.UTC:
		return bad("time %v is not in UTC", m.Time)
	case m.Time.Year() < 0 || m.Time.Year() > 9999:
		return bad("time %v does not fit into RFC 3339", m.Time)
	case m.Parent != nil && m.Parent.Sequence == 0:
		return bad("parent has sequence 0")
	case m.Parent != nil && m.Parent.Sequence >= m.Sequence:
		return bad("parent has sequence %d, the manifest %d", m.Parent.Sequence, m.Sequence)
	case m.Parent == nil && m.Sequence > 1 && m.Epoch == 0:
		return bad("sequence %d without a parent", m.Sequence)
	}
	if m.Height != nil && *m.Height > math.MaxInt64 {
		return bad("height %d does not fit into 63 bits", *m.Height)
	}
	for _, v := range []uint64{m.Sequence, m.Epoch, m.Totals.Documents, m.Totals.Bytes} {
		if v > math.MaxInt64 {
			return bad("number %d does not fit into 63 bits", v)
		}
	}
	for _, t := range m.Triggers {
		switch t.Kind {
		case TriggerBlock, TriggerInterval, TriggerManual, TriggerImport, TriggerCatchUp:
		default:
			return bad("trigger kind %q", t.Kind)
		}
		if (t.Kind == TriggerBlock) != (t.Tag != "") || (t.Kind == TriggerInterval) != (t.N != 0) {
			return bad("trigger %s with tag %q and n %d", t.Kind, t.Tag, t.N)
		}
		if t.Tag != "" && !IsID(t.Tag) {
			return bad("tag %.40q of a trigger", t.Tag)
		}
		if t.N > math.MaxInt64 {
			return bad("n %d of a trigger does not fit into 63 bits", t.N)
		}
	}
	return m.checkCIDs(bad)
}

func (m *Manifest) checkCIDs(bad func(format string, args ...any) error) error {
	if m.Parent != nil {
		if err := CheckCID(m.Parent.Savepoint); err != nil {
			return bad("parent: %v", err)
		}
	}
	for _, c := range []cid.Cid{m.Policy.Config, m.Resources} {
		if !c.Defined() {
			continue // both are optional
		}
		if err := CheckCID(c); err != nil {
			return bad("%v", err)
		}
	}
	if err := CheckCID(m.State); err != nil {
		return bad("state: %v", err)
	}
	if codecOf(m.State) != codecPB {
		return bad("state %s is not a UnixFS directory", m.State)
	}
	return nil
}
