package restore

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// Holds reports whether the folder target holds the documents of a save point and nothing
// else: an earlier restore wrote it, and nobody has changed it.
func Holds(ctx context.Context, target string, s savepoints.Savepoint) (held bool, err error) {
	folder, err := savepoints.OpenFolder(target)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	var docs []savepoints.Document
	for doc, err := range folder.Documents(ctx) {
		if err != nil {
			return false, err
		}
		docs = append(docs, doc)
	}
	if len(folder.Dropped) > 0 || uint64(len(docs)) != s.Manifest.Totals.Documents {
		return false, nil
	}
	slices.SortFunc(docs, func(a, b savepoints.Document) int { return cmp.Compare(a.Path, b.Path) })
	state := dag.NewBuilder(dag.Discard)
	for _, doc := range docs {
		r, err := doc.Open()
		if err != nil {
			return false, err
		}
		link, _, err := dag.WriteDocument(ctx, dag.Discard, r)
		if err = errors.Join(err, r.Close()); err == nil {
			err = state.Add(ctx, doc.Path, link)
		}
		if err != nil {
			return false, err
		}
	}
	root, err := state.Finish(ctx)
	return err == nil && root.CID == s.Manifest.State, err
}
