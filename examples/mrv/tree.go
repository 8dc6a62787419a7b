package mrv

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// blockFile holds the fields every block has in a definition. Everything else
// belongs to the options of its kind.
type blockFile struct {
	ID              string            `json:"id"`
	BlockType       string            `json:"blockType"`
	Tag             string            `json:"tag"`
	Permissions     []string          `json:"permissions"`
	DefaultActive   bool              `json:"defaultActive"`
	OnErrorAction   string            `json:"onErrorAction"`
	UIMetaData      uiFile            `json:"uiMetaData"`
	StopPropagation bool              `json:"stopPropagation"`
	Events          []eventFile       `json:"events"`
	Children        []json.RawMessage `json:"children"`
}

type uiFile struct {
	Type        string       `json:"type"`
	Title       string       `json:"title"`
	Description string       `json:"description"`
	Buttons     []buttonFile `json:"buttons"`
}

type buttonFile struct {
	Tag  string `json:"tag"`
	Name string `json:"name"`
}

type eventFile struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	Output   string `json:"output"`
	Input    string `json:"input"`
	Actor    string `json:"actor"`
	Disabled bool   `json:"disabled"`
}

// commonFields are the JSON names of blockFile.
func commonFields() []string {
	return []string{"id", "blockType", "tag", "permissions", "defaultActive", "onErrorAction", "uiMetaData", "stopPropagation", "events", "children"}
}

// addBlock reads one block and its subtree. Events are only collected: they
// may name blocks that come later.
func (p *Policy) addBlock(raw json.RawMessage, parent *block, events *[]eventFile) (*block, error) {
	f, rest, err := partFields(raw)
	if err != nil {
		return nil, &PolicyError{Tag: f.Tag, Err: err}
	}
	b := &block{id: f.ID, kind: f.BlockType, tag: f.Tag, permissions: f.Permissions, stopPropagation: f.StopPropagation, parent: parent}
	if b.options = newOptions(b.kind); b.options == nil {
		return nil, &PolicyError{Tag: b.tag, Field: "blockType", Value: shown(b.kind), Err: ErrUnknownBlockType}
	}
	if err := decodeStrict(rest, b.options); err != nil {
		return nil, &PolicyError{Tag: b.tag, Err: fmt.Errorf("%w: %w", b.optionError(), err)}
	}
	if err := p.checkCommon(b, &f); err != nil {
		return nil, err
	}
	p.blocks = append(p.blocks, b)
	p.byTag[b.tag] = b
	*events = append(*events, f.Events...)
	for i, c := range f.Children {
		child, err := p.addBlock(c, b, events)
		if err != nil {
			return nil, err
		}
		child.index = i
		b.children = append(b.children, child)
	}
	return b, nil
}

// partFields parts the common fields of a block from its options.
func partFields(raw json.RawMessage) (f blockFile, rest []byte, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return f, nil, fmt.Errorf("%w: block: %w", ErrMalformedPolicy, err)
	}
	common := map[string]json.RawMessage{}
	for _, name := range commonFields() {
		if v, ok := fields[name]; ok {
			common[name] = v
			delete(fields, name)
		}
	}
	if rest, err = encode(fields); err != nil {
		return f, nil, fmt.Errorf("%w: %w", ErrMalformedPolicy, err)
	}
	head, err := encode(common)
	if err == nil {
		err = decodeStrict(head, &f)
	}
	if err != nil {
		return f, nil, fmt.Errorf("%w: block: %w", ErrMalformedPolicy, err)
	}
	return f, rest, nil
}

// optionError is the kind of error a bad option of b is reported as.
func (b *block) optionError() error {
	if b.kind == kindSaveState {
		return ErrInvalidSaveStateOption
	}
	return ErrInvalidOption
}

// checkCommon checks the fields every block has.
func (p *Policy) checkCommon(b *block, f *blockFile) error {
	refuse := func(field, value string, err error) error {
		return &PolicyError{Tag: b.tag, Field: field, Value: shown(value), Err: err}
	}
	if len(p.blocks) >= maxBlocks || b.depth() > maxDepth {
		return refuse("children", b.tag, fmt.Errorf("%w: more than %d blocks or %d levels", ErrMalformedPolicy, maxBlocks, maxDepth))
	}
	if !validName(b.tag) {
		return refuse("tag", b.tag, ErrInvalidOption)
	}
	if other := p.byTag[b.tag]; other != nil {
		if other.kind == kindSaveState && b.kind == kindSaveState {
			return refuse("tag", b.tag, ErrDuplicateSaveStateTag)
		}
		return refuse("tag", b.tag, ErrDuplicateTag)
	}
	if !validName(b.id) || slices.ContainsFunc(p.blocks, func(o *block) bool { return o.id == b.id }) {
		return refuse("id", b.id, fmt.Errorf("%w: missing or used twice", ErrInvalidOption))
	}
	for _, r := range b.permissions {
		if !builtinRole(r) && !slices.Contains(p.file.Roles, r) {
			return refuse("permissions", r, fmt.Errorf("%w: no such role", ErrInvalidOption))
		}
	}
	if f.OnErrorAction != "" && f.OnErrorAction != "no-action" {
		return refuse("onErrorAction", f.OnErrorAction, ErrInvalidOption)
	}
	if len(f.Children) > 0 && b.kind != kindContainer && b.kind != kindStep {
		return refuse("children", strconv.Itoa(len(f.Children)), fmt.Errorf("%w: this block type has no children", ErrInvalidOption))
	}
	return b.checkButtons(f.UIMetaData.Buttons)
}

