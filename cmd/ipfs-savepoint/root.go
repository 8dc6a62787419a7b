package main

import (
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// rootCommand makes the whole command tree anew, so that commands which run at
// the same time in one serve share nothing but the repository.
func (e *env) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "ipfs-savepoint",
		Short: "Save the state of long-running policies on IPFS, and restore it",
		Long: `Save the state of long-running policies on IPFS, and restore it.

A save point is the whole state of a policy as an IPLD DAG, pinned in a
repository and anchored in an append-only log that anyone can check. A fresh
host restores it with nothing but the public trust policy of the log and one
place to ask.

REF is a CID, POLICY@N (sequence), POLICY@latest, or POLICY:BLOCKTAG (the newest
at that save-state block). SOURCE is a multiaddr that ends in /p2p/ID, the URL of
a gateway, a CAR file, the folder of a repository, or, of the log alone, /ipns/NAME,
/ipfs/LOG-ROOT, or the URL or the folder of a tlog-tiles prefix.

Exit status: 0 done; 1 failed; 2 usage; 3 verification failed; 4 not found or
not reachable; 5 a person must decide; 6 interrupted, can be run again;
7 the repository is held by a process that cannot be asked.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: no command %q; see \"ipfs-savepoint help\"", savepoints.ErrUsage, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w", savepoints.ErrUsage, err)
	})
	f := root.PersistentFlags()
	f.StringVar(&e.repo, "repo", "", "repository `DIR` (default $IPFS_SAVEPOINT_REPO, else the user's data folder)")
	f.BoolVar(&e.json, "json", false, "print results as JSON")
	f.BoolVar(&e.quiet, "quiet", false, "print results and errors only")
	f.BoolVar(&e.noProgress, "no-progress", false, "print no progress")
	root.AddCommand(
		e.initCommand(), e.demoCommand(), e.serveCommand(), e.versionCommand(),
		e.takeCommand(), e.listCommand(), e.showCommand(), e.verifyCommand(), e.logCommand(),
		e.restoreCommand(), e.fetchCommand(), e.exportCommand(), e.importCommand(),
		e.pinCommand(), e.replicateCommand(), e.healthCommand(), e.gcCommand(), e.retireCommand(), e.eraseCommand(), e.keyCommand(),
	)
	return root
}
