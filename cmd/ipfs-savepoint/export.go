package main

import (
	"io"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

func (e *env) exportCommand() *cobra.Command {
	var trust, origin string
	cmd := &cobra.Command{
		Use:   "export REF FILE.car",
		Short: "Write a save point, with the proof of its log entry, to a CAR file",
		Long: `Write a save point, with the proof of its log entry, to a CAR file.

Any IPFS tool imports the file; "restore --from FILE.car" restores from it
without a network. Documents that were erased are left out, and the log's entries that
say so are in the file with their proofs. An existing file is not overwritten. Where the
trust policy has a quorum of witnesses, nobody believes a save point before they have seen
it, and it cannot be exported (exit status 4): "take --wait witnessed" waits for them.`,
		Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withSavepoint(cmd, args[0], trust, origin, func(b *savepoints.Bank, s savepoints.Savepoint) error {
				n, err := e.writeNew(args[1], 0o666, func(w io.Writer) error { return b.Export(cmd.Context(), s, w) })
				if err != nil {
					return err
				}
				e.note("%s@%d: %s", s.Manifest.Policy.ID, s.Manifest.Sequence, size(uint64(n)))
				return e.result(map[string]any{"savepoint": s.CID.String(), "file": e.path(args[1]), "bytes": n}, "%s\n", s.CID)
			})
		},
	}
	refFlags(cmd, &trust, &origin)
	return cmd
}
