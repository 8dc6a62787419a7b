package mrv

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Input is one entry of a script: a user acts on a block at a logical time.
type Input struct {
	At    time.Time       `json:"at"`    // never before the entry ahead of it
	User  string          `json:"user"`  // DID of the user
	Block string          `json:"block"` // tag of a block users act on
	Data  json.RawMessage `json:"data"`  // JSON object: the fields of a form, {"role": ...} or {"button": ..., "comment": ...}
}

// checkInput checks what can be known before the run.
func (p *Policy) checkInput(in Input, earliest time.Time) error {
	b := p.byTag[in.Block]
	if b == nil || !b.takesInput() {
		return fmt.Errorf("%w: no block for users to act on", ErrInvalidInput)
	}
	if !strings.HasPrefix(in.User, "did:") {
		return fmt.Errorf("%w: user %q is no DID", ErrInvalidInput, shown(in.User))
	}
	if year := in.At.UTC().Year(); in.At.Before(earliest) || year < 1900 || year > 9000 {
		return fmt.Errorf("%w: time %s is out of order or out of range", ErrInvalidInput, in.At)
	}
	var fields map[string]any
	if err := decodeStrict(in.Data, &fields); err != nil || fields == nil {
		return fmt.Errorf("%w: data is no JSON object", ErrInvalidInput)
	}
	return nil
}

// accept hands an input to its block, which must be active and open to the
// user.
func (t *tx) accept(in inputRow) error {
	b := t.policy.byTag[in.Block]
	on, err := t.active(b)
	if err != nil {
		return err
	}
	if !on {
		return refused(errors.New("the block is not active"))
	}
	role, err := t.roleOf(in.User)
	if err != nil {
		return err
	}
	if !slices.Contains(b.permissions, role) && !slices.Contains(b.permissions, roleAny) {
		return refused(fmt.Errorf("a user with %s may not act here", role))
	}
	switch o := b.options.(type) {
	case *rolesOptions:
		return t.takeRole(b, o, in)
	case *requestOptions:
		return t.submit(b, o, in)
	}
	return t.press(b, in)
}

func refused(err error) error { return fmt.Errorf("%w: %w", ErrInputRefused, err) }

func (t *tx) rolePath(user string) string {
	return docPath(colRoles, uuidOf("role", t.policy.ID(), user))
}

// roleOf returns the role of a user, NO_ROLE before one was chosen.
func (t *tx) roleOf(user string) (string, error) {
	row, found, err := read[roleRow](t, t.rolePath(user))
	if err != nil || !found {
		return roleNone, err
	}
	return row.Role, nil
}

func (t *tx) takeRole(b *block, o *rolesOptions, in inputRow) error {
	var data struct {
		Role string `json:"role"`
	}
	if err := decodeStrict(in.Data, &data); err != nil {
		return refused(err)
	}
	if !slices.Contains(o.Roles, data.Role) {
		return refused(fmt.Errorf("no role %q to choose", shown(data.Role)))
	}
	path := t.rolePath(in.User)
	_, id, _ := partPath(path)
	row := roleRow{ID: id, UUID: t.newID(), PolicyID: t.policy.ID(), DID: in.User, Role: data.Role, Active: true, Created: t.now()}
	if err := t.put(path, row); err != nil {
		return err
	}
	did := didRow{
		ID: uuidOf("did", in.User), PolicyID: t.policy.ID(), DID: in.User, Status: "CREATE",
		Document: didDoc{Context: "https://www.w3.org/ns/did/v1", ID: in.User}, Created: t.now(),
	}
	return t.put(docPath(colDid, did.ID), did)
}

// submit makes a credential from a form.
func (t *tx) submit(b *block, o *requestOptions, in inputRow) error {
	var given map[string]any
	if err := decodeStrict(in.Data, &given); err != nil {
		return refused(err)
	}
	s, err := stateOf[requestState](t, b)
	if err != nil {
		return err
	}
	form := t.policy.schemas[o.Schema]
	subject, err := form.fill(s.RestoreData, given)
	if err != nil {
		return refused(err)
	}
	related := s.Ref
	if related == nil {
		related = []string{}
	}
	row, err := t.newCredential(b, form, in.User, subject, related)
	if err != nil {
		return err
	}
	t.emit(b, eventRun, payload{user: in.User, docs: []*vcRow{row}})
	return nil
}

// press takes a decision on the documents that wait at a button.
func (t *tx) press(b *block, in inputRow) error {
	var data struct {
		Button  string `json:"button"`
		Comment string `json:"comment"`
	}
	if err := decodeStrict(in.Data, &data); err != nil {
		return refused(err)
	}
	if !slices.Contains(b.buttons, data.Button) {
		return refused(fmt.Errorf("no button %q", shown(data.Button)))
	}
	s, err := stateOf[buttonState](t, b)
	if err != nil {
		return err
	}
	if len(s.Documents) == 0 {
		return refused(errors.New("nothing waits for a decision"))
	}
	docs, err := t.credentials(s.Documents)
	if err != nil {
		return err
	}
	t.emit(b, data.Button, payload{user: in.User, docs: docs, comment: data.Comment})
	return setState(t, b, buttonState{Documents: []string{}})
}
