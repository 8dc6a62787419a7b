package restore

import (
	"context"
	"errors"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
)

// Holds reports whether the folder target holds what [Folder] would write to it, and nothing
// else: an earlier restore wrote it, and nobody has changed it. Then it returns what that
// is. Of o only WithoutErased counts.
func Holds(ctx context.Context, b *savepoints.Bank, s savepoints.Savepoint, target string, o Options) (done Restored, held bool, err error) {
	folder, err := savepoints.OpenFolder(target)
	if err != nil {
		return Restored{}, false, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	files := map[string]savepoints.Document{}
	for file, err := range folder.Documents(ctx) {
		if err != nil {
			return Restored{}, false, err
		}
		files[file.Path] = file
	}
	var absent []cid.Cid
	for doc, err := range dag.Documents(ctx, b.Repo().Blocks, s.Manifest.State) {
		if err != nil {
			return Restored{}, false, err
		}
		file, ok := files[doc.Path]
		if !ok {
			absent = append(absent, doc.Link.CID)
			done.Erased.Documents++
			done.Erased.Bytes += doc.Bytes
			continue
		}
		delete(files, doc.Path)
		if same, err := holds(ctx, file, doc.Link.CID); err != nil || !same {
			return Restored{}, false, err
		}
		done.Documents++
		done.Bytes += doc.Bytes
	}
	if len(files) > 0 || len(folder.Dropped) > 0 {
		return Restored{}, false, nil
	}
	if len(absent) > 0 {
		if held, err := areErased(ctx, b, s, absent, o); err != nil || !held {
			return Restored{}, false, err
		}
	}
	return done, true, nil
}

// holds reports whether a file is a document.
func holds(ctx context.Context, file savepoints.Document, document cid.Cid) (bool, error) {
	r, err := file.Open()
	if err != nil {
		return false, err
	}
	link, _, err := dag.WriteDocument(ctx, dag.Discard, r)
	return link.CID == document, errors.Join(err, r.Close())
}

// areErased reports whether a restore leaves documents of a save point out.
func areErased(ctx context.Context, b *savepoints.Bank, s savepoints.Savepoint, documents []cid.Cid, o Options) (bool, error) {
	if !o.WithoutErased {
		return false, nil
	}
	verified, err := b.Verify(ctx, s)
	if err != nil {
		return false, err
	}
	for _, c := range documents {
		if !verified.Without[c] {
			return false, nil
		}
	}
	return true, nil
}
