package main

import (
	"context"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

func (e *env) logNoteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "note TEXT",
		Short: "Append a remark to the log, which is public for ever",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.say(cmd.Context(), func(b *savepoints.Bank) (int64, error) { return b.Note(cmd.Context(), args[0]) })
		},
	}
}

func (e *env) logFreezeCommand() *cobra.Command {
	var sure bool
	cmd := &cobra.Command{
		Use:   "freeze --for-ever",
		Short: "End the log: nothing can ever be appended to it",
		Long: `End the log: nothing can ever be appended to it.

No save point can be taken any more, none be retired, and no document be erased that the
log does not name as erased already: what personal data must go has to go before.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !sure {
				return usagef("a frozen log takes no save point any more, and cannot be unfrozen; --for-ever says that this is meant")
			}
			return e.say(cmd.Context(), func(b *savepoints.Bank) (int64, error) { return b.Freeze(cmd.Context()) })
		},
	}
	cmd.Flags().BoolVar(&sure, "for-ever", false, "do it")
	return cmd
}

// say appends an entry and prints its index.
func (e *env) say(ctx context.Context, f func(*savepoints.Bank) (int64, error)) error {
	return e.withBank(ctx, savepoints.Open, func(b *savepoints.Bank) error {
		index, err := f(b)
		if err != nil {
			return err
		}
		return e.result(map[string]any{"logIndex": index}, "%d\n", index)
	})
}
