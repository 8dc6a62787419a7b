package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/spf13/cobra"
)

func (e *env) showCommand() *cobra.Command {
	var trust, origin string
	cmd := &cobra.Command{
		Use:   "show REF",
		Short: "Print the manifest of a save point and where it is anchored",
		Long: `Print the manifest of a save point and where it is anchored.

"erased by the log" (JSON: erasedByLog) is how many of its documents the log says are
erased, as "list" says it.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withSavepoint(cmd, args[0], trust, origin, func(b *savepoints.Bank, s savepoints.Savepoint) error {
				data, err := b.Repo().Blocks.Get(cmd.Context(), s.CID)
				if err != nil {
					return err
				}
				n, err := dag.DecodeCBOR(data, dag.MaxManifestSize)
				if err != nil {
					return err
				}
				var manifest bytes.Buffer
				if err := dagjson.Encode(n, &manifest); err != nil {
					return err
				}
				pinned, err := b.Repo().Pinned(s.CID)
				if err != nil {
					return err
				}
				erased, err := e.erasedByLog(cmd.Context(), b, s)
				if err != nil {
					return err
				}
				if e.json {
					out := map[string]any{
						"savepoint": s.CID.String(), "state": s.Manifest.State.String(), "pinned": pinned,
						"anchor":   map[string]any{"origin": s.Origin, "logIndex": s.LogIndex},
						"manifest": json.RawMessage(manifest.Bytes()),
					}
					if erased[0] != 0 {
						out["erasedByLog"] = erased[0]
					}
					return e.print(out)
				}
				var indented bytes.Buffer
				if err := json.Indent(&indented, manifest.Bytes(), "", "  "); err != nil {
					return err
				}
				documents := fmt.Sprint(s.Manifest.Totals.Documents)
				if erased[0] != 0 {
					documents += fmt.Sprintf(", %s", erased[0])
				}
				_, err = fmt.Fprintf(e.out, "save point  %s\nstate       %s\nlog         %s, entry %d\npinned      %t\ndocuments   %s\nmanifest    (DAG-JSON)\n%s\n",
					s.CID, s.Manifest.State, s.Origin, s.LogIndex, pinned, documents, indented.Bytes())
				return err
			})
		},
	}
	refFlags(cmd, &trust, &origin)
	return cmd
}

// refFlags adds the flags of a command that takes a REF from the repository.
func refFlags(cmd *cobra.Command, trust, origin *string) {
	trustFlag(cmd, trust)
	cmd.Flags().StringVar(origin, "log", "", "`ORIGIN` of the log, where several are held")
}

// withSavepoint runs f with a save point that the repository holds.
func (e *env) withSavepoint(cmd *cobra.Command, refText, trust, origin string, f func(*savepoints.Bank, savepoints.Savepoint) error) error {
	ref, err := savepoints.ParseRef(refText)
	if err != nil {
		return err
	}
	return e.toRead(cmd.Context(), trust, func(t trusted) error {
		s, err := t.Resolve(cmd.Context(), ref, t.logOf(origin))
		if err != nil {
			return err
		}
		return f(t.Bank, s)
	})
}
