package main

import (
	"context"

	"github.com/ipfs-savepoint/ipfs-savepoint/restore"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// restoredJSON is the result of restore.
type restoredJSON struct {
	Savepoint string `json:"savepoint"`
	State     string `json:"state"`
	Documents uint64 `json:"documents"`
	Bytes     uint64 `json:"bytes"`
	Verified  bool   `json:"verified"`
	Freshness string `json:"freshness"`
}

func (e *env) restoreCommand() *cobra.Command {
	var target, trust, swarmKey string
	var from []string
	var next afterRestore
	cmd := &cobra.Command{
		Use:   "restore REF --to DIR [--from SOURCE --trust FILE]",
		Short: "Write the documents of a save point to a folder",
		Long: `Write the documents of a save point to a folder, which must be empty or absent.

With --from the save point is fetched first; a fresh host needs nothing but the
trust policy of the log and one source. Everything is verified before anything
is written, and the folder appears whole or not at all. After an interruption
run the same command again: what was fetched is kept.

To let the policy go on here, --log-key continues its log with the log's key (see
"init"); where the key is lost, --new-log begins another log, whose first entry
names the old one. Whoever reads needs the trust policy of the new log then.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := savepoints.ParseRef(args[0])
			if err != nil {
				return err
			}
			if target == "" {
				return usagef("--to DIR is missing")
			}
			dir := e.path(target)
			// Before anything is fetched: a person has to clear the target.
			if err := restore.CheckTarget(dir); err != nil {
				return err
			}
			if err := e.prepareNext(&next, trust, from); err != nil {
				return err
			}
			with := e.toRead
			if len(from) > 0 {
				with = e.toReceive
			}
			err = with(cmd.Context(), trust, func(t trusted) error {
				if err := next.check(t.Bank); err != nil {
					return err
				}
				if err := e.keepSwarmKey(t.Bank, swarmKey); err != nil {
					return err
				}
				s, err := e.find(cmd.Context(), t, ref, from)
				if err != nil {
					return err
				}
				next.restored(s, t)
				return e.restore(cmd.Context(), t.Bank, s, dir)
			})
			if err != nil {
				return err
			}
			return e.goOn(cmd.Context(), next)
		},
	}
	cmd.Flags().StringVar(&target, "to", "", "the folder `DIR` to write to")
	cmd.Flags().StringArrayVar(&from, "from", nil, "`SOURCE` to ask (may be repeated; default: the repository itself)")
	cmd.Flags().StringVar(&next.file, "log-key", "", "then continue the policy's log, whose key is in `FILE`")
	cmd.Flags().BoolVar(&next.newLog, "new-log", false, "then begin a new log with a takeover of the policy")
	next.flags(cmd)
	swarmKeyFlag(cmd, &swarmKey)
	trustFlag(cmd, &trust)
	return cmd
}

// find gets the save point from the sources, or from the repository if there are none.
func (e *env) find(ctx context.Context, t trusted, ref savepoints.Ref, from []string) (savepoints.Savepoint, error) {
	if len(from) > 0 {
		return e.fetch(ctx, t, ref, from)
	}
	return t.Resolve(ctx, ref, t.logOf(""))
}

func (e *env) restore(ctx context.Context, b *savepoints.Bank, s savepoints.Savepoint, dir string) error {
	bar := e.progress()
	t, err := restore.Folder(ctx, b, s, dir, restore.Options{
		Progress: func(p restore.Progress) { bar.update("%s: %d of %d documents", p.Phase, p.Documents, p.Total) },
	})
	bar.done()
	if err != nil {
		return err
	}
	e.note("restored %s@%d to %s: %d documents, %s, every byte verified; whether it is the newest is not known (no witness was asked)",
		s.Manifest.Policy.ID, s.Manifest.Sequence, dir, t.Documents, size(t.Bytes))
	return e.result(restoredJSON{
		Savepoint: s.CID.String(), State: s.Manifest.State.String(),
		Documents: t.Documents, Bytes: t.Bytes, Verified: true, Freshness: "unknown",
	}, "%s\n", s.Manifest.State)
}
