package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// takenJSON is the result of take.
type takenJSON struct {
	Savepoint string  `json:"savepoint"`
	State     string  `json:"state"`
	Sequence  uint64  `json:"sequence"`
	Height    *uint64 `json:"height,omitempty"`
	Documents uint64  `json:"documents"`
	Changed   uint64  `json:"changed"`
	Bytes     uint64  `json:"bytes"`
	NewBytes  uint64  `json:"newBytes"`
	NewBlocks uint64  `json:"newBlocks"`
	LogIndex  int64   `json:"logIndex"`
	Witnessed bool    `json:"witnessed"`
}

func newTakenJSON(t savepoints.Taken) takenJSON {
	m := t.Manifest
	return takenJSON{
		Savepoint: t.CID.String(), State: m.State.String(), Sequence: m.Sequence, Height: m.Height,
		Documents: m.Totals.Documents, Changed: t.Changed, Bytes: m.Totals.Bytes,
		NewBytes: t.NewBytes, NewBlocks: t.NewBlocks, LogIndex: t.LogIndex, Witnessed: t.Witnessed,
	}
}

func (e *env) takeCommand() *cobra.Command {
	var o savepoints.TakeOptions
	var height, wait string
	var c continuing
	cmd := &cobra.Command{
		Use:   "take SOURCE --policy ID",
		Short: "Save the files of a folder as the next save point of a policy",
		Long: `Save the files of a folder as the next save point of a policy.

Every regular file below SOURCE is a document, every folder a collection. A
repository in it, or a copy of one, and files whose first line is the secret key of
a log or of a witness (PRIVATE+KEY+...) are refused. Other secrets are not known as
such: what is saved, others may fetch. When the command returns, the state, its manifest, its pin and its signed log entry
are on disk. With --height a repeated take of the same state returns the save
point that is there.

A document that was erased (see "erase") is not saved again: the exit status is 5, and
the file's name is said. Change it or take it away.

--wait witnessed waits until the quorum of witnesses that the log's trust policy
demands has cosigned the entry, a minute or as long as is said. If it does not
come about in time, the save point has been taken all the same; the exit status
is 4, and "serve" or a later take goes on asking.

Where "key import" has brought the keys of a log, --from SOURCE continues it
first; see there.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("height") {
				h, err := strconv.ParseUint(height, 10, 63)
				if err != nil {
					return usagef("--height %q is not a number", height)
				}
				o.Height = &h
			}
			var err error
			if o.Witnessed, err = parseWait(wait); err != nil {
				return err
			}
			if o.Policy == "" {
				return usagef("--policy ID is missing")
			}
			folder, err := savepoints.OpenFolder(e.path(args[0]))
			if err != nil {
				return err
			}
			defer folder.Close()
			if len(c.from) > 0 {
				if err := e.continueLog(cmd.Context(), savepoints.Keys{}, c); err != nil {
					return err
				}
			}
			return e.withBank(cmd.Context(), savepoints.Open, func(b *savepoints.Bank) error {
				return e.take(cmd, b, folder, o)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Policy, "policy", "", "`ID` of the policy")
	f.StringArrayVar(&o.Blocks, "block", nil, "`TAG` of the save-state block (may be repeated)")
	f.StringVar(&height, "height", "", "number of executed policy blocks `N`")
	f.StringVar(&wait, "wait", "", "`witnessed[=DURATION]`: wait for the witnesses")
	f.StringArrayVar(&c.from, "from", nil, "`SOURCE` of a log to be continued whose keys were imported (may be repeated)")
	f.BoolVar(&c.unwitnessed, "unwitnessed", false, "continue a log that has no witnesses")
	f.StringVar(&o.Provider, "provider", "folder", "`NAME` of what keeps the state, for the manifest")
	return cmd
}

func (e *env) take(cmd *cobra.Command, b *savepoints.Bank, folder *savepoints.Folder, o savepoints.TakeOptions) error {
	p := e.progress()
	o.Version = version
	o.Progress = func(documents, bytes uint64) { p.update("%d documents, %s", documents, size(bytes)) }
	t, err := b.Take(cmd.Context(), folder, o)
	p.done()
	if err != nil && !t.CID.Defined() {
		return err
	}
	// A save point that is not witnessed in time is there all the same.
	return errors.Join(e.tell(t, folder), err)
}

func (e *env) tell(t savepoints.Taken, folder *savepoints.Folder) error {
	for _, dir := range folder.Dropped {
		e.note("empty folder left out: %s", dir)
	}
	m := t.Manifest
	if t.Existing {
		e.note("this state was saved at this height before")
	}
	if !m.Consistency.Consistent {
		e.note("files changed while they were read: the documents may not belong to one moment")
	}
	at := ""
	if tags := t.Savepoint.Blocks(); len(tags) > 0 {
		at = " at " + strings.Join(tags, ", ")
	}
	e.note("%s@%d%s: %d documents, %s; %d changed, %d new IPFS blocks, %s; log entry %d",
		m.Policy.ID, m.Sequence, at, m.Totals.Documents, size(m.Totals.Bytes), t.Changed, t.NewBlocks, size(t.NewBytes), t.LogIndex)
	return e.result(newTakenJSON(t), "%s\n", t.CID)
}

// waitForWitnesses is how long --wait witnessed waits if it is not said.
const waitForWitnesses = time.Minute

// parseWait reads --wait: empty, "witnessed", or "witnessed=DURATION".
func parseWait(text string) (time.Duration, error) {
	what, limit, limited := strings.Cut(text, "=")
	switch {
	case text == "":
		return 0, nil
	case what != "witnessed":
		return 0, usagef("--wait %q is not witnessed[=DURATION]", text)
	case !limited:
		return waitForWitnesses, nil
	}
	d, err := time.ParseDuration(limit)
	if err != nil || d <= 0 {
		return 0, usagef("--wait %q is not witnessed[=DURATION]", text)
	}
	return d, nil
}
