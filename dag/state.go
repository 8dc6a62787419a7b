package dag

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/ipfs/go-cid"
)

// Document is one document of a state.
type Document struct {
	Path string
	Link Link
	// Bytes is the document's length. For a raw document it is what the
	// directory says; CopyDocument compares it with the bytes.
	Bytes uint64
}

// Documents returns the documents of the state at root in the order of a walk
// that takes the names of each directory bytewise. Each directory is checked to
// be canonical before anything in it is returned. An error ends the walk.
func Documents(ctx context.Context, src Source, root cid.Cid) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		link, err := rootLink(ctx, src, root)
		if err != nil {
			yield(Document{}, fmt.Errorf("state %s: %w", root, err))
			return
		}
		walkDirectory(ctx, src, link, "", 0, yield)
	}
}

// rootLink is the link to a directory of which only the CID is known: its size
// is taken from the node itself.
func rootLink(ctx context.Context, src Source, root cid.Cid) (Link, error) {
	if err := CheckCID(root); err != nil {
		return Link{}, err
	}
	n, err := getNode(ctx, src, root)
	if err != nil {
		return Link{}, err
	}
	_, l := n.block()
	return l, nil
}

// walkDirectory reports whether the walk goes on.
func walkDirectory(ctx context.Context, src Source, link Link, path string, depth int, yield func(Document, error) bool) bool {
	fail := func(err error) bool {
		yield(Document{}, fmt.Errorf("collection %q: %w", path, err))
		return false
	}
	if depth >= MaxNames {
		return fail(fmt.Errorf("%w: more than %d names deep", ErrNotCanonical, MaxNames))
	}
	entries, err := profile.readDirectory(ctx, src, link)
	if err != nil {
		return fail(err)
	}
	if len(entries) == 0 && depth > 0 {
		return fail(fmt.Errorf("%w: an empty collection", ErrNotCanonical))
	}
	for _, e := range entries {
		name := path + e.name
		isDir, err := isDirectory(ctx, src, e.link.CID)
		if err != nil {
			return fail(fmt.Errorf("%q: %w", e.name, err))
		}
		if isDir {
			if !walkDirectory(ctx, src, e.link, name+"/", depth+1, yield) {
				return false
			}
			continue
		}
		length, err := documentBytes(ctx, src, e.link)
		if err != nil {
			return fail(fmt.Errorf("%q: %w", e.name, err))
		}
		if !yield(Document{Path: name, Link: e.link, Bytes: length}, nil) {
			return false
		}
	}
	return true
}

func isDirectory(ctx context.Context, src Source, c cid.Cid) (bool, error) {
	if c.Prefix().Codec == codecRaw {
		return false, nil
	}
	n, err := getNode(ctx, src, c)
	return n.typ == typeDirectory || n.typ == typeHAMTShard, err
}

// ReadDocument returns the bytes of one document of the state at root. The error
// wraps ErrNotFound if there is none at path. It is meant for documents that fit
// into memory; see CopyDocument for others.
func ReadDocument(ctx context.Context, src Source, root cid.Cid, path string) ([]byte, error) {
	names, err := SplitPath(path)
	if err != nil {
		return nil, err
	}
	link, err := rootLink(ctx, src, root)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	for i, name := range names {
		entries, err := profile.readDirectory(ctx, src, link)
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", path, err)
		}
		found := false
		for _, e := range entries {
			if e.name == name {
				link, found = e.link, true
			}
		}
		if !found {
			return nil, fmt.Errorf("read %q: %w", path, ErrNotFound)
		}
		isDir, err := isDirectory(ctx, src, link.CID)
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", path, err)
		}
		// Collections lead to the document, and only to it.
		if last := i == len(names)-1; isDir == last {
			return nil, fmt.Errorf("read %q: %w", path, ErrNotFound)
		}
	}
	var buf bytes.Buffer
	if _, err := CopyDocument(ctx, src, link, &buf); err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return buf.Bytes(), nil
}

// Totals says how much a state holds.
type Totals struct {
	Documents uint64
	Bytes     uint64 // the sum of the documents' lengths
}

// VerifyState reads every byte of the state at root, lays every directory and
// every large document out again, and compares. It stops as soon as there is
// more than limit says, so that a DAG whose parts link one another many times
// over costs no more than the state it claims to be. It returns what it found.
func VerifyState(ctx context.Context, src Source, root cid.Cid, limit Totals) (Totals, error) {
	var t Totals
	for doc, err := range Documents(ctx, src, root) {
		if err != nil {
			return t, err
		}
		t.Documents++
		t.Bytes += doc.Bytes
		if t.Documents > limit.Documents || t.Bytes > limit.Bytes {
			return t, fmt.Errorf("%w: state %s holds more than the %d documents and %d bytes it should", ErrNotCanonical, root, limit.Documents, limit.Bytes)
		}
		if _, err := CopyDocument(ctx, src, doc.Link, io.Discard); err != nil {
			return t, fmt.Errorf("document %q: %w", doc.Path, err)
		}
	}
	return t, nil
}
