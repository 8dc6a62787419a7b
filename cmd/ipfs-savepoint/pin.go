package main

import (
	"fmt"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// pinJSON is a pin in lists: of a save point, with its policy, or of another owner, who
// gave it a name.
type pinJSON struct {
	CID    string `json:"cid"`
	Policy string `json:"policy,omitempty"`
	Owner  string `json:"owner,omitempty"`
	Name   string `json:"name,omitempty"`
	// Replicated are the targets that said they have it.
	Replicated []string `json:"replicated,omitempty"`
}

func newPinJSON(p node.PinInfo) pinJSON {
	if p.Owner == "" {
		return pinJSON{CID: p.CID.String(), Policy: p.Name}
	}
	return pinJSON{CID: p.CID.String(), Owner: p.Owner, Name: p.Name}
}

// line is the pin for people. A name is from outside and may hold anything.
func (p pinJSON) line() string {
	if p.Owner == "" {
		return fmt.Sprintf("%s  %s%s", p.CID, p.Policy, p.replicated())
	}
	return fmt.Sprintf("%s  %s: %q", p.CID, p.Owner, p.Name)
}

func (e *env) pinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pin",
		Short: "Look at pins",
		Args:  exactArgs(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.pinListCommand())
	return cmd
}

func (e *env) pinListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the pins: DAGs whose IPFS blocks are all kept",
		Args:  exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.withBank(cmd.Context(), savepoints.Open, func(b *savepoints.Bank) error {
				pins, err := b.Repo().Pins()
				if err != nil {
					return err
				}
				out := make([]pinJSON, len(pins))
				for i, p := range pins {
					out[i] = newPinJSON(p)
					if p.Owner != "" {
						continue
					}
					if out[i].Replicated, err = b.Replication().DoneAt(p.CID); err != nil {
						return err
					}
				}
				if e.json {
					return e.print(map[string]any{"pins": out})
				}
				for _, p := range out {
					if _, err := fmt.Fprintln(e.out, p.line()); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// replicated says where a pin is besides, for people.
func (p pinJSON) replicated() string {
	if len(p.Replicated) == 0 {
		return ""
	}
	return "  also at " + strings.Join(p.Replicated, ", ")
}
