package savepoints

import (
	"context"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// LogEntry is an entry of a log, as a person wants to see it.
type LogEntry struct {
	Index int64
	Entry entry.Entry // nil if it is of a type that is not known here, or broken
	Err   error       // why there is none
	// Policy is the id of its policy, if it is of one, where the bank holds the manifest of
	// the entry, or of one before it that was given and is of the same policy; else empty.
	Policy string
}

// LogEntries calls f for the entries of the bank's copy of a log, from index from on.
// The error wraps ErrUsage if from is negative.
func (b *Bank) LogEntries(ctx context.Context, p *anchor.Policy, from int64, f func(LogEntry) error) error {
	if from < 0 {
		return fmt.Errorf("%w: entries are counted from 0, not %d", ErrUsage, from)
	}
	b = b.with(p)
	v, err := b.view(ctx, p)
	if err != nil {
		return err
	}
	ids := map[entry.PolicyKey]string{}
	for e, err := range v.Entries(ctx, from) {
		if err != nil {
			return err
		}
		out := LogEntry{Index: e.Index}
		out.Entry, out.Err = entry.Decode(e.Record)
		if key, ok := entry.PolicyOf(out.Entry); ok {
			if s, ok := out.Entry.(*entry.Savepoint); ok && ids[key] == "" {
				ids[key] = b.policyID(ctx, *s)
			}
			out.Policy = ids[key]
		}
		if err := f(out); err != nil {
			return err
		}
	}
	return nil
}

// policyID returns the id of the policy of a save point; empty if its manifest is not here, or
// contradicts the entry.
func (b *Bank) policyID(ctx context.Context, s entry.Savepoint) string {
	m, err := dag.ReadManifest(ctx, b.repo.Blocks, s.Savepoint)
	if err != nil || s.Agrees(m, s.Savepoint, b.naming(s.Origin)) != nil {
		return ""
	}
	return m.Policy.ID
}
