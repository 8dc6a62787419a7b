package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/examples/mrv"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"
)

// demoDisasterAfter is how many steps after its last save point host A dies.
const demoDisasterAfter = 3

// newDemoRun is the policy's run at height 0.
func newDemoRun() (*mrv.Runner, error) {
	p, err := mrv.ParsePolicy(mrv.Bundled())
	if err != nil {
		return nil, err
	}
	return mrv.New(p, mrv.Script(demoSeed, demoYears))
}

// stateCID computes the CID of a state without storing anything.
func stateCID(ctx context.Context, docs iter.Seq[mrv.Document]) (string, error) {
	var tree dag.Editor
	for doc := range docs {
		l, _, err := dag.WriteDocument(ctx, dag.Discard, bytes.NewReader(doc.Bytes))
		if err != nil {
			return "", err
		}
		if err := tree.Put(doc.Path, l); err != nil {
			return "", err
		}
	}
	root, err := tree.Apply(ctx, nil, dag.Discard, cid.Undef)
	return root.CID.String(), err
}

// demoHostCommand is host A: a policy engine with a node in the same process. It
// waits for a line on its standard input before it runs, and dies with it.
func (e *env) demoHostCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "host",
		Short:  "Run the policy of the demonstration (used by demo)",
		Hidden: true,
		Args:   exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.withBank(cmd.Context(), savepoints.Open, func(b *savepoints.Bank) error {
				return e.demoHost(cmd.Context(), b)
			})
		},
	}
}

func (e *env) demoHost(ctx context.Context, b *savepoints.Bank) error {
	n, err := b.Repo().Serve(ctx, node.ServeOptions{Gateway: "127.0.0.1:0", Swarm: []string{"/ip4/127.0.0.1/tcp/0"}, Logs: b.LogRoot})
	if err != nil {
		return err
	}
	serving := servingJSON{Gateway: n.GatewayURL(), Swarm: n.Addresses(), PeerID: n.PeerID().String(), PID: os.Getpid()}
	if err := e.print(event{Serving: &serving}); err != nil {
		return errors.Join(err, n.Close())
	}
	stdin := bufio.NewReader(os.Stdin)
	if _, err := stdin.ReadString('\n'); err != nil {
		return errors.Join(err, n.Close())
	}
	return errors.Join(e.demoEngine(ctx, b, stdin), n.Close())
}

// demoEngine runs the policy and takes a save point at each save-state block. At
// the third step after the second save point it stops in the middle.
func (e *env) demoEngine(ctx context.Context, b *savepoints.Bank, stdin io.Reader) error {
	r, err := newDemoRun()
	if err != nil {
		return err
	}
	var saves int
	var disaster uint64
	r.SetHooks(mrv.Hooks{
		Save: func(ctx context.Context, s mrv.SavePoint) error {
			saves++
			if saves == 2 {
				disaster = s.Height + demoDisasterAfter
			}
			return e.demoSave(ctx, b, s)
		},
		Mid: func(height uint64, _ string) {
			if height == disaster {
				e.print(event{Middle: height})
				io.Copy(io.Discard, stdin) // until the end comes
			}
		},
	})
	return r.Run(ctx, 0)
}

// demoSave is all that an engine has to do at a save-state block.
func (e *env) demoSave(ctx context.Context, b *savepoints.Bank, s mrv.SavePoint) error {
	t, err := b.Take(ctx, engineState{s.Documents}, savepoints.TakeOptions{
		Policy: demoPolicy, Blocks: s.Blocks, Height: &s.Height, Provider: "examples/mrv", Version: version,
	})
	if err != nil {
		return err
	}
	return e.print(event{Saved: &demoSave{
		Savepoint: t.CID.String(), Block: strings.Join(s.Blocks, ","), Sequence: t.Manifest.Sequence, Height: s.Height,
	}})
}

// engineState is the state of the policy engine at a step boundary.
type engineState struct{ docs iter.Seq[mrv.Document] }

func (s engineState) Documents(context.Context) iter.Seq2[savepoints.Document, error] {
	return func(yield func(savepoints.Document, error) bool) {
		for doc := range s.docs {
			open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(doc.Bytes)), nil }
			if !yield(savepoints.Document{Path: doc.Path, Open: open}, nil) {
				return
			}
		}
	}
}

func (engineState) Consistency(context.Context) (dag.Consistency, error) {
	return dag.Consistency{Method: "step-boundary", Consistent: true}, nil
}

// demoFinished is what "demo continue" prints.
type demoFinished struct {
	From   uint64 `json:"from"`
	Height uint64 `json:"height"`
	State  string `json:"state"`
}

// demoContinueCommand is the policy engine of host C: it goes on from documents.
func (e *env) demoContinueCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "continue DIR",
		Short:  "Run the policy of the demonstration to its end from restored documents (used by demo)",
		Hidden: true,
		Args:   exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := mrv.ParsePolicy(mrv.Bundled())
			if err != nil {
				return err
			}
			r, err := mrv.LoadFS(p, os.DirFS(e.path(args[0])))
			if err != nil {
				return err
			}
			f := demoFinished{From: r.Height()}
			if err := r.Run(cmd.Context(), 0); err != nil {
				return err
			}
			if !r.Done() {
				return fmt.Errorf("the policy stopped at height %d before its end", r.Height())
			}
			f.Height = r.Height()
			if f.State, err = stateCID(cmd.Context(), r.Documents()); err != nil {
				return err
			}
			return e.result(f, "%s\n", f.State)
		},
	}
}
