package mrv

import (
	"encoding/json"
	"fmt"
)

// claims is what a row says about itself and other documents.
type claims struct {
	id, policyID string
	collection   string   // of the documents it names
	names        []string // their ids
	document     any      // what hash covers, nil if there is no hash
	hash         string
}

func (r vcRow) claims() claims {
	return claims{id: r.ID, policyID: r.PolicyID, collection: colVc, names: r.Relationships, document: r.Document, hash: r.Hash}
}

func (r vpRow) claims() claims {
	return claims{id: r.ID, policyID: r.PolicyID, document: r.Document, hash: r.Hash}
}

func (r aggregateRow) claims() claims {
	return claims{id: r.ID, policyID: r.PolicyID, collection: colVc, names: []string{r.DocumentID}}
}

func (r splitRow) claims() claims {
	return claims{id: r.ID, policyID: r.PolicyID, collection: colVc, names: []string{r.DocumentID}}
}

func (r historyRow) claims() claims {
	return claims{id: r.ID, policyID: r.PolicyID, collection: colVc, names: []string{r.DocumentID}}
}

func (r mintRow) claims() claims {
	return claims{id: r.ID, policyID: r.PolicyID, collection: colVp, names: []string{r.VpID}}
}

func (r roleRow) claims() claims { return claims{id: r.ID, policyID: r.PolicyID} }

func (r didRow) claims() claims { return claims{id: r.ID, policyID: r.PolicyID} }

// checkRow checks a row against what it claims.
func checkRow[T interface{ claims() claims }](l *loader, id string, b []byte) error {
	var row T
	if err := unmarshal(b, &row); err != nil {
		return err
	}
	if vc, ok := any(row).(vcRow); ok && (len(vc.Document.Subject) != 1 || vc.Document.Subject[0] == nil) {
		return fmt.Errorf("%w: a credential has one subject", ErrMalformedState)
	}
	c := row.claims()
	if err := l.own(c.id, id, c.policyID); err != nil {
		return err
	}
	if c.document != nil {
		if err := sameHash(c.document, c.hash); err != nil {
			return err
		}
	}
	return l.names(c.collection, c.names...)
}

// checkState checks the state of a block. Which form it has depends on the
// type of the block.
func (l *loader) checkState(id string, bytes []byte) error {
	var head stateRow[json.RawMessage]
	if err := unmarshal(bytes, &head); err != nil {
		return err
	}
	b, err := l.block(id, head.BlockTag, head.BlockID, head.PolicyID)
	if err != nil {
		return err
	}
	switch b.kind {
	case kindStep:
		var s stepState
		if err := unmarshal(head.State, &s); err != nil {
			return err
		}
		if s.Index < 0 || s.Index >= len(b.children) {
			return fmt.Errorf("%w: %q has no child %d", ErrMalformedState, b.tag, s.Index)
		}
		return nil
	case kindRequest:
		var s requestState
		if err := unmarshal(head.State, &s); err != nil {
			return err
		}
		return l.names(colVc, s.Ref...)
	case kindButton:
		var s buttonState
		if err := unmarshal(head.State, &s); err != nil {
			return err
		}
		return l.names(colVc, s.Documents...)
	case kindAggregate:
		var s aggregateState
		if err := unmarshal(head.State, &s); err != nil {
			return err
		}
		return l.names(colAggregate, s.Queue...)
	case kindCalculate:
		var s calculateState
		if err := unmarshal(head.State, &s); err != nil {
			return err
		}
		if s.Runs < 0 {
			return fmt.Errorf("%w: %d runs", ErrMalformedState, s.Runs)
		}
		return nil
	}
	return fmt.Errorf("%w: %q is a %s, which remembers nothing", ErrUnknownTag, b.tag, b.kind)
}
