package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

func (e *env) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Show, keep safe and replace the keys of the log",
		Args:  exactArgs(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.keyShowCommand(), e.keyExportCommand(), e.keyImportCommand(), e.keyRotateCommand())
	return cmd
}

// keysJSON is the result of "key show".
type keysJSON struct {
	Origin     string `json:"origin,omitempty"`
	Log        string `json:"log,omitempty"`
	NextLog    string `json:"nextLog,omitempty"`
	PeerID     string `json:"peerId"`
	PrivateIDs bool   `json:"privateIds,omitempty"`
}

func (e *env) keyShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Print the public parts of the repository's keys",
		Args:  exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.withBank(cmd.Context(), savepoints.Open, func(b *savepoints.Bank) error {
				k, err := b.PublicKeys()
				if err != nil {
					return err
				}
				text := ""
				for _, line := range [][2]string{{"log", k.Log}, {"next log key", k.NextLog}, {"peer", k.PeerID}} {
					if line[1] != "" {
						text += fmt.Sprintf("%-12s  %s\n", line[0], line[1])
					}
				}
				return e.result(keysJSON(k), "%s", text)
			})
		},
	}
}

func (e *env) keyExportCommand() *cobra.Command {
	var to []string
	var out string
	cmd := &cobra.Command{
		Use:   "export --to AGE-RECIPIENT -o FILE",
		Short: "Write the keys of the log, encrypted, for a disaster",
		Long: `Write the keys of the log to FILE, encrypted with age to each recipient: what is
needed to continue the log on another host when this one is gone. "age-keygen"
makes an identity and its recipient. FILE is an armored age file; "age -d -i
IDENTITY FILE | tar x" gives the files.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" || len(to) == 0 {
				return usagef("--to AGE-RECIPIENT and -o FILE are needed")
			}
			var recipients []age.Recipient
			for _, text := range to {
				r, err := savepoints.Recipient(text)
				if err != nil {
					return err
				}
				recipients = append(recipients, r)
			}
			return e.withBank(cmd.Context(), savepoints.Open, func(b *savepoints.Bank) error {
				var file bytes.Buffer
				if err := b.ExportKeys(&file, recipients...); err != nil {
					return err
				}
				if err := e.writeNewBytes(out, 0o600, file.Bytes()); err != nil {
					return err
				}
				return e.result(map[string]any{"file": e.path(out), "origin": b.Origin()}, "%s\n", out)
			})
		},
	}
	cmd.Flags().StringArrayVar(&to, "to", nil, "`AGE-RECIPIENT` who can open it (may be repeated)")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`FILE` to write, which must not be there")
	return cmd
}

func (e *env) keyImportCommand() *cobra.Command {
	var c continuing
	var trust string
	cmd := &cobra.Command{
		Use:   "import FILE {-i IDENTITY-FILE | --trust FILE} [--from SOURCE]",
		Short: "Take the keys of a log from an exported file",
		Long: `Take the keys of a log from a file that "key export" wrote, with -i, or from a copy
of its log.key, with --trust, into a repository that has no log of its own; one is
made if there is none. With --from the log is continued at once. Otherwise it can
be read, and "take --from SOURCE" continues it.
` + continueText,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.file = args[0]
			keys, err := e.keysOfOne(c, trust)
			if err != nil {
				return err
			}
			if len(c.from) > 0 {
				if err := e.continueLog(cmd.Context(), keys, c); err != nil {
					return err
				}
				return e.result(map[string]any{"origin": keys.Origin(), "continued": true}, "%s\n", keys.Origin())
			}
			if e.bank != nil {
				return errServing // serve would not know of it
			}
			return e.withBank(cmd.Context(), savepoints.OpenReader, func(b *savepoints.Bank) error {
				if err := b.ImportKeys(keys); err != nil {
					return err
				}
				e.note("the keys of log %s are here; before it can be continued, its newest head has to be found: take --from SOURCE", keys.Origin())
				return e.result(map[string]any{"origin": keys.Origin(), "continued": false}, "%s\n", keys.Origin())
			})
		},
	}
	c.flags(cmd)
	trustFlag(cmd, &trust)
	cmd.Flags().StringArrayVar(&c.from, "from", nil, "`SOURCE` of the log (may be repeated)")
	return cmd
}

func (e *env) keyRotateCommand() *cobra.Command {
	var finish bool
	cmd := &cobra.Command{
		Use:   "rotate [--finish]",
		Short: "Replace the key of the log by another",
		Long: `Replace the key of the log by another, in two steps.

"key rotate" makes the new key. From then on both keys sign: who has trust.policy
and who has trust.next.policy believe the same heads. Give trust.next.policy to
everybody who reads or witnesses the log ("log witness --trust FILE" takes it),
and export the keys again: that export continues the log now and afterwards. If
the file is moved away, "key rotate" writes it again; it makes no other key then.
Then "key rotate --finish" drops the old key, once a quorum of the witnesses
cosigns what the new key alone signs. Heads and archives made before the rotation
are checked with the old policy file.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if e.bank != nil {
				return errServing // serve goes on with the keys that it has
			}
			return e.withBank(cmd.Context(), savepoints.Open, func(b *savepoints.Bank) error {
				if finish {
					if err := b.FinishRotation(cmd.Context()); err != nil {
						return err
					}
				} else if _, err := b.RotateKey(cmd.Context()); err != nil {
					return err
				}
				k, err := b.PublicKeys()
				if err != nil {
					return err
				}
				file := "trust.policy"
				if !finish {
					file = "trust.next.policy"
				}
				path := filepath.Join(b.Repo().Dir(), file)
				e.note("trust policy of the new key: %s", path)
				return e.result(map[string]any{"log": k.Log, "nextLog": k.NextLog, "trust": path}, "%s\n", path)
			})
		},
	}
	cmd.Flags().BoolVar(&finish, "finish", false, "drop the old key")
	return cmd
}

