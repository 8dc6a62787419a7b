package main

import (
	"context"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

func (e *env) fetchCommand() *cobra.Command {
	var trust, swarmKey string
	var from []string
	cmd := &cobra.Command{
		Use:   "fetch REF --from SOURCE --trust FILE",
		Short: "Bring a save point into the repository and verify it",
		Long: `Bring a save point into the repository and verify it.

The log's newest head at the sources is verified under the trust policy, the
entry by its inclusion proof, and every byte by its CID. A fetch that was
interrupted goes on where it was. A repository is made if there is none.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := savepoints.ParseRef(args[0])
			if err != nil {
				return err
			}
			return e.toReceive(cmd.Context(), trust, func(t trusted) error {
				if err := e.keepSwarmKey(t.Bank, swarmKey); err != nil {
					return err
				}
				s, err := e.fetch(cmd.Context(), t, ref, from)
				if err != nil {
					return err
				}
				return e.result(newSavepointJSON(s), "%s\n", s.CID)
			})
		},
	}
	cmd.Flags().StringArrayVar(&from, "from", nil, "`SOURCE` to ask (may be repeated)")
	swarmKeyFlag(cmd, &swarmKey)
	trustFlag(cmd, &trust)
	return cmd
}

// fetch is shared with restore.
func (e *env) fetch(ctx context.Context, t trusted, ref savepoints.Ref, from []string) (savepoints.Savepoint, error) {
	bar := e.progress()
	defer bar.done()
	return t.Fetch(ctx, ref, savepoints.FetchOptions{
		Policy:  t.policy,
		Sources: e.sources(from),
		Report:  e.note,
		Progress: func(p node.Progress) {
			bar.update("fetched %d IPFS blocks, %s%s, from %s (%s)", p.Blocks, size(p.Bytes), bar.atMost(p.Bytes, p.Total), p.Source, size(p.SourceBytes))
		},
	})
}
