package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// savepointJSON is a save point in lists.
type savepointJSON struct {
	Savepoint string   `json:"savepoint"`
	State     string   `json:"state"`
	Policy    string   `json:"policy"`
	Blocks    []string `json:"blocks,omitempty"`
	Sequence  uint64   `json:"sequence"`
	Epoch     uint64   `json:"epoch"`
	Height    *uint64  `json:"height,omitempty"`
	Time      string   `json:"time"`
	Documents uint64   `json:"documents"`
	// Erased is how many of the documents are missing here since they were erased,
	// ErasedByLog how many the log says are erased, whether they are missing here or not.
	Erased      uint64      `json:"erased,omitempty"`
	ErasedByLog erasedByLog `json:"erasedByLog,omitzero"`
	// Returned is how many documents came that this repository's own log erased.
	Returned uint64 `json:"returned,omitempty"`
	Bytes    uint64 `json:"bytes"`
	Origin   string `json:"origin"`
	LogIndex int64  `json:"logIndex"`
}

// erasedByLog is what [savepoints.Bank.CountErased] counts; null in JSON where that is unknown.
type erasedByLog uint64

func (n erasedByLog) MarshalJSON() ([]byte, error) {
	if n == savepoints.ErasedUnknown {
		return []byte("null"), nil
	}
	return json.Marshal(uint64(n))
}

// String is for a person; empty where nothing was erased.
func (n erasedByLog) String() string {
	switch n {
	case 0:
		return ""
	case savepoints.ErasedUnknown:
		return "unknown how many erased by the log"
	}
	return fmt.Sprintf("%d erased by the log", uint64(n))
}

// erasedByLog counts for display, which is not worse for what cannot be counted.
func (e *env) erasedByLog(ctx context.Context, b *savepoints.Bank, list ...savepoints.Savepoint) ([]erasedByLog, error) {
	counts, err := b.CountErased(ctx, list)
	if ctx.Err() != nil {
		return nil, err
	}
	if err != nil {
		e.note("%v", err)
	}
	out := make([]erasedByLog, len(counts))
	for i, n := range counts {
		out[i] = erasedByLog(n)
	}
	return out, nil
}

func newSavepointJSON(s savepoints.Savepoint) savepointJSON {
	m := s.Manifest
	return savepointJSON{
		Savepoint: s.CID.String(), State: m.State.String(), Policy: m.Policy.ID, Blocks: s.Blocks(),
		Sequence: m.Sequence, Epoch: m.Epoch, Height: m.Height, Time: m.Time.Format(dag.TimeFormat),
		Documents: m.Totals.Documents, Bytes: m.Totals.Bytes, Origin: s.Origin, LogIndex: s.LogIndex,
	}
}

func (e *env) listCommand() *cobra.Command {
	var policy, trust string
	var retired bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the save points that the repository holds",
		Long: `List the save points that the repository holds.

"erased by the log" (JSON: erasedByLog) is how many of the documents the log says are
erased, whether their bytes are here or not; "verify" says how many are missing here.
Where a directory cannot be read that is unknown (JSON: null).`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if retired && policy != "" {
				return usagef("what is retired is listed by what the log says, which has no policy ids: --retired goes without --policy")
			}
			return e.toRead(cmd.Context(), trust, func(t trusted) error {
				if retired {
					return e.listRetired(cmd.Context(), t)
				}
				list, err := t.List(cmd.Context(), policy)
				if err != nil {
					return err
				}
				if err := e.noteUntrusted(t, len(list)); err != nil && !(policy != "" && errors.Is(err, savepoints.ErrNoTrust)) {
					return err
				}
				erased, err := e.erasedByLog(cmd.Context(), t.Bank, list...)
				if err != nil {
					return err
				}
				if e.json {
					return e.print(map[string]any{"savepoints": listJSON(list, erased)})
				}
				return e.table(list, erased)
			})
		},
	}
	cmd.Flags().BoolVar(&retired, "retired", false, "list those that were retired, instead")
	cmd.Flags().StringVar(&policy, "policy", "", "only those of the policy `ID`")
	trustFlag(cmd, &trust)
	return cmd
}

func listJSON(list []savepoints.Savepoint, erased []erasedByLog) []savepointJSON {
	out := make([]savepointJSON, len(list))
	for i, s := range list {
		out[i] = newSavepointJSON(s)
		out[i].ErasedByLog = erased[i]
	}
	return out
}

func (e *env) listRetired(ctx context.Context, t trusted) error {
	list, err := t.Retired(ctx)
	if err != nil {
		return err
	}
	out := []retiredJSON{}
	for _, s := range list {
		r := retiredJSON{s.CID.String(), s.Entry.Sequence, s.Entry.Epoch, s.Entry.Time.Format(dag.TimeFormat), s.Origin, s.LogIndex}
		out = append(out, r)
		if !e.json {
			fmt.Fprintf(e.out, "retired  %s  sequence %d, log entry %d\n", r.Savepoint, r.Sequence, r.LogIndex)
		}
	}
	if e.json {
		return e.print(map[string]any{"retired": out})
	}
	return nil
}

func (e *env) table(list []savepoints.Savepoint, erased []erasedByLog) error {
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REF\tHEIGHT\tBLOCK\tTIME\tDOCUMENTS\tBYTES\tSAVEPOINT")
	for i, s := range list {
		m := s.Manifest
		documents := fmt.Sprint(m.Totals.Documents)
		if erased[i] != 0 {
			documents += fmt.Sprintf(" (%s)", erased[i])
		}
		height := "-"
		if m.Height != nil {
			height = fmt.Sprint(*m.Height)
		}
		block := strings.Join(s.Blocks(), ",")
		if block == "" {
			block = "-"
		}
		fmt.Fprintf(w, "%s@%d\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Policy.ID, m.Sequence, height, block,
			m.Time.Format(time.DateTime), documents, size(m.Totals.Bytes), s.CID)
	}
	return w.Flush()
}
