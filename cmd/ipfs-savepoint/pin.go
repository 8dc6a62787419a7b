package main

import (
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// pinJSON is a pin in lists.
type pinJSON struct {
	CID    string `json:"cid"`
	Policy string `json:"policy"`
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
		Short: "List the pins: save points whose IPFS blocks are all kept",
		Args:  exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.withBank(cmd.Context(), savepoints.Open, func(b *savepoints.Bank) error {
				pins, err := b.Repo().Pins()
				if err != nil {
					return err
				}
				out := make([]pinJSON, len(pins))
				for i, p := range pins {
					out[i] = pinJSON{p.CID.String(), p.Name}
				}
				if e.json {
					return e.print(map[string]any{"pins": out})
				}
				for _, p := range out {
					if _, err := fmt.Fprintf(e.out, "%s  %s\n", p.CID, p.Policy); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
