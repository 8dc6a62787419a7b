package mrv

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// split adds the value of the document to the residue kept for its owner,
// hands on the whole units and keeps the rest.
func (t *tx) split(e event, o *splitOptions) error {
	if len(e.docs) != 1 {
		return fmt.Errorf("one document is needed, not %d", len(e.docs))
	}
	d := e.docs[0]
	field, err := subjectField(o.SourceField)
	if err != nil {
		return err
	}
	value, err := d.integer(field)
	if err != nil {
		return err
	}
	id := uuidOf("split", t.policy.ID(), e.target.id, d.Owner)
	path := docPath(colSplit, id)
	row, _, err := read[splitRow](t, path)
	if err != nil {
		return err
	}
	sum := row.Value + value
	if value < 0 || sum < value {
		return fmt.Errorf("value %d cannot be added to residue %d", value, row.Value)
	}
	units := sum / o.threshold
	row = splitRow{ID: id, PolicyID: t.policy.ID(), BlockID: e.target.id, UserID: d.Owner, Value: sum % o.threshold, DocumentID: d.ID}
	if err := t.put(path, row); err != nil {
		return err
	}
	p := e.payload
	p.units = &units
	t.emit(e.target, eventRun, p)
	return nil
}

// mint asks for whole units and presents the document they come from. No
// units, no request.
func (t *tx) mint(e event, o *mintOptions) error {
	if e.units == nil || len(e.docs) != 1 {
		return errors.New("a mint needs one document and the units of a splitBlock before it")
	}
	if *e.units > 0 {
		if err := t.requestMint(e, o); err != nil {
			return err
		}
	}
	t.emit(e.target, eventRun, e.payload)
	return nil
}

func (t *tx) requestMint(e event, o *mintOptions) error {
	d := e.docs[0]
	i := slices.IndexFunc(t.policy.file.Tokens, func(k token) bool { return k.ID == o.TokenID })
	kind := t.policy.file.Tokens[i]
	vp := vpRow{
		ID: t.newID(), PolicyID: t.policy.ID(), Tag: e.target.tag, Owner: d.Owner, Amount: *e.units, TokenID: o.TokenID, Created: t.now(),
		Document: presentation{
			Context: []string{"https://www.w3.org/2018/credentials/v1"}, Type: []string{"VerifiablePresentation"},
			Credentials: []credential{d.Document},
		},
	}
	vp.Document.ID = "urn:uuid:" + vp.ID
	hash, err := hashOf(vp.Document)
	if err != nil {
		return err
	}
	vp.Hash = hash
	if err := t.put(docPath(colVp, vp.ID), vp); err != nil {
		return err
	}
	m := mintRow{
		ID: t.newID(), PolicyID: t.policy.ID(), TokenID: o.TokenID, TokenType: kind.Type, Decimals: kind.Decimals,
		Amount: *e.units, Target: d.Owner, VpID: vp.ID, Memo: o.Memo, IsMintNeeded: true, Created: t.now(),
	}
	return t.put(docPath(colMint, m.ID), m)
}

// choose puts out the first condition that holds; none may hold.
func (t *tx) choose(e event, o *switchOptions) error {
	for i, c := range o.Conditions {
		holds, err := c.holds(e.docs)
		if err != nil {
			return err
		}
		if holds {
			t.emit(e.target, "Condition_"+strconv.Itoa(i), e.payload)
			return nil
		}
	}
	return nil
}

func (c *condition) holds(docs []*vcRow) (bool, error) {
	if c.Type == "unconditional" {
		return true, nil
	}
	field, err := subjectField(c.Field)
	if err != nil {
		return false, err
	}
	if len(docs) != 1 {
		return false, fmt.Errorf("a condition needs one document, not %d", len(docs))
	}
	v, ok := docs[0].subject()[field]
	if !ok {
		return false, fmt.Errorf("credential %s has no field %q", docs[0].ID, field)
	}
	return (fmt.Sprint(v) == c.Value) == (c.Type == "equal"), nil
}
