package main

import (
	"context"
	"errors"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/restore"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// restoredJSON is the result of restore.
type restoredJSON struct {
	Savepoint string               `json:"savepoint"`
	State     string               `json:"state"`
	Documents uint64               `json:"documents"`
	Bytes     uint64               `json:"bytes"`
	Erased    uint64               `json:"erased,omitempty"` // documents that are not among them
	Verified  bool                 `json:"verified"`
	Freshness savepoints.Freshness `json:"freshness"`
}

func (e *env) restoreCommand() *cobra.Command {
	var target string
	var withoutErased bool
	var o fetchFlags
	var next afterRestore
	cmd := &cobra.Command{
		Use:   "restore REF --to DIR [--from SOURCE --trust FILE]",
		Short: "Write the documents of a save point to a folder",
		Long: `Write the documents of a save point to a folder, which must be empty or absent.

With --from the save point is fetched first, and without it where it is not in the
repository and the trust policy names places to ask; a fresh host needs nothing but
the trust policy of the log and one source. Everything is verified before anything
is written, and the folder appears whole or not at all. After an interruption
run the same command again: what was fetched is kept.

A save point of which documents were erased, as its log says, is not the state any more
that was saved: it is refused with exit status 5, unless --without-erased says that all
else will do.

To let the policy go on here, --log-key continues its log with the log's key (see
"init"); where the key is lost, --new-log begins another log, whose first entry
names the old one, and which --witness, --quorum, --origin and --private-ids
describe as at "init". Whoever reads needs the trust policy of the new log then.
A further policy of the old log is restored in the same way, and goes on in the log that
the first one began. If the policy cannot go on yet, the same command takes the folder
for restored if nothing in it has changed.`,
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
			// Before anything is fetched: a person has to clear the target, unless this
			// is the second run of a command that has restored it.
			if err := restore.CheckTarget(dir); err != nil && !(next.goesOn() && errors.Is(err, restore.ErrTarget)) {
				return err
			}
			next.stale = o.acceptStale
			if err := e.prepareNext(&next, o.trust, o.from); err != nil {
				return err
			}
			with := e.toRead
			if len(o.from) > 0 || e.namesPlaces(o.trust) {
				with = e.toReceive
			}
			err = with(cmd.Context(), o.trust, func(t trusted) error {
				if err := next.check(t.Bank); err != nil {
					return err
				}
				if err := e.keepSwarmKey(t.Bank, o.swarmKey); err != nil {
					return err
				}
				s, err := e.find(cmd.Context(), t, ref, o)
				if err != nil {
					return err
				}
				if err := next.found(cmd.Context(), s.Savepoint, t); err != nil {
					return err
				}
				return e.restore(cmd.Context(), t.Bank, s, dir, withoutErased, next.goesOn())
			})
			if err != nil {
				return err
			}
			return e.goOn(cmd.Context(), next)
		},
	}
	cmd.Flags().StringVar(&target, "to", "", "the folder `DIR` to write to")
	cmd.Flags().BoolVar(&withoutErased, "without-erased", false, "restore also without the documents that the log says are erased")
	o.add(cmd, "default: the repository itself")
	cmd.Flags().StringVar(&next.file, "log-key", "", "then continue the policy's log, whose key is in `FILE`")
	cmd.Flags().BoolVar(&next.newLog, "new-log", false, "then begin a new log with a takeover of the policy")
	newLogFlags(cmd, &next.init)
	next.flags(cmd)
	return cmd
}

// namesPlaces reports whether a trust policy says where its log is read.
func (e *env) namesPlaces(file string) bool {
	if file == "" {
		return false
	}
	text, err := e.readTrust(file)
	if err != nil {
		return false // whoever reads it next says why
	}
	p, err := anchor.ParsePolicy(text)
	return err == nil && savepoints.NamesPlaces(p)
}

// find gets the save point from the sources, or, if there are none, from the repository
// or the places that the trust policy names.
func (e *env) find(ctx context.Context, t trusted, ref savepoints.Ref, o fetchFlags) (savepoints.Fetched, error) {
	if len(o.from) == 0 {
		s, err := t.Resolve(ctx, ref, t.logOf(""))
		if !errors.Is(err, savepoints.ErrNotFound) || o.trust == "" || !savepoints.NamesPlaces(t.policy) {
			return savepoints.Fetched{Savepoint: s, Freshness: savepoints.FreshnessUnknown}, err
		}
	}
	s, err := e.fetch(ctx, t, ref, o)
	if err == nil {
		_, err = e.returned(ctx, t.Bank, s.Savepoint)
	}
	return s, err
}

// restore writes a save point to a folder; again: which may hold just that already.
func (e *env) restore(ctx context.Context, b *savepoints.Bank, s savepoints.Fetched, dir string, withoutErased, again bool) error {
	bar := e.progress()
	o := restore.Options{
		WithoutErased: withoutErased,
		Progress:      func(p restore.Progress) { bar.update("%s: %d of %d documents", p.Phase, p.Documents, p.Total) },
	}
	t, err := restore.Folder(ctx, b, s.Savepoint, dir, o)
	bar.done()
	if again && errors.Is(err, restore.ErrTarget) {
		if done, held, _ := restore.Holds(ctx, b, s.Savepoint, dir, o); held { // else it is for a person to clear
			t, err = done, nil
		}
	}
	if err != nil {
		return err
	}
	e.note("restored %s@%d to %s: %d documents, %s, every byte verified; %s",
		s.Manifest.Policy.ID, s.Manifest.Sequence, dir, t.Documents, size(t.Bytes), s.Freshness.Words())
	if t.Erased.Documents > 0 {
		e.note("%d documents, %s, were erased and are not there", t.Erased.Documents, size(t.Erased.Bytes))
	}
	return e.result(restoredJSON{
		Savepoint: s.CID.String(), State: s.Manifest.State.String(),
		Documents: t.Documents, Bytes: t.Bytes, Erased: t.Erased.Documents, Verified: true, Freshness: s.Freshness,
	}, "%s\n", s.Manifest.State)
}
