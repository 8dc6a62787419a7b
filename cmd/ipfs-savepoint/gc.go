package main

import (
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// collectedJSON is the result of gc. Bytes of blocks are those before compression,
// bytes of the repository those of its files.
type collectedJSON struct {
	LiveBlocks    int64    `json:"liveBlocks"`
	LiveBytes     int64    `json:"liveBytes"`
	GarbageBlocks int64    `json:"garbageBlocks"`
	GarbageBytes  int64    `json:"garbageBytes"`
	RemovedBlocks int64    `json:"removedBlocks"`
	RemovedBytes  int64    `json:"removedBytes"`
	Damaged       int64    `json:"damaged,omitempty"`
	Missing       []string `json:"missing,omitempty"`
	BytesBefore   int64    `json:"bytesBefore"`
	BytesAfter    int64    `json:"bytesAfter"`
}

func (e *env) gcCommand() *cobra.Command {
	var o segments.CollectOptions
	var seal bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what no save point needs; with --seal compress the rest",
		Long: `Remove what no save point needs: IPFS blocks that no pin reaches and no log, such
as those of a take that was interrupted. Space is given back where at least a
quarter of a segment is garbage; --all gives back all of it.

Where something that is needed cannot be read nothing is removed, and the exit
status is 3. Taking, fetching and serving go on meanwhile. It can be interrupted
at any time.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.DryRun && seal {
				return usagef("--dry-run changes nothing, --seal does")
			}
			return e.withBank(cmd.Context(), savepoints.Open, func(b *savepoints.Bank) error {
				return e.collect(cmd, b, o, seal)
			})
		},
	}
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what would be removed, and remove nothing")
	cmd.Flags().BoolVar(&o.All, "all", false, "give back all space, also where much is copied for little")
	cmd.Flags().BoolVar(&seal, "seal", false, "compress all segments (zstd)")
	return cmd
}

func (e *env) collect(cmd *cobra.Command, b *savepoints.Bank, o segments.CollectOptions, seal bool) error {
	blocks := b.Repo().Blocks
	before, err := blocks.Bytes()
	if err != nil {
		return err
	}
	got, err := b.Collect(cmd.Context(), o)
	if err != nil {
		return err
	}
	if seal {
		if err := blocks.Seal(cmd.Context()); err != nil {
			return err
		}
	}
	after, err := blocks.Bytes()
	if err != nil {
		return err
	}
	out := collectedJSON{
		got.LiveBlocks, got.LiveBytes, got.GarbageBlocks, got.GarbageBytes, got.RemovedBlocks, got.RemovedBytes,
		got.Damaged, nil, before, after,
	}
	for _, c := range got.Missing {
		out.Missing = append(out.Missing, c.String())
		e.note("missing: %s; \"verify\" says of which save point", c)
	}
	verb := "removed"
	if o.DryRun {
		verb = "would remove up to"
		got.RemovedBlocks, got.RemovedBytes = got.GarbageBlocks, got.GarbageBytes
	}
	err = e.result(out, "%s %d IPFS blocks, %s; %d, %s, are needed; on disk %s, before %s\n",
		verb, got.RemovedBlocks, size(uint64(got.RemovedBytes)), got.LiveBlocks, size(uint64(got.LiveBytes)),
		size(uint64(after)), size(uint64(before)))
	if err == nil && got.Damaged > 0 {
		err = fmt.Errorf("%w: %d IPFS blocks that are needed; where they are nothing was removed; \"verify\" says of which save point", node.ErrDamaged, got.Damaged)
	}
	return err
}
