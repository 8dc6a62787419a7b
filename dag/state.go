package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/ipfs/go-cid"
)

// ErrNoDocument: there is no document at a path. It is an ErrNotFound; a missing
// IPFS block is another.
var ErrNoDocument = fmt.Errorf("no document there: %w", ErrNotFound)

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
		d, err := openState(ctx, src, root)
		if err != nil {
			yield(Document{}, err)
			return
		}
		w := walkDocuments{ctx, src, yield}
		w.directory(d, "", 0)
	}
}

// openState reads the top node of the state at root.
func openState(ctx context.Context, src Source, root cid.Cid) (*directory, error) {
	err := CheckCID(root)
	var n node
	if err == nil {
		n, err = getNode(ctx, src, root)
	}
	var d *directory
	if err == nil {
		// Of a state only the CID is known; its size is what its node says.
		d, err = profile.directoryOf(src, Link{root, n.total}, n)
	}
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", root, err)
	}
	return d, nil
}

// openEntry reads the top node of what a directory links to: a collection, or, if
// that is nil, a document of the length that is returned.
func openEntry(ctx context.Context, src Source, link Link) (*directory, uint64, error) {
	if codecOf(link.CID) == codecRaw {
		length, err := rawLength(link)
		return nil, length, err
	}
	n, err := getNode(ctx, src, link.CID)
	if err != nil {
		return nil, 0, err
	}
	if n.typ == typeFile {
		length, err := fileLength(n, link)
		return nil, length, err
	}
	d, err := profile.directoryOf(src, link, n)
	if err == nil && d.isEmpty() {
		err = fmt.Errorf("%w: an empty collection", ErrNotCanonical)
	}
	return d, 0, err
}

type walkDocuments struct {
	ctx   context.Context
	src   Source
	yield func(Document, error) bool
}

// directory reports whether the walk goes on. A path that ends in "/" is that of
// a directory, "" the root's.
func (w *walkDocuments) directory(d *directory, path string, depth int) bool {
	fail := func(err error) bool {
		w.yield(Document{}, fmt.Errorf("collection %q: %w", path, err))
		return false
	}
	if err := checkDepth(depth); err != nil {
		return fail(err)
	}
	entries, err := d.entries(w.ctx)
	if err != nil {
		return fail(err)
	}
	for _, e := range entries {
		sub, length, err := openEntry(w.ctx, w.src, e.link)
		if err != nil {
			w.yield(Document{}, fmt.Errorf("%q: %w", path+e.name, err))
			return false
		}
		if sub != nil {
			if !w.directory(sub, path+e.name+"/", depth+1) {
				return false
			}
			continue
		}
		if !w.yield(Document{Path: path + e.name, Link: e.link, Bytes: length}, nil) {
			return false
		}
	}
	return true
}

// checkDepth refuses a collection below so many names that no document can have
// one more.
func checkDepth(names int) error {
	if names >= MaxNames {
		return fmt.Errorf("%w: more than %d names deep", ErrNotCanonical, MaxNames)
	}
	return nil
}

// Lookup finds the document at path of the state at root, or of the save point
// whose manifest is at root. It reads the nodes on the path, of which each is
// checked to be the only one that can stand in its place. If no document is there
// the error wraps ErrNoDocument, of a state that is canonical elsewhere too.
func Lookup(ctx context.Context, src Source, root cid.Cid, path string) (Document, error) {
	names, err := SplitPath(path)
	if err != nil {
		return Document{}, err
	}
	doc, err := lookup(ctx, src, root, names)
	if err != nil {
		return Document{}, fmt.Errorf("document %q: %w", path, err)
	}
	doc.Path = path
	return doc, nil
}

func lookup(ctx context.Context, src Source, root cid.Cid, names []string) (Document, error) {
	if root.Defined() && codecOf(root) == codecDC {
		m, err := ReadManifest(ctx, src, root)
		if err != nil {
			return Document{}, err
		}
		root = m.State
	}
	d, err := openState(ctx, src, root)
	if err != nil {
		return Document{}, err
	}
	for i, name := range names {
		link, ok, err := d.lookup(ctx, name)
		if err != nil {
			return Document{}, err
		}
		if !ok {
			return Document{}, ErrNoDocument
		}
		sub, length, err := openEntry(ctx, src, link)
		if err != nil {
			return Document{}, err
		}
		// Collections lead to the document, and only to it.
		switch last := i == len(names)-1; {
		case last && sub == nil:
			return Document{Link: link, Bytes: length}, nil
		case last || sub == nil:
			return Document{}, ErrNoDocument
		}
		d = sub
	}
	return Document{}, ErrNoDocument
}

