package savepoints

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

const (
	auditKind    = "audits"
	auditVersion = 2
)

// auditRecord is what an audit leaves for the next one: JSON.
type auditRecord struct {
	Version    int             `json:"v"`
	Checkpoint string          `json:"checkpoint"` // the head that was audited
	History    json.RawMessage `json:"history"`    // what the entries up to it say
	// Topic is how far the policy's topic was compared.
	Topic *topicRecord `json:"topic,omitempty"`
}

// audited is what can be read of what an earlier audit left.
type audited struct {
	head    anchor.Head    // that was audited; without a checkpoint if it is not known
	history *entry.History // nil: all entries are to be read
	topic   topicRecord    // empty: all messages are to be read
	err     error          // why that is not all
}

// earlierAudit returns what an earlier audit left; nothing if there was none, or it is not
// wanted.
func (b *Bank) earlierAudit(o AuditOptions) (audited, error) {
	if o.Restart {
		return audited{}, nil
	}
	data, err := b.repo.Record(auditKind, LogID(o.Policy.Origin))
	if err != nil || data == nil {
		return audited{}, err
	}
	a, err := b.readAudit(o.Policy, data)
	a.err = err
	return a, nil
}

// readAudit reads the record of an earlier audit. The head binds whatever else of it is
// damaged, or of another version.
func (b *Bank) readAudit(p *anchor.Policy, data []byte) (a audited, err error) {
	var rec auditRecord
	parseErr := json.Unmarshal(data, &rec)
	if a.head, err = b.headThen(p, []byte(rec.Checkpoint)); err != nil {
		return a, cmp.Or(parseErr, err)
	}
	switch {
	case parseErr != nil:
		return a, parseErr
	case rec.Version != auditVersion:
		return a, fmt.Errorf("it is of version %d, not %d", rec.Version, auditVersion)
	}
	var history entry.History
	if err := json.Unmarshal(rec.History, &history); err != nil {
		return a, err
	}
	a.history = &history
	if rec.Topic != nil {
		a.topic = *rec.Topic
	}
	return a, nil
}

// resume takes up what an earlier audit left. The head must extend the one of then.
func (a *audit) resume(ctx context.Context, earlier audited) error {
	a.history, a.r.EarlierErr = entry.NewHistory(a.v.Head().Origin), earlier.err
	if earlier.head.Checkpoint != nil {
		if err := a.v.Extends(ctx, earlier.head); err != nil {
			return fmt.Errorf("audit: the head that was audited last: %w", err)
		}
	}
	if earlier.history != nil {
		a.history, a.r.From = earlier.history, earlier.head.Size
	}
	return nil
}

func (a *audit) save() error {
	history, err := json.Marshal(a.history)
	if err != nil {
		return err
	}
	rec := auditRecord{Version: auditVersion, Checkpoint: string(a.v.Head().Checkpoint), History: history}
	if a.topic != nil {
		rec.Topic = &a.topic.record
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return a.b.repo.PutRecord(auditKind, LogID(a.v.Head().Origin), data)
}
