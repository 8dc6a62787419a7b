package main

import (
	"fmt"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// healthJSON is the health of a save point.
type healthJSON struct {
	Savepoint string      `json:"savepoint"`
	Policy    string      `json:"policy,omitempty"`
	Sequence  uint64      `json:"sequence"`
	Health    string      `json:"health"`
	Places    []placeJSON `json:"places"`
}

// placeJSON is one place that was asked.
type placeJSON struct {
	Name   string `json:"name"`
	Serves bool   `json:"serves"`
	Reason string `json:"reason,omitempty"`
}

func newHealthJSON(c savepoints.Checked) healthJSON {
	j := healthJSON{Savepoint: c.Savepoint.CID.String(), Sequence: c.Savepoint.Entry.Sequence, Health: string(c.Health)}
	if m := c.Savepoint.Manifest; m != nil {
		j.Policy = m.Policy.ID
	}
	for _, p := range c.Places {
		j.Places = append(j.Places, placeJSON(p))
	}
	return j
}

func (e *env) healthCommand() *cobra.Command {
	var trust, origin string
	var o savepoints.HealthOptions
	cmd := &cobra.Command{
		Use:   "health [REF]",
		Short: "Ask all places for random parts of save points: how many really serve them",
		Long: `Ask all places for random parts of save points: how many really serve them.

Each place is asked for the manifest and other IPFS blocks of the save point,
chosen at random, and each byte that comes is checked. Asked are the repository
itself ("own"), the targets of config.toml ([[replicate]]), its peers, the
mirrors in trust policies, and every --from. A place that was found in two ways
counts once: one peer id, or, where a gateway does not say its own, one address. Without REF it is about all save points in the repository.

  Resilient  two or more places besides this repository serve it
  Healthy    this repository and one other place
  Fragile    one place
  Broken     none

Exit status: 0 all are Resilient or Healthy; 4 one is Fragile or Broken.`,
		Args: rangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Blocks < 1 || o.Blocks > 10_000 {
				return usagef("--blocks is 1 to 10000")
			}
			if o.Timeout <= 0 {
				return usagef("--timeout is more than 0")
			}
			for _, s := range o.Sources {
				if !strings.Contains(s, "://") && !strings.Contains(s, "/p2p/") {
					return usagef("--from %q is neither a multiaddr with /p2p/ nor a URL", s)
				}
			}
			if len(args) == 1 {
				return e.withSavepoint(cmd, args[0], trust, origin, func(b *savepoints.Bank, s savepoints.Savepoint) error {
					return e.health(cmd, b, []savepoints.Savepoint{s}, o)
				})
			}
			return e.toRead(cmd.Context(), trust, func(t trusted) error {
				list, err := t.Receipts(cmd.Context())
				if err != nil {
					return err
				}
				if err := e.noteUntrusted(t, len(list)); err != nil {
					return err
				}
				return e.health(cmd, t.Bank, list, o)
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Blocks, "blocks", savepoints.DefaultHealthBlocks, "ask each place for `N` IPFS blocks of a save point")
	f.DurationVar(&o.Timeout, "timeout", savepoints.DefaultHealthTimeout, "how long one place may take for one save point")
	f.StringArrayVar(&o.Sources, "from", nil, "ask also the gateway or peer at `SOURCE` (may be repeated)")
	refFlags(cmd, &trust, &origin)
	return cmd
}

// health prints the health of save points, as JSON in one document.
func (e *env) health(cmd *cobra.Command, b *savepoints.Bank, list []savepoints.Savepoint, o savepoints.HealthOptions) error {
	out := []healthJSON{}
	bad := 0
	err := b.Health(cmd.Context(), list, o, func(c savepoints.Checked) error {
		j := newHealthJSON(c)
		out = append(out, j)
		if c.Health == savepoints.Fragile || c.Health == savepoints.Broken {
			bad++
		}
		if e.json {
			return nil
		}
		_, err := fmt.Fprint(e.out, j.text())
		return err
	})
	if err == nil && e.json {
		err = e.print(map[string]any{"savepoints": out})
	}
	if err == nil && bad > 0 {
		err = fmt.Errorf("%w: %d of %d are Fragile or Broken", savepoints.ErrFragile, bad, len(out))
	}
	return err
}

func (j healthJSON) text() string {
	var t strings.Builder
	fmt.Fprintf(&t, "%-9s  %s@%d  %s\n", j.Health, j.Policy, j.Sequence, j.Savepoint)
	for _, p := range j.Places {
		if p.Serves {
			fmt.Fprintf(&t, "           %s serves it\n", p.Name)
		} else {
			fmt.Fprintf(&t, "           %s does not: %s\n", p.Name, p.Reason)
		}
	}
	return t.String()
}
