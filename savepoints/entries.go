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
	// Policy is the policy's id where it is the anchor of a save point of which the
	// bank holds the manifest.
	Policy string
}

// LogEntries calls f for the entries of the bank's copy of a log, from index from on.
// The error wraps ErrUsage if from is negative.
func (b *Bank) LogEntries(ctx context.Context, p *anchor.Policy, from int64, f func(LogEntry) error) error {
	if from < 0 {
		return fmt.Errorf("%w: entries are counted from 0, not %d", ErrUsage, from)
	}
	v, err := b.with(p).view(ctx, p)
	if err != nil {
		return err
	}
	for e, err := range v.Entries(ctx, from) {
		if err != nil {
			return err
		}
		out := LogEntry{Index: e.Index}
		out.Entry, out.Err = entry.Decode(e.Record)
		if s, ok := out.Entry.(*entry.Savepoint); ok && out.Err == nil {
			if m, err := dag.ReadManifest(ctx, b.repo.Blocks, s.Savepoint); err == nil {
				out.Policy = m.Policy.ID
			}
		}
		if err := f(out); err != nil {
			return err
		}
	}
	return nil
}