// errServing: a command that gives the repository other keys is called while serve has it
// open.
var errServing = fmt.Errorf("%w: stop serve first", node.ErrHeld)

// serving adds what to do to the error of a command that does not ask serve.
func serving(err error) error {
	if errors.Is(err, node.ErrHeld) && !errors.Is(err, errServing) {
		return fmt.Errorf("%w: stop serve first", err)
	}
	return err
}

// continuing is what a command needs that continues a log on this host.
type continuing struct {
	file        string // of keys
	identity    string
	from        []string
	unwitnessed bool
}

const continueText = `
Before anything is signed, the log's newest head is fetched and a quorum of its
witnesses must say that they have seen nothing newer: the other host may not be
dead. Then each policy of the log enters a new epoch. Where the trust policy
names no witnesses nobody can tell, and --unwitnessed says to go on all the same.
`

func (c *continuing) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.identity, "identity", "i", "", "`IDENTITY-FILE` (age) that opens the exported keys")
	cmd.Flags().BoolVar(&c.unwitnessed, "unwitnessed", false, "continue a log that has no witnesses")
}

// keysOfOne is keys where a trust policy has no other use: what was exported has its own.
func (e *env) keysOfOne(c continuing, trust string) (savepoints.Keys, error) {
	if c.identity != "" && trust != "" {
		return savepoints.Keys{}, usagef("either -i IDENTITY-FILE or --trust FILE: what \"key export\" wrote has the trust policy in it")
	}
	return e.keys(c, trust)
}

// keys reads a file of keys: what "key export" wrote, or a log.key, to which the trust
// policy belongs that is in another file.
func (e *env) keys(c continuing, trust string) (savepoints.Keys, error) {
	data, err := e.readFile("keys", c.file, maxKeyFile)
	if err != nil {
		return savepoints.Keys{}, err
	}
	if strings.HasPrefix(string(data), "PRIVATE+KEY+") {
		if trust == "" {
			return savepoints.Keys{}, fmt.Errorf("%w: --trust FILE says whose log the key in %s is to continue", savepoints.ErrNoTrust, c.file)
		}
		policy, err := e.readTrust(trust)
		if err != nil {
			return savepoints.Keys{}, err
		}
		return savepoints.LogKey(data, policy)
	}
	if c.identity == "" {
		return savepoints.Keys{}, usagef("-i IDENTITY-FILE is missing: %s is no plain log key", c.file)
	}
	text, err := e.readFile("identity", c.identity, maxKeyFile)
	if err != nil {
		return savepoints.Keys{}, err
	}
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return savepoints.Keys{}, usagef("%s holds no age identity", c.identity) // the reason may quote it
	}
	return savepoints.OpenKeys(bytes.NewReader(data), identities...)
}

// continueLog makes the repository the one that writes the log.
func (e *env) continueLog(ctx context.Context, keys savepoints.Keys, c continuing) error {
	return e.takeOver(func(dir string) (*savepoints.Bank, error) {
		return savepoints.Continue(ctx, dir, savepoints.ContinueOptions{
			Keys: keys, Sources: e.sources(c.from), Unwitnessed: c.unwitnessed, Report: e.note,
		})
	})
}

// takeOver runs f, which opens the repository anew, and says what log it writes then.
func (e *env) takeOver(f func(dir string) (*savepoints.Bank, error)) error {
	if e.bank != nil {
		return errServing
	}
	dir, err := e.repoDir()
	if err != nil {
		return err
	}
	b, err := f(dir)
	if err != nil {
		return serving(err)
	}
	e.note("log:           %s, written here from now on\ntrust policy:  %s", b.Origin(), filepath.Join(dir, "trust.policy"))
	return b.Close()
}
