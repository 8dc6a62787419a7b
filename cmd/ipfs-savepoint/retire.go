package main

import (
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

func (e *env) retireCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retire REF",
		Short: "Stop keeping a save point, and say so in the log",
		Long: `Stop keeping a save point that was taken here, and say so in the log.

It is unpinned, and "gc" removes what no other save point needs. The log keeps
its entry for ever, and "list --retired" shows it. Others that have copies keep
them by their own rules.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withSavepoint(cmd, args[0], "", "", func(b *savepoints.Bank, s savepoints.Savepoint) error {
				if err := b.Retire(cmd.Context(), s); err != nil {
					return err
				}
				e.note("%s@%d is retired; \"gc\" gives back its space", s.Manifest.Policy.ID, s.Manifest.Sequence)
				return e.result(map[string]any{"savepoint": s.CID.String(), "retired": true}, "%s\n", s.CID)
			})
		},
	}
	return cmd
}

// retiredJSON is a save point in "list --retired": its manifest may be gone.
type retiredJSON struct {
	Savepoint string `json:"savepoint"`
	Sequence  uint64 `json:"sequence"`
	Epoch     uint64 `json:"epoch"`
	Time      string `json:"time"`
	Origin    string `json:"origin"`
	LogIndex  int64  `json:"logIndex"`
}
