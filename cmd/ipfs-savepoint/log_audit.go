package main

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// auditJSON is the result of "log audit".
type auditJSON struct {
	Origin     string               `json:"origin"`
	Size       int64                `json:"size"`
	RootHash   string               `json:"rootHash"`
	Freshness  savepoints.Freshness `json:"freshness"`
	From       int64                `json:"from"`
	Earlier    string               `json:"earlierError,omitempty"`
	Savepoints int64                `json:"savepoints"`
	Others     int64                `json:"others"`
	Unknown    int64                `json:"unknown"`
	Held       int64                `json:"held"`
	Retired    int64                `json:"retired"`
	Absent     int64                `json:"absent"`
	Wrong      int64                `json:"wrong"`
	Findings   []findingJSON        `json:"findings"`
	Ledger     *ledgerJSON          `json:"ledger,omitempty"`
}

// ledgerJSON is what was compared with the topic that the trust policy names.
type ledgerJSON struct {
	Topic string `json:"topic"`
	Last  int64  `json:"last"`
	Heads int64  `json:"heads"`
	Error string `json:"error,omitempty"`
}

type findingJSON struct {
	LogIndex int64  `json:"logIndex"`
	Error    string `json:"error"`
}

func (e *env) logAuditCommand() *cobra.Command {
	var o fetchFlags
	var origin string
	var restart bool
	cmd := &cobra.Command{
		Use:   "audit [--from SOURCE --trust FILE]",
		Short: "Check every entry of a log, and every save point held against its entry",
		Long: `Check every entry of a log: that it is in the tree of the newest head, that this head
extends all that was seen before, and that the entries keep the rules between them. Of
the save points in the repository the proofs and manifests are compared with their
entries; "verify" reads their documents. If the trust policy names a topic of a public
ledger, every head there must be one that this log has grown from.

Without --from the repository's own copy of the log is audited. The next audit goes on
where this one ended, if nothing was wrong.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			with := e.toRead
			if len(o.from) > 0 {
				with = e.toReceive
			}
			return with(cmd.Context(), o.trust, func(t trusted) error {
				if err := e.keepSwarmKey(t.Bank, o.swarmKey); err != nil {
					return err
				}
				p, err := t.policyOf(origin)
				if err != nil {
					return err
				}
				r, err := t.Audit(cmd.Context(), savepoints.AuditOptions{Restart: restart, FetchOptions: savepoints.FetchOptions{
					Policy: p, Sources: e.sources(o.from), AcceptStale: o.acceptStale, Report: e.note,
				}})
				if err != nil && !errors.Is(err, savepoints.ErrAudit) {
					return err
				}
				return errors.Join(err, e.printAudit(r))
			})
		},
	}
	o.add(cmd, "default: the repository itself")
	cmd.Flags().StringVar(&origin, "log", "", "`ORIGIN` of the log, where several are held")
	cmd.Flags().BoolVar(&restart, "restart", false, "begin with the first entry")
	return cmd
}

func (e *env) printAudit(r savepoints.AuditReport) error {
	out := auditJSON{
		Origin: r.Head.Origin, Size: r.Head.Size, RootHash: base64.StdEncoding.EncodeToString(r.Head.RootHash[:]), Freshness: r.Freshness,
		From: r.From, Savepoints: r.Savepoints, Others: r.Others, Unknown: r.Unknown, Held: r.Held, Retired: r.Retired, Absent: r.Absent, Wrong: r.Wrong, Findings: []findingJSON{},
	}
	text := fmt.Sprintf("log         %s\nsize        %d, root %s\nentries     %d to %d read: %d of save points, %d of other types, %d of unknown ones\nsave points %d held and compared, %d retired, %d not here\nfreshness   %s\n",
		out.Origin, out.Size, out.RootHash, r.From, r.Head.Size, r.Savepoints, r.Others, r.Unknown, r.Held, r.Retired, r.Absent, r.Freshness.Words())
	if l := r.Ledger; l != nil {
		out.Ledger = &ledgerJSON{Topic: l.Topic, Last: l.Last, Heads: l.Heads}
		text += fmt.Sprintf("ledger      topic %s to message %d: %d heads, all of this log\n", l.Topic, l.Last, l.Heads)
		if l.Err != nil {
			out.Ledger.Error = l.Err.Error()
			text += fmt.Sprintf("ledger      not read to its end: %v\n", l.Err)
		}
	}
	if r.EarlierErr != nil {
		out.Earlier = r.EarlierErr.Error()
		text += fmt.Sprintf("earlier     what the last audit left could not be used, and all was read: %v\n", r.EarlierErr)
	}
	for _, f := range r.Findings {
		out.Findings = append(out.Findings, findingJSON{f.Index, f.Err.Error()})
		text += fmt.Sprintf("WRONG       entry %d: %v\n", f.Index, f.Err)
	}
	if r.Wrong == 0 {
		text += "result      nothing wrong\n"
	} else {
		text += fmt.Sprintf("result      %d findings\n", r.Wrong)
	}
	return e.result(out, "%s", text)
}
