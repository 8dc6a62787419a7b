package mrv

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

//go:embed policy.json
var bundled string

// Limits of a policy definition; they bound the work ParsePolicy does on
// hostile input.
const (
	maxPolicyBytes = 1 << 20
	maxBlocks      = 1000
	maxDepth       = 32
	maxNameBytes   = 64
)

// Bundled returns the bundled policy definition: registration of a project,
// then a loop of monitoring, yearly report, verification and mint. The slice
// is the caller's own.
func Bundled() []byte { return []byte(bundled) }

// Policy is a checked policy definition. It is immutable and may be used by
// any number of runners and goroutines at once.
type Policy struct {
	file    policyFile
	hash    string
	root    *block
	blocks  []*block // in tree order
	byTag   map[string]*block
	schemas map[string]*schema
}

// SaveState describes one save-state block of a policy.
type SaveState struct {
	Tag   string
	Title string
	When  string // "enter" or "exit"
	Mode  string // "sync" or "async": what the author wants of the caller's hook
}

// block is one node of the tree.
type block struct {
	id, kind, tag   string
	permissions     []string
	stopPropagation bool
	buttons         []string // outputs of a buttonBlock
	options         any      // pointer to the options of the kind
	parent          *block
	index           int // place among the children of parent
	children        []*block
	links           []link
}

// link carries what a block puts out to the input of another block.
type link struct {
	output string
	target *block
	input  string
}

type policyFile struct {
	UUID        string          `json:"uuid"`
	Name        string          `json:"name"`
	Version     string          `json:"version"`
	Description string          `json:"description"`
	PolicyTag   string          `json:"policyTag"`
	Roles       []string        `json:"policyRoles"`
	Tokens      []token         `json:"policyTokens"`
	Schemas     []schema        `json:"schemas"`
	Config      json.RawMessage `json:"config"`
}

type token struct {
	ID       string `json:"tokenId"`
	Name     string `json:"tokenName"`
	Symbol   string `json:"tokenSymbol"`
	Type     string `json:"tokenType"`
	Decimals int    `json:"decimals"`
}

// ParsePolicy reads a policy definition and checks it completely, so that a
// run can fail on its inputs only. It is strict: unknown fields, unknown block
// types, tags used twice and events that lead nowhere are refused. Every
// error is a *PolicyError. A definition may have at most 1 MiB, 1000 blocks
// and 32 levels.
func ParsePolicy(b []byte) (*Policy, error) {
	if len(b) > maxPolicyBytes {
		return nil, &PolicyError{Err: fmt.Errorf("%w: more than %d bytes", ErrMalformedPolicy, maxPolicyBytes)}
	}
	p := &Policy{byTag: map[string]*block{}, schemas: map[string]*schema{}}
	if err := decodeStrict(b, &p.file); err != nil {
		return nil, &PolicyError{Err: fmt.Errorf("%w: %w", ErrMalformedPolicy, err)}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return nil, &PolicyError{Err: fmt.Errorf("%w: %w", ErrMalformedPolicy, err)}
	}
	sum := sha256.Sum256(compact.Bytes())
	p.hash = hex.EncodeToString(sum[:])
	if err := p.checkHead(); err != nil {
		return nil, err
	}
	var events []eventFile
	root, err := p.addBlock(p.file.Config, nil, &events)
	if err != nil {
		return nil, err
	}
	p.root = root
	for _, e := range events {
		if err := p.addEvent(e); err != nil {
			return nil, err
		}
	}
	for _, bl := range p.blocks {
		if err := p.checkOptions(bl); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Name returns the name and the version of the policy, for a person.
func (p *Policy) Name() string { return p.file.Name + " " + p.file.Version }

// ID returns the identity of the policy, its uuid.
func (p *Policy) ID() string { return p.file.UUID }

// Hash returns the SHA-256 of the definition as hexadecimal digits. White
// space between JSON tokens does not count. A state is bound to this hash.
func (p *Policy) Hash() string { return p.hash }

// SaveStates returns the save-state blocks in tree order.
func (p *Policy) SaveStates() []SaveState {
	var out []SaveState
	for _, b := range p.blocks {
		if o, ok := b.options.(*saveOptions); ok {
			out = append(out, SaveState{Tag: b.tag, Title: o.Title, When: o.when(), Mode: o.mode()})
		}
	}
	return out
}

// checkHead checks everything outside the block tree.
func (p *Policy) checkHead() error {
	f := &p.file
	for _, v := range []struct{ field, value string }{{"uuid", f.UUID}, {"policyTag", f.PolicyTag}} {
		if !validName(v.value) {
			return &PolicyError{Field: v.field, Value: shown(v.value), Err: ErrMalformedPolicy}
		}
	}
	if f.Name == "" || f.Version == "" {
		return &PolicyError{Err: fmt.Errorf("%w: name and version are needed", ErrMalformedPolicy)}
	}
	for i, r := range f.Roles {
		if !validName(r) || builtinRole(r) || slices.Contains(f.Roles[:i], r) {
			return &PolicyError{Field: "policyRoles", Value: shown(r), Err: ErrMalformedPolicy}
		}
	}
	for i := range f.Schemas {
		s := &f.Schemas[i]
		if err := s.check(); err != nil {
			return &PolicyError{Field: "schemas", Value: shown(s.IRI), Err: fmt.Errorf("%w: %w", ErrMalformedPolicy, err)}
		}
		if p.schemas[s.IRI] != nil {
			return &PolicyError{Field: "schemas", Value: shown(s.IRI), Err: fmt.Errorf("%w: given twice", ErrMalformedPolicy)}
		}
		p.schemas[s.IRI] = s
	}
	return nil
}

// next returns the sibling that takes over by default when b has run.
func (b *block) next() *block {
	if b.parent == nil || b.stopPropagation || b.index+1 >= len(b.parent.children) {
		return nil
	}
	n := b.parent.children[b.index+1]
	if !slices.Contains(inputsOf(n.kind), eventRun) {
		return nil
	}
	return n
}

func builtinRole(r string) bool { return r == roleNone || r == roleAny }

// validName tells whether s may be part of a document path.
func validName(s string) bool {
	if s == "" || len(s) > maxNameBytes {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !nameRune(r) })
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}
