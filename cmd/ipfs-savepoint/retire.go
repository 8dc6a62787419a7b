package main

import (
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

func (e *env) retireCommand() *cobra.Command {
	var trust, origin string
	cmd := &cobra.Command{
		Use:   "retire REF",
		Short: "Stop keeping a save point, and say so in the log",
		Long: `Stop keeping a save point that was taken here, and say so in the log.

It is unpinned, and "gc" removes what no other save point needs. The log keeps
its entry for ever, and "list --retired" shows it. Others that have copies keep
them by their own rules.

With --log ORIGIN, of another log, its save point is given up in this repository only,
and no log says so: what was erased and is kept for a predecessor's save points
(--new-log) goes when these do. Where that log is followed it comes back.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withSavepoint(cmd, args[0], trust, origin, func(b *savepoints.Bank, s savepoints.Savepoint) error {
				own := origin == "" || origin == b.Origin()
				giveUp := b.GiveUp
				if own {
					giveUp = b.Retire
				}
				if err := giveUp(cmd.Context(), s); err != nil {
					return err
				}
				what := "given up here, and no log says so"
				if own {
					what = "retired"
				}
				e.note("%s@%d is %s; \"gc\" gives back its space", s.Manifest.Policy.ID, s.Manifest.Sequence, what)
				return e.result(map[string]any{"savepoint": s.CID.String(), "retired": own}, "%s\n", s.CID)
			})
		},
	}
	refFlags(cmd, &trust, &origin)
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
