package main

import (
	"encoding/base64"

	"github.com/spf13/cobra"
)

func (e *env) logCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Look at the log",
		Args:  exactArgs(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		e.logHeadCommand(), e.logEntriesCommand(), e.logAuditCommand(), e.logProveCommand(), e.logVerifyProofCommand(),
		e.logNoteCommand(), e.logFreezeCommand(), e.logWitnessCommand(),
	)
	return cmd
}

func (e *env) logHeadCommand() *cobra.Command {
	var trust, origin string
	cmd := &cobra.Command{
		Use:   "head",
		Short: "Print the newest verified head of a log",
		Args:  exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.toRead(cmd.Context(), trust, func(t trusted) error {
				if origin == "" && t.policy != nil {
					origin = t.policy.Origin
				}
				h, err := t.Head(cmd.Context(), origin)
				if err != nil {
					return err
				}
				root := "" // of a log of which nothing but the head is here
				if h.Root.Defined() {
					root = h.Root.String()
				}
				return e.result(map[string]any{
					"origin": h.Origin, "size": h.Size, "rootHash": base64.StdEncoding.EncodeToString(h.RootHash[:]),
					"rootCid": root, "checkpoint": string(h.Checkpoint),
				}, "%s", h.Checkpoint)
			})
		},
	}
	refFlags(cmd, &trust, &origin)
	return cmd
}
