package mrv

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"
)

// deliver runs one block on one event.
func (t *tx) deliver(e event) error {
	if err := t.activate(e.target); err != nil {
		return err
	}
	switch o := e.target.options.(type) {
	case *stepOptions:
		return t.runStep(e)
	case *requestOptions:
		return t.openForm(e)
	case *sendOptions:
		return t.send(e, o)
	case *saveOptions:
		t.passed = append(t.passed, e.target)
		t.emit(e.target, eventRun, e.payload)
		return nil
	case *timerOptions:
		return t.switchTimer(e, o)
	case *aggregateOptions:
		return t.aggregate(e, o)
	case *calculateOptions:
		return t.calculate(e, o)
	case *splitOptions:
		return t.split(e, o)
	case *mintOptions:
		return t.mint(e, o)
	case *switchOptions:
		return t.choose(e, o)
	}
	if e.target.kind == kindButton {
		return setState(t, e.target, buttonState{Documents: t.storedIDs(e.docs)})
	}
	t.emit(e.target, eventRun, e.payload) // informationBlock
	return nil
}

// activate makes b the active child of every step block above it. Reaching a
// final block ends the run.
func (t *tx) activate(b *block) error {
	for child := b; child.parent != nil; child = child.parent {
		o, ok := child.parent.options.(*stepOptions)
		if !ok {
			continue
		}
		if err := t.setIndex(child.parent, child.index); err != nil {
			return err
		}
		for _, tag := range o.FinalBlocks {
			t.run.Ended = t.run.Ended || tag == b.tag
		}
	}
	return nil
}

// setIndex writes only a change, so that an unchanged block state keeps its
// bytes and its place among the documents not touched by a step.
func (t *tx) setIndex(b *block, index int) error {
	s, err := stateOf[stepState](t, b)
	if err != nil || s.Index == index {
		return err
	}
	return setState(t, b, stepState{Index: index})
}

// leave turns a cyclic step block back to its first child after the last one.
func (t *tx) leave(b *block) error {
	if b.parent == nil || b.index != len(b.parent.children)-1 {
		return nil
	}
	if o, ok := b.parent.options.(*stepOptions); !ok || !o.Cyclic {
		return nil
	}
	return t.setIndex(b.parent, 0)
}

// active tells whether every step block above b stands at the way to b.
func (t *tx) active(b *block) (bool, error) {
	for child := b; child.parent != nil; child = child.parent {
		if child.parent.kind != kindStep {
			continue
		}
		s, err := stateOf[stepState](t, child.parent)
		if err != nil || s.Index != child.index {
			return false, err
		}
	}
	return true, nil
}

func (t *tx) runStep(e event) error {
	if err := t.setIndex(e.target, 0); err != nil {
		return err
	}
	t.queue = append(t.queue, event{target: e.target.children[0], input: eventRun, payload: e.payload})
	return nil
}

// openForm remembers the document that the form continues: its subject fills
// the read-only fields and the new credential will relate to it.
func (t *tx) openForm(e event) error {
	s := requestState{Ref: []string{}}
	for _, d := range e.docs {
		s.RestoreData = d.subject()
		if ids := t.storedIDs([]*vcRow{d}); len(ids) > 0 {
			s.Ref = append(s.Ref, ids...)
		} else { // a draft: relate to what it was made from
			s.Ref = append(s.Ref, d.Relationships...)
		}
	}
	return setState(t, e.target, s)
}

// send stores the credentials, or changes the status of stored ones and keeps
// the change as history.
func (t *tx) send(e event, o *sendOptions) error {
	p := e.payload
	p.docs = nil
	for _, d := range e.docs {
		row := *d
		row.Type, row.Tag, row.Updated = o.EntityType, e.target.tag, t.now()
		row.Option.Comment = e.comment
		for _, opt := range o.Options {
			row.Option.Status = opt.Value
		}
		path := docPath(colVc, row.ID)
		if _, stored := t.get(path); stored && d.Option.Status != row.Option.Status {
			id := t.newID()
			h := historyRow{ID: id, PolicyID: t.policy.ID(), DocumentID: row.ID, From: d.Option.Status, To: row.Option.Status, User: e.user, Created: t.now()}
			if err := t.put(docPath(colHistory, id), h); err != nil {
				return err
			}
		}
		if err := t.put(path, row); err != nil {
			return err
		}
		p.docs = append(p.docs, &row)
	}
	t.emit(e.target, eventRun, p)
	return nil
}

// newCredential makes a credential that is not stored yet.
func (t *tx) newCredential(b *block, s *schema, owner string, subject map[string]any, related []string) (*vcRow, error) {
	id := t.newID()
	subject["id"], subject["type"] = "urn:uuid:"+t.newID(), s.IRI[1:]
	row := &vcRow{
		ID: id, HederaStatus: "ISSUE", PolicyID: t.policy.ID(), Tag: b.tag, Schema: s.IRI,
		Relationships: related, Owner: owner, Created: t.now(), Updated: t.now(),
		Document: credential{
			Context: []string{"https://www.w3.org/2018/credentials/v1"}, ID: "urn:uuid:" + id,
			Type: []string{"VerifiableCredential"}, Issuer: owner, Issued: t.now(), Subject: []map[string]any{subject},
		},
	}
	hash, err := hashOf(row.Document)
	row.Hash = hash
	return row, err
}

