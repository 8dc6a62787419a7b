package main

import (
	"path/filepath"
	"reflect"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

func (e *env) initCommand() *cobra.Command {
	var o savepoints.InitOptions
	var c continuing
	var trust string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a repository with a log of its own",
		Long: `Make a repository with a log of its own.

The file trust.policy in the repository is public: whoever restores or audits
needs a copy, from a place that they trust. The file log.key is secret. Without
it, after a disaster, everything can be restored, but the same log cannot be
continued: "ipfs-savepoint key export" writes a copy that only you can open.

With --private-ids the log names policies by a keyed hash of their ids, so that
who sees only the log cannot guess them. Manifests have the ids all the same.

With --witness the log's heads count only once witnesses have cosigned them
(C2SP tlog-witness; "log witness" is one). Then nobody can be shown an older
history, or another one, without the witnesses' consent.

With --hcs the trust policy names a topic of the Hedera Consensus Service and at least
two of its mirror nodes, where readers look for heads newer than what they were shown.
What publishes heads there is a program of its own, ipfs-savepoint-hcs.

With --log-key no log is made: the one of that key is continued here. FILE is a
copy of its log.key, with --trust, or what "key export" wrote, with -i.
` + continueText,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := e.repoDir()
			if err != nil {
				return err
			}
			switch continues := c.file != ""; {
			case continues && !reflect.ValueOf(o).IsZero():
				return usagef("--witness, --quorum, --origin, --private-ids and --hcs describe a new log, and --log-key continues another")
			case !continues && (len(c.from) > 0 || c.unwitnessed || c.identity != "" || trust != ""):
				return usagef("--from, --unwitnessed, -i and --trust are of a log to be continued: --log-key FILE says which")
			case continues:
				keys, err := e.keysOfOne(c, trust)
				if err == nil {
					err = e.continueLog(cmd.Context(), keys, c)
				}
				if err != nil {
					return err
				}
				return e.result(map[string]string{"repo": dir, "origin": keys.Origin(), "trust": filepath.Join(dir, "trust.policy")}, "%s\n", dir)
			}
			b, err := savepoints.Init(cmd.Context(), dir, o)
			if err != nil {
				return serving(err)
			}
			defer b.Close()
			policy := filepath.Join(dir, "trust.policy")
			e.note("log:           %s\ntrust policy:  %s (public: give it to whoever restores or audits)\nlog key:       %s (secret)\nWithout the log key this log cannot be continued after a disaster. Keep a copy elsewhere:\n  ipfs-savepoint key export --repo %s --to AGE-RECIPIENT -o keys.age",
				b.Origin(), policy, filepath.Join(dir, "log.key"), dir)
			return e.result(map[string]string{"repo": dir, "origin": b.Origin(), "trust": policy}, "%s\n", dir)
		},
	}
	newLogFlags(cmd, &o)
	cmd.Flags().StringVar(&c.file, "log-key", "", "continue the log whose key is in `FILE`")
	cmd.Flags().StringArrayVar(&c.from, "from", nil, "`SOURCE` of the log to be continued (may be repeated)")
	trustFlag(cmd, &trust)
	c.flags(cmd)
	return cmd
}

// newLogFlags are those that describe a log to be made.
func newLogFlags(cmd *cobra.Command, o *savepoints.InitOptions) {
	cmd.Flags().StringArrayVar(&o.Witnesses, "witness", nil, "`\"NAME VKEY URL\"` of a witness of the new log (may be repeated)")
	cmd.Flags().IntVar(&o.Quorum, "quorum", 0, "how many `N` of the witnesses must cosign (default: more than half)")
	cmd.Flags().BoolVar(&o.PrivateIDs, "private-ids", false, "name policies in the new log so that their ids cannot be guessed")
	cmd.Flags().StringVar(&o.Topic, "hcs", "", "`\"TOPIC MIRROR-URL MIRROR-URL\"`: a topic of the Hedera Consensus Service for the new log's heads")
	cmd.Flags().StringVar(&o.Origin, "origin", "", "`NAME` of the new log, such as log.example.org/prod (default: a random one)")
}
