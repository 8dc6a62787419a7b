package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"
)

// replicationJSON is how far a save point is at a target.
type replicationJSON struct {
	Target    string `json:"target"`
	Savepoint string `json:"savepoint"`
	Policy    string `json:"policy,omitempty"`
	Sequence  uint64 `json:"sequence,omitempty"`
	State     string `json:"state"`
	Pushed    bool   `json:"pushed"`
	Attempts  int    `json:"attempts"`
	Next      string `json:"next,omitempty"`
	Error     string `json:"error,omitempty"`
}

// replicateOptions are the flags of replicate.
type replicateOptions struct {
	replication.Selection
	all, list bool
}

func (e *env) replicateCommand() *cobra.Command {
	var o replicateOptions
	var trust, origin string
	cmd := &cobra.Command{
		Use:   "replicate [REF | --all]",
		Short: "Bring save points to the other places that config.toml names",
		Long: `Bring save points to the other places that config.toml names ([[replicate]]): a
pinning service, a kubo node, another ipfs-savepoint, a folder.

"serve" does this by itself, soon after each take, and tries again what failed,
after 10 seconds at first and an hour at last. This command tries everything
that is not done once, now. With REF it is about one save point, also one of a
log that is followed. It is done when the target says that it has all of it;
"health" asks for the bytes. A pinning service fetches from this node: without a
running serve the node listens while the command runs.

Exit status: 0 all is done; 4 something is not, and is tried again later; 3 a
save point is damaged here.`,
		Args: rangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && o.all {
				return usagef("either REF or --all")
			}
			if o.list && o.Again {
				return usagef("--list changes nothing, --again does")
			}
			if len(args) == 0 {
				return e.toRead(cmd.Context(), trust, func(t trusted) error {
					return e.replicate(cmd.Context(), t.Bank, o)
				})
			}
			return e.withSavepoint(cmd, args[0], trust, origin, func(b *savepoints.Bank, s savepoints.Savepoint) error {
				o.Roots = []cid.Cid{s.CID}
				return e.replicate(cmd.Context(), b, o)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "all save points (as without REF)")
	f.BoolVar(&o.list, "list", false, "say how far everything is, and do nothing")
	f.BoolVar(&o.Again, "again", false, "also what was done before: the target is asked, and gets what it lacks")
	f.StringArrayVar(&o.Targets, "to", nil, "only to the target `NAME` (may be repeated)")
	refFlags(cmd, &trust, &origin)
	return cmd
}

func (e *env) replicate(ctx context.Context, b *savepoints.Bank, o replicateOptions) error {
	q := b.Replication()
	if len(q.Targets()) == 0 {
		return usagef("config.toml has no [[replicate]] that says where to")
	}
	if o.list {
		list, err := q.List(ctx, o.Selection)
		if err != nil {
			return err
		}
		return e.printReplication(ctx, b, list, true)
	}
	stop := e.listenFor(ctx, b)
	list, err := q.Once(ctx, o.Selection, nil)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	if err := e.printReplication(ctx, b, list, false); err != nil {
		return err
	}
	return notReplicated(list)
}

// listenFor makes the node listen while a command runs in which a pinning service has
// to fetch from it, unless a serve does already. That it cannot is said, and no more:
// a service may know others to fetch from.
func (e *env) listenFor(ctx context.Context, b *savepoints.Bank) (stop func() error) {
	needed := false
	for _, r := range b.Repo().Config.Replicate {
		needed = needed || r.Kind == node.ReplicaPinningService || r.Kind == node.ReplicaSavepoint
	}
	if !needed || e.bank != nil {
		return func() error { return nil }
	}
	config := b.Repo().Config
	n, err := b.Repo().Serve(ctx, node.ServeOptions{
		Gateway: "127.0.0.1:0", Swarm: config.Swarm, Peers: config.Peers, Logs: b.LogRoot,
	})
	if err != nil {
		e.note("no pinning service can fetch from this node: %v", err)
		return func() error { return nil }
	}
	b.Replication().Listen(n)
	return func() error {
		b.Replication().Listen(nil)
		return n.Close()
	}
}

// notReplicated is the error of what is not done, or nil.
func notReplicated(list []replication.Status) error {
	waiting := 0
	var damaged error
	for _, s := range list {
		if s.State != replication.Done {
			waiting++
		}
		if errors.Is(s.Err, savepoints.ErrDamaged) {
			damaged = s.Err
		}
	}
	if waiting == 0 {
		return nil
	}
	if damaged != nil {
		return fmt.Errorf("%d of %d: %w", waiting, len(list), damaged)
	}
	return fmt.Errorf("%w: %d of %d", savepoints.ErrNotReplicated, waiting, len(list))
}

// printReplication prints how far save points are; all: also those that were there
// before.
func (e *env) printReplication(ctx context.Context, b *savepoints.Bank, list []replication.Status, all bool) error {
	out := make([]replicationJSON, len(list))
	names := map[cid.Cid]replicationJSON{}
	for i, s := range list {
		j, ok := names[s.Root]
		if !ok {
			j = replicationJSON{Savepoint: s.Root.String()}
			if found, err := b.Resolve(ctx, savepoints.Ref{CID: s.Root}, ""); err == nil {
				j.Policy, j.Sequence = found.Manifest.Policy.ID, found.Manifest.Sequence
			}
			names[s.Root] = j
		}
		j.Target, j.State, j.Pushed, j.Attempts, j.Error = s.Target, string(s.State), s.Pushed, s.Attempts, s.Reason
		if !s.Next.IsZero() {
			j.Next = s.Next.UTC().Format(time.RFC3339)
		}
		out[i] = j
	}
	if e.json {
		return e.print(map[string]any{"replication": out})
	}
	for _, j := range out {
		if _, err := fmt.Fprintln(e.out, j.line()); err != nil {
			return err
		}
	}
	if len(out) == 0 && !all {
		e.note("nothing is waiting")
	}
	return nil
}

func (j replicationJSON) line() string {
	line := fmt.Sprintf("%-8s %-16s %s@%d  %s", j.State, j.Target, j.Policy, j.Sequence, j.Savepoint)
	if j.Error != "" {
		line += ": " + j.Error
	}
	if j.Next != "" {
		line += fmt.Sprintf(" (attempt %d; next %s)", j.Attempts, j.Next)
	}
	return line
}

// replicating replicates while serve runs.
func (e *env) replicating(ctx context.Context, b *savepoints.Bank, n *node.Network) {
	q := b.Replication()
	q.Listen(n)
	defer q.Listen(nil)
	q.Run(ctx, func(s replication.Status) {
		switch {
		case !s.Root.Defined():
			e.note("replicating to %s: %s", s.Target, s.Reason)
		case s.State == replication.Done:
			e.note("replicated %s to %s", s.Root, s.Target)
		default:
			e.note("replicating %s to %s: %s; next try %s", s.Root, s.Target, s.Reason, s.Next.Format(time.RFC3339))
		}
	})
}