// switchTimer starts or stops a timer. A start reckons the next tick from the
// number of ticks so far, so a late start does not move the calendar.
func (t *tx) switchTimer(e event, o *timerOptions) error {
	path := docPath(colTimers, e.target.tag)
	row, found, err := read[timerRow](t, path)
	if err != nil {
		return err
	}
	if !found {
		row = timerRow{PolicyID: t.policy.ID(), BlockID: e.target.id, BlockTag: e.target.tag, Documents: []string{}}
	}
	if e.input == eventStopTimer {
		row.Active = false
		return t.put(path, row)
	}
	if row.Active {
		return nil
	}
	row.Active, row.NextFire, row.Documents = true, o.tick(row.Ticks), t.storedIDs(e.docs)
	return t.put(path, row)
}

// tick is the time of tick n, from 0.
func (o *timerOptions) tick(n int) time.Time {
	n *= o.Interval
	switch o.Period {
	case "yearly":
		return o.StartDate.UTC().AddDate(n, 0, 0)
	case "monthly":
		return o.StartDate.UTC().AddDate(0, n, 0)
	}
	return o.StartDate.UTC().AddDate(0, 0, n)
}

// aggregate queues the credentials and lets them go together when enough of
// them wait.
func (t *tx) aggregate(e event, o *aggregateOptions) error {
	s, err := stateOf[aggregateState](t, e.target)
	if err != nil {
		return err
	}
	for _, d := range e.docs {
		id := t.newID()
		row := aggregateRow{ID: id, PolicyID: t.policy.ID(), BlockID: e.target.id, Tag: e.target.tag, Owner: d.Owner, Hash: d.Hash, DocumentID: d.ID}
		if err := t.put(docPath(colAggregate, id), row); err != nil {
			return err
		}
		s.Queue = append(s.Queue, id)
	}
	if len(s.Queue) < o.count {
		return setState(t, e.target, s)
	}
	var ids []string
	for _, id := range s.Queue {
		path := docPath(colAggregate, id)
		row, err := mustRead[aggregateRow](t, path)
		if err != nil {
			return err
		}
		ids = append(ids, row.DocumentID)
		t.del(path)
	}
	p := e.payload
	if p.docs, err = t.credentials(ids); err != nil {
		return err
	}
	t.emit(e.target, eventRun, p)
	return setState(t, e.target, aggregateState{Queue: []string{}})
}

// calculate turns the monitoring records of a year into the draft of the
// yearly report. All arithmetic is exact; a sum that leaves 64 bits fails.
func (t *tx) calculate(e event, o *calculateOptions) error {
	s, err := stateOf[calculateState](t, e.target)
	if err != nil {
		return err
	}
	if len(e.docs) == 0 {
		return errors.New("no records to calculate from")
	}
	first := e.docs[0]
	years, err := first.integer("creditingYears")
	if err != nil {
		return err
	}
	s.Runs++
	subject, err := o.apply(e.docs)
	if err != nil {
		return err
	}
	subject["projectId"], subject["creditingYears"] = first.subject()["projectId"], number(years)
	subject["reportNumber"], subject["yearsLeft"] = number(int64(s.Runs)), number(max(0, years-int64(s.Runs)))
	subject["records"] = number(int64(len(e.docs)))
	p := e.payload
	draft, err := t.newCredential(e.target, t.policy.schemas[o.OutputSchema], first.Owner, subject, t.storedIDs(e.docs))
	if err != nil {
		return err
	}
	p.docs = []*vcRow{draft}
	t.emit(e.target, eventRun, p)
	return setState(t, e.target, s)
}

// apply is the formula: energy that displaces grid power, less the fuel burnt
// for it, never below zero.
func (o *calculateOptions) apply(docs []*vcRow) (map[string]any, error) {
	energy, fuel := new(big.Int), new(big.Int)
	for _, d := range docs {
		kwh, err := d.integer("energyKwh")
		if err != nil {
			return nil, err
		}
		litres, err := d.integer("fuelLitres")
		if err != nil {
			return nil, err
		}
		energy.Add(energy, big.NewInt(kwh))
		fuel.Add(fuel, big.NewInt(litres))
	}
	baseline := new(big.Int).Mul(energy, big.NewInt(o.GridGramsPerKwh))
	project := new(big.Int).Mul(fuel, big.NewInt(o.FuelGramsPerLitre))
	reduction := new(big.Int).Sub(baseline, project)
	if reduction.Sign() < 0 {
		reduction.SetInt64(0)
	}
	out := map[string]any{}
	for _, r := range []struct {
		name  string
		value *big.Int
	}{
		{"energyKwh", energy}, {"fuelLitres", fuel}, {"baselineGrams", baseline},
		{"projectGrams", project}, {"reductionGrams", reduction},
	} {
		if !r.value.IsInt64() {
			return nil, fmt.Errorf("%s leaves 64 bits", r.name)
		}
		out[r.name] = number(r.value.Int64())
	}
	return out, nil
}

// number keeps a subject the same before and after it has been stored.
func number(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }
