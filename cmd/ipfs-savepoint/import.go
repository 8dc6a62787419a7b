package main

import (
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/spf13/cobra"
)

func (e *env) importCommand() *cobra.Command {
	var trust string
	cmd := &cobra.Command{
		Use:   "import FILE.car --trust FILE",
		Short: "Verify an exported save point and keep it in the repository",
		Long: `Verify an exported save point and keep it in the repository.

What this repository's own log erased comes back if the file still has it; the result
says so ("returned"), and "erase" has to be run again.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := e.openFile("archive", args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			return e.toReceive(cmd.Context(), trust, func(t trusted) error {
				bar := e.progress()
				s, err := t.Import(cmd.Context(), f, t.policy, func(got dag.Received) {
					bar.update("read %d IPFS blocks, %s", got.Blocks, size(got.Bytes))
				})
				bar.done()
				if err != nil {
					return err
				}
				erased, err := e.erasedByLog(cmd.Context(), t.Bank, s)
				if err != nil {
					return err
				}
				out := newSavepointJSON(s)
				out.ErasedByLog = erased[0]
				if out.Returned, err = e.returned(cmd.Context(), t.Bank, s); err != nil {
					return err
				}
				return e.result(out, "%s\n", s.CID)
			})
		},
	}
	trustFlag(cmd, &trust)
	return cmd
}