func (b *block) checkButtons(buttons []buttonFile) error {
	if (len(buttons) > 0) != (b.kind == kindButton) {
		return &PolicyError{Tag: b.tag, Field: "uiMetaData.buttons", Value: strconv.Itoa(len(buttons)), Err: ErrInvalidOption}
	}
	for i, button := range buttons {
		if button.Tag != "Button_"+strconv.Itoa(i) {
			return &PolicyError{Tag: b.tag, Field: "uiMetaData.buttons.tag", Value: shown(button.Tag), Err: ErrInvalidOption}
		}
		b.buttons = append(b.buttons, button.Tag)
	}
	return nil
}

func (b *block) depth() int {
	n := 1
	for up := b.parent; up != nil; up = up.parent {
		n++
	}
	return n
}

// addEvent links two blocks. A disabled event is checked but not linked.
func (p *Policy) addEvent(e eventFile) error {
	source, target := p.byTag[e.Source], p.byTag[e.Target]
	if source == nil {
		return &PolicyError{Tag: e.Target, Field: "events.source", Value: shown(e.Source), Err: ErrUnknownEventTag}
	}
	if target == nil {
		return &PolicyError{Tag: e.Source, Field: "events.target", Value: shown(e.Target), Err: ErrUnknownEventTag}
	}
	if !slices.Contains(source.outputs(), e.Output) {
		return &PolicyError{Tag: e.Source, Field: "events.output", Value: shown(e.Output), Err: ErrInvalidEvent}
	}
	if !slices.Contains(inputsOf(target.kind), e.Input) {
		return &PolicyError{Tag: e.Source, Field: "events.input", Value: shown(e.Input), Err: ErrInvalidEvent}
	}
	if !slices.Contains([]string{"", "owner", "issuer"}, e.Actor) {
		return &PolicyError{Tag: e.Source, Field: "events.actor", Value: shown(e.Actor), Err: ErrInvalidEvent}
	}
	if !e.Disabled {
		source.links = append(source.links, link{output: e.Output, target: target, input: e.Input})
	}
	return nil
}

// schema is the form of the subject of a credential.
type schema struct {
	IRI    string        `json:"iri"`
	Name   string        `json:"name"`
	Fields []schemaField `json:"fields"`
}

// schemaField is one field of a schema. A read-only field is filled by the
// policy, never by an input.
type schemaField struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Minimum  *int64 `json:"minimum"`
	Maximum  *int64 `json:"maximum"`
	ReadOnly bool   `json:"readOnly"`
}

func (s *schema) check() error {
	if !strings.HasPrefix(s.IRI, "#") || len(s.IRI) < 2 || len(s.Fields) == 0 {
		return errors.New("a schema needs an iri that starts with # and at least one field")
	}
	seen := map[string]bool{"id": true, "type": true} // set by the runner itself
	for _, f := range s.Fields {
		if !validName(f.Name) || seen[f.Name] {
			return fmt.Errorf("field name %q is empty, reserved or used twice", shown(f.Name))
		}
		if f.Type != "string" && f.Type != "integer" {
			return fmt.Errorf("field %q: type %q is neither string nor integer", f.Name, shown(f.Type))
		}
		seen[f.Name] = true
	}
	return nil
}

// fill makes a subject from what the policy presets and what the user gives.
func (s *schema) fill(preset, given map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for _, f := range s.Fields {
		from := given
		if f.ReadOnly {
			from = preset
		}
		v, ok := from[f.Name]
		if !ok {
			return nil, fmt.Errorf("field %q is missing", f.Name)
		}
		if err := f.accept(v); err != nil {
			return nil, err
		}
		out[f.Name] = v
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		i := slices.IndexFunc(s.Fields, func(f schemaField) bool { return f.Name == name })
		if i < 0 || s.Fields[i].ReadOnly {
			return nil, fmt.Errorf("field %q is not for users to set", shown(name))
		}
	}
	return out, nil
}

func (f *schemaField) accept(v any) error {
	if f.Type == "string" {
		if s, ok := v.(string); !ok || s == "" {
			return fmt.Errorf("field %q needs a text", f.Name)
		}
		return nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return fmt.Errorf("field %q needs an integer", f.Name)
	}
	i, err := n.Int64()
	if err != nil || f.Minimum != nil && i < *f.Minimum || f.Maximum != nil && i > *f.Maximum {
		return fmt.Errorf("field %q: %s is no integer in range", f.Name, n)
	}
	return nil
}
