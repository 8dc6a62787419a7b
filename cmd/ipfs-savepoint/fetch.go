package main

import (
	"context"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// fetchedJSON is the result of fetch.
type fetchedJSON struct {
	savepointJSON
	Freshness savepoints.Freshness `json:"freshness"`
}

// fetchFlags says from where save points come.
type fetchFlags struct {
	from            []string
	acceptStale     bool
	swarmKey, trust string
}

func (f *fetchFlags) add(cmd *cobra.Command, otherwise string) {
	cmd.Flags().StringArrayVar(&f.from, "from", nil, "`SOURCE` to ask, beside those that the trust policy names (may be repeated; "+otherwise+")")
	cmd.Flags().BoolVar(&f.acceptStale, "accept-stale", false, "take a log that may not be the newest, where the trust policy demands to know, and say so in the result")
	swarmKeyFlag(cmd, &f.swarmKey)
	trustFlag(cmd, &f.trust)
}

func (e *env) fetchCommand() *cobra.Command {
	var o fetchFlags
	cmd := &cobra.Command{
		Use:   "fetch REF [--from SOURCE] --trust FILE",
		Short: "Bring a save point into the repository and verify it",
		Long: `Bring a save point into the repository and verify it.

The log's newest head at the sources is verified under the trust policy, the
entry by its inclusion proof, and every byte by its CID. Where the trust policy
names witnesses they are asked whether they know of anything newer. A fetch that
was interrupted goes on where it was. Documents that no source has are no failure if
the log says that they were erased. What this repository's own log erased comes back if a
source still has it; the result says so ("returned"), and "erase" has to be run again. A repository is made if there is none.

SOURCE is the URL of a gateway, a multiaddr with /p2p/, a folder of a repository,
an archive, or /ipns/NAME or /ipfs/LOG-ROOT of the log, for which the other sources are
asked. The head in a log root is a floor: what is found must extend it. A URL or a folder
(file:///DIR too) can also be a tlog-tiles prefix, which has the log alone: the save point
comes from the other sources.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := savepoints.ParseRef(args[0])
			if err != nil {
				return err
			}
			return e.toReceive(cmd.Context(), o.trust, func(t trusted) error {
				if err := e.keepSwarmKey(t.Bank, o.swarmKey); err != nil {
					return err
				}
				s, err := e.fetch(cmd.Context(), t, ref, o)
				if err != nil {
					return err
				}
				out := fetchedJSON{newSavepointJSON(s.Savepoint), s.Freshness}
				out.Erased = s.Erased.Documents
				if out.Returned, err = e.returned(cmd.Context(), t.Bank, s.Savepoint); err != nil {
					return err
				}
				return e.result(out, "%s\n", s.CID)
			})
		},
	}
	o.add(cmd, "one is needed")
	return cmd
}

// returned counts what came back that was erased here, and tells of it.
func (e *env) returned(ctx context.Context, b *savepoints.Bank, s savepoints.Savepoint) (uint64, error) {
	n, err := b.Returned(ctx, s)
	if n > 0 {
		e.note("%d documents that log %s says are erased are HERE AGAIN with %s: to remove their bytes run \"erase\" once more", n, b.Origin(), s.CID)
	}
	return n, err
}

// fetch is shared with restore.
func (e *env) fetch(ctx context.Context, t trusted, ref savepoints.Ref, o fetchFlags) (savepoints.Fetched, error) {
	bar := e.progress()
	defer bar.done()
	return t.Fetch(ctx, ref, savepoints.FetchOptions{
		Policy:      t.policy,
		Sources:     e.sources(o.from),
		AcceptStale: o.acceptStale,
		Report:      e.note,
		Progress: func(p node.Progress) {
			bar.update("fetched %d IPFS blocks, %s%s, from %s (%s)", p.Blocks, size(p.Bytes), bar.atMost(p.Bytes, p.Total), p.Source, size(p.SourceBytes))
		},
	})
}
