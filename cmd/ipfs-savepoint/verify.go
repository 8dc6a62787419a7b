package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// verifiedJSON is the result of verify for one save point.
type verifiedJSON struct {
	Savepoint string `json:"savepoint"`
	State     string `json:"state,omitempty"`
	Documents uint64 `json:"documents"`
	Bytes     uint64 `json:"bytes"`
	Erased    uint64 `json:"erased,omitempty"` // of the documents
	Verified  bool   `json:"verified"`
	Error     string `json:"error,omitempty"`
}

func (e *env) verifyCommand() *cobra.Command {
	var trust, origin string
	var all bool
	cmd := &cobra.Command{
		Use:   "verify [REF | --all]",
		Short: "Check every byte, node, proof and pin of save points",
		Long: `Check every byte, node, proof and pin of save points.

Each byte is hashed against its CID; each directory is laid out again from its
own listing; the manifest is compared with its log entry, and the entry's proof
is checked under the trust policy and in the repository's copy of the log.
Documents that are missing count as erased where an entry of the save point's log says
so, and as damage otherwise. Without REF all save points in the repository are checked, and its copies of logs.`,
		Args: rangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && all {
				return usagef("either REF or --all")
			}
			if len(args) == 1 {
				return e.withSavepoint(cmd, args[0], trust, origin, func(b *savepoints.Bank, s savepoints.Savepoint) error {
					return e.verifyAll(cmd, b, []savepoints.Savepoint{s})
				})
			}
			return e.toRead(cmd.Context(), trust, func(t trusted) error {
				list, err := t.Receipts(cmd.Context())
				if err != nil {
					return err
				}
				if err := e.noteUntrusted(t, len(list)); err != nil {
					return err
				}
				return errors.Join(e.verifyAll(cmd, t.Bank, list), verifyLogs(cmd.Context(), t.Bank))
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "check all save points (as without REF)")
	refFlags(cmd, &trust, &origin)
	return cmd
}

// verifyAll checks every save point, also after one that is damaged.
func (e *env) verifyAll(cmd *cobra.Command, b *savepoints.Bank, list []savepoints.Savepoint) error {
	var errs []error
	for _, s := range list {
		t, err := b.Verify(cmd.Context(), s)
		if cmd.Context().Err() != nil {
			return err
		}
		v := verifiedJSON{Savepoint: s.CID.String(), Documents: t.Documents, Bytes: t.Bytes, Erased: t.Erased.Documents, Verified: err == nil}
		line := fmt.Sprintf("DAMAGED   %s", s.CID)
		if err != nil {
			v.Error = err.Error()
			errs = append(errs, err)
		} else {
			m, err := dag.ReadManifest(cmd.Context(), b.Repo().Blocks, s.CID)
			if err != nil {
				return err
			}
			v.State = m.State.String()
			line = fmt.Sprintf("verified  %s  %s@%d: %d documents, %s", s.CID, m.Policy.ID, m.Sequence, t.Documents, size(t.Bytes))
			line += without(t.Erased.Documents)
		}
		if err := e.result(v, "%s\n", line); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		e.note("there is nothing to verify")
	}
	return errors.Join(errs...)
}

// without says for a person how many documents are not there.
func without(erased uint64) string {
	if erased == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of them erased", erased)
}

// verifyLogs checks every byte of the logs that the repository has copies of.
func verifyLogs(ctx context.Context, b *savepoints.Bank) error {
	var errs []error
	for _, p := range b.Policies() {
		errs = append(errs, b.VerifyLog(ctx, p.Origin))
	}
	return errors.Join(errs...)
}