// ReadDocument returns the bytes of one document that [Lookup] finds. It is meant
// for documents that fit into memory; see [CopyDocument] for others.
func ReadDocument(ctx context.Context, src Source, root cid.Cid, path string) ([]byte, error) {
	doc, err := Lookup(ctx, src, root, path)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if _, err := CopyDocument(ctx, src, doc.Link, &buf); err != nil {
		return nil, fmt.Errorf("document %q: %w", path, err)
	}
	return buf.Bytes(), nil
}

// Totals says how much a state holds.
type Totals struct {
	Documents uint64
	Bytes     uint64 // the sum of the documents' lengths
}

// Checked is a Source that knows of some IPFS blocks that they were compared with their
// CIDs a moment ago and are there, as those are that have just been fetched.
type Checked interface {
	Source
	// Checked returns the length of a block of which that is known.
	Checked(c cid.Cid) (length int, ok bool)
}

// VerifyState reads every byte of the state at root, builds every directory and
// every large document again from what it read, and compares. Of a source that is a
// [Checked] it does not read the bytes of documents once more that were compared with
// their CIDs already. It stops as soon as there is more than limit says, so that a
// DAG whose parts link one another many times over costs no more than the state it
// claims to be. It returns what it found.
func VerifyState(ctx context.Context, src Source, root cid.Cid, limit Totals) (Totals, error) {
	return VerifyStateWithout(ctx, src, root, limit, nil)
}

// VerifyStateWithout is VerifyState of a state of which bytes of some documents need not
// be there. mayLack, if not nil, is asked for each document of which bytes are missing or
// damaged, by one goroutine. The nodes of large documents have to be there, as directories have.
func VerifyStateWithout(ctx context.Context, src Source, root cid.Cid, limit Totals, mayLack func(Document) (bool, error)) (Totals, error) {
	var t Totals
	again := NewBuilder(Discard)
	err := pipeline(batchesToRead(ctx, src, root, limit), func(b batchToRead) batchToRead {
		for _, doc := range b.documents {
			_, err := CopyDocument(ctx, src, doc.Link, io.Discard)
			if err == nil {
				continue
			}
			err = fmt.Errorf("document %q: %w", doc.Path, err)
			if mayLack == nil || !errors.Is(err, ErrNoBytes) {
				b.err = err
				break
			}
			b.lacking = append(b.lacking, lacking{doc, err})
		}
		return b
	}, func(b batchToRead) error {
		for _, l := range b.lacking {
			if may, err := mayLack(l.doc); err != nil || !may {
				return errors.Join(l.err, err)
			}
		}
		if b.err != nil {
			return b.err
		}
		for _, doc := range b.documents {
			t.Documents++
			t.Bytes += doc.Bytes
			if err := again.Add(ctx, doc.Path, doc.Link); err != nil {
				return fmt.Errorf("%w: state %s: %w", ErrNotCanonical, root, err)
			}
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	l, err := again.Finish(ctx)
	if err == nil && l.CID != root {
		err = errors.New("built again from its documents it is " + l.CID.String())
	}
	if err != nil {
		return t, fmt.Errorf("%w: state %s: %w", ErrNotCanonical, root, err)
	}
	return t, nil
}

// lacking is a document of which bytes cannot be read.
type lacking struct {
	doc Document
	err error
}

// batchToRead is a few documents of a state, or the error that ends its listing.
type batchToRead struct {
	documents []Document
	lacking   []lacking
	err       error
}

// batchesToRead lists a state in batches of about 256 KiB. More than limit is an
// error, before anything of it is read.
func batchesToRead(ctx context.Context, src Source, root cid.Cid, limit Totals) iter.Seq[batchToRead] {
	return func(yield func(batchToRead) bool) {
		var t Totals
		var next []Document
		bytes := uint64(0)
		for doc, err := range Documents(ctx, src, root) {
			if err == nil {
				t.Documents++
				t.Bytes += doc.Bytes
				if t.Documents > limit.Documents || t.Bytes > limit.Bytes {
					err = fmt.Errorf("%w: state %s holds more than the %d documents and %d bytes it should", ErrNotCanonical, root, limit.Documents, limit.Bytes)
				}
			}
			if err != nil {
				yield(batchToRead{err: err})
				return
			}
			next = append(next, doc)
			if bytes += doc.Bytes; bytes >= 256<<10 || len(next) == 256 {
				if !yield(batchToRead{documents: next}) {
					return
				}
				next, bytes = nil, 0
			}
		}
		yield(batchToRead{documents: next})
	}
}
