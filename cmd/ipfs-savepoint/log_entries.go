package main

import (
	"fmt"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/spf13/cobra"
)

// logEntryJSON is one line of "log entries": what entries of all types have, and the fields
// of its type.
type logEntryJSON struct {
	LogIndex       int64    `json:"logIndex"`
	Type           string   `json:"type,omitempty"`
	Savepoint      string   `json:"savepoint,omitempty"`
	PolicyKey      string   `json:"policyKey,omitempty"`
	Policy         string   `json:"policy,omitempty"` // where a manifest that says it is held
	Epoch          uint64   `json:"epoch"`
	Sequence       uint64   `json:"sequence,omitempty"`
	Height         *uint64  `json:"height,omitempty"`
	Time           string   `json:"time,omitempty"`
	PrevOrigin     string   `json:"prevOrigin,omitempty"`
	PrevCheckpoint string   `json:"prevCheckpoint,omitempty"`
	PrevRoot       string   `json:"prevRoot,omitempty"`
	Documents      []string `json:"documents,omitempty"`
	KeyRing        string   `json:"keyRing,omitempty"`
	Text           string   `json:"text,omitempty"`
	Error          string   `json:"error,omitempty"`
}

func (e *env) logEntriesCommand() *cobra.Command {
	var trust, origin string
	var start int64
	cmd := &cobra.Command{
		Use:   "entries",
		Short: "List the entries of the repository's copy of a log",
		Long: `List the entries of the repository's copy of a log, each proven to be in it: index, type,
policy and sequence, time, and what else entries of its type say. Policies have no names in
a log: those of which a save point is in the repository are named. Texts of others are
quoted. With --json there is one document a line.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.toRead(cmd.Context(), trust, func(t trusted) error {
				p, err := t.policyOf(origin)
				if err != nil {
					return err
				}
				return t.LogEntries(cmd.Context(), p, start, e.printEntry)
			})
		},
	}
	refFlags(cmd, &trust, &origin)
	cmd.Flags().Int64Var(&start, "start", 0, "the first entry to list: `N`, from 0")
	return cmd
}

func (e *env) printEntry(le savepoints.LogEntry) error {
	out := logEntryJSON{LogIndex: le.Index, Policy: le.Policy}
	if le.Err != nil {
		out.Error = le.Err.Error()
		return e.result(out, "%d\t-\t%v\n", le.Index, le.Err)
	}
	c := le.Entry.Base()
	out.Type, out.Epoch, out.Time = le.Entry.Type(), c.Epoch, c.Time.Format(dag.TimeFormat)
	subject := "-"
	if key, ok := entry.PolicyOf(le.Entry); ok {
		out.PolicyKey = fmt.Sprintf("%x", key)
		if subject = le.Policy; subject == "" {
			subject = out.PolicyKey[:16]
		}
	}
	says := out.fill(le.Entry)
	if out.Sequence > 0 {
		subject = fmt.Sprintf("%s@%d", subject, out.Sequence)
	}
	columns := []string{fmt.Sprint(le.Index), out.Type, subject, out.Time}
	if says != "" {
		columns = append(columns, says)
	}
	return e.result(out, "%s\n", strings.Join(columns, "\t"))
}

// fill takes in the fields of an entry's type, and returns in one line for a person what the
// other columns do not say.
func (out *logEntryJSON) fill(said entry.Entry) string {
	switch said := said.(type) {
	case *entry.Savepoint:
		out.Savepoint, out.Sequence, out.Height = said.Savepoint.String(), said.Sequence, said.Height
		if said.Height != nil {
			return fmt.Sprintf("%s height %d", out.Savepoint, *said.Height)
		}
		return out.Savepoint
	case *entry.Retire:
		out.Savepoint, out.Sequence = said.Savepoint.String(), said.Sequence
		return out.Savepoint
	case *entry.Takeover:
		says := fmt.Sprintf("epoch %d", said.Epoch)
		if prev := said.Previous; prev != nil {
			out.PrevOrigin, out.PrevCheckpoint, out.PrevRoot = prev.Origin, string(prev.Checkpoint), prev.Root.String()
			says += fmt.Sprintf(" from log %q, root %s, checkpoint %q", prev.Origin, out.PrevRoot, prev.Checkpoint)
		}
		return says
	case *entry.Erase:
		for _, c := range said.Documents {
			out.Documents = append(out.Documents, c.String())
		}
		return strings.Join(out.Documents, " ")
	case *entry.Rekey:
		out.KeyRing = said.KeyRing.String()
		return out.KeyRing
	case *entry.Note:
		out.Text = said.Text
		return fmt.Sprintf("%q", said.Text)
	}
	return ""
}
