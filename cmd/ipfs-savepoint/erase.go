package main

import (
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"
)

// erasedJSON is the result of erase.
type erasedJSON struct {
	Documents  []string `json:"documents"`  // CIDs
	Entries    []int64  `json:"entries"`    // of the log, appended now
	Savepoints []string `json:"savepoints"` // that have one of the documents
	Blocks     int      `json:"blocks"`     // IPFS blocks that are gone
	Kept       int      `json:"kept"`       // that are needed by something else, and still here
	// KeptFor is who else keeps some of these here.
	KeptFor []keeperJSON `json:"keptFor,omitempty"`
}

// keeperJSON is a save point of another log, or somebody else's pin.
type keeperJSON struct {
	CID   string `json:"cid"`
	Log   string `json:"log,omitempty"`
	Owner string `json:"owner,omitempty"`
}

func (k keeperJSON) String() string {
	if k.Owner != "" {
		return fmt.Sprintf("%s, pinned by %s", k.CID, k.Owner)
	}
	return fmt.Sprintf("save point %s of log %s", k.CID, k.Log)
}

func (e *env) eraseCommand() *cobra.Command {
	var trust, origin string
	cmd := &cobra.Command{
		Use:   "erase REF PATH...",
		Short: "Remove documents for good, and say so in the log",
		Long: `Remove the documents at PATH for good, and say so in the log: personal data, for
instance. This cannot be undone, and the log says it for ever.

A document is one and the same in every save point that has the same bytes, under
whatever path: it is gone from all of them, and the result names these. The log's
entry names its CID and nothing else. What stays of it are CID, name and length in the
directories, so that all save points and proofs can be verified; who has a guess what
the bytes were can still check it. Its bytes leave the repository's files, sealed ones
too, but for parts that other documents have as well.

What is here for others keeps its bytes: save points of other logs, that of a
predecessor (--new-log) among them, and what a pinning client had pinned. The
result names these ("keptFor" in JSON): as long as one of them is kept, the bytes are
still here. "retire --log" gives up a save point of another log; once none keeps
them, run erase again.

"take" refuses such a document from then on. Others who have copies remove nothing
because of it: followers, archives, pinning services. A frozen log cannot say that
something is erased, so nothing more can be. If it is interrupted, or bytes
come back with an import, run it again.`,
		Args: rangeArgs(2, 1<<20),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withSavepoint(cmd, args[0], trust, origin, func(b *savepoints.Bank, s savepoints.Savepoint) error {
				done, err := b.Erase(cmd.Context(), s, args[1:]...)
				if err != nil {
					return err
				}
				out := erasedJSON{Documents: cidTexts(done.Documents), Entries: append([]int64{}, done.Entries...), Savepoints: cidTexts(done.Savepoints), Blocks: done.Blocks, Kept: done.Kept}
				for _, k := range done.KeptFor {
					out.KeptFor = append(out.KeptFor, keeperJSON{k.CID.String(), k.Origin, k.Owner})
				}
				e.note("erased %d documents from %d save points: %d IPFS blocks are gone, %d are kept for others", len(out.Documents), len(out.Savepoints), out.Blocks, out.Kept)
				for _, k := range out.KeptFor {
					e.note("bytes of them are STILL HERE for %s", k)
				}
				text := ""
				for _, c := range out.Documents {
					text += c + "\n"
				}
				return e.result(out, "%s", text)
			})
		},
	}
	refFlags(cmd, &trust, &origin)
	return cmd
}

func cidTexts(cids []cid.Cid) []string {
	out := make([]string, len(cids))
	for i, c := range cids {
		out[i] = c.String()
	}
	return out
}
