package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
)

var (
	// ErrTarget: the target holds something already, or is not a folder.
	ErrTarget = errors.New("target is not an empty folder")
	// ErrBusy: another process restores to the same target.
	ErrBusy = errors.New("another restore writes to this target")
)

// Options configures a restore.
type Options struct {
	// WithoutErased restores a save point also without the documents that its log says
	// are erased and that are not here any more. The target is not the state then that
	// was saved.
	WithoutErased bool
	// Progress, if not nil, is called as documents are verified and written.
	Progress func(Progress)
}

// Progress tells how far a restore is.
type Progress struct {
	Phase     string // "verify" or "write"
	Documents uint64 // done in this phase
	Total     uint64
}

// Restored is what was written, and what could not be.
type Restored struct {
	dag.Totals
	Erased dag.Totals // not written: see Options.WithoutErased
}

// Folder restores the documents of a save point, all of which must be in the
// bank, to the folder target, which must be absent or empty. The error wraps
// ErrTarget, ErrBusy, savepoints.ErrDamaged, savepoints.ErrErased, or is the file
// system's. After an error the target is as it was.
func Folder(ctx context.Context, b *savepoints.Bank, s savepoints.Savepoint, target string, o Options) (Restored, error) {
	target, err := filepath.Abs(target)
	if err != nil {
		return Restored{}, err
	}
	if err := CheckTarget(target); err != nil {
		return Restored{}, err
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	totals := s.Manifest.Totals
	o.Progress(Progress{"verify", 0, totals.Documents})
	verified, err := b.Verify(ctx, s)
	if err != nil {
		return Restored{}, err
	}
	if n := verified.Erased.Documents; n > 0 && !o.WithoutErased {
		return Restored{}, fmt.Errorf("restore %s: %d of its documents are %w, as its log says, and cannot be restored", s.CID, n, savepoints.ErrErased)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return Restored{}, err
	}
	st, err := newStaging(target)
	if err != nil {
		return Restored{}, err
	}
	defer st.release()
	w := &writer{src: b.Repo().Blocks, dir: st.documents(), made: map[string]bool{}, without: verified.Without}
	err = w.writeAll(ctx, s, o.Progress)
	if err == nil {
		err = st.commit(target)
	}
	if err != nil {
		err = fmt.Errorf("restore to %s: %w", target, err)
	}
	return w.done, errors.Join(err, st.remove())
}

// writer writes documents below a folder.
type writer struct {
	src  dag.Source
	dir  string
	made map[string]bool // folders that are there
	// without are the documents that are not there.
	without map[cid.Cid]bool
	done    Restored
}

func (w *writer) writeAll(ctx context.Context, s savepoints.Savepoint, progress func(Progress)) error {
	total := s.Manifest.Totals.Documents
	for doc, err := range dag.Documents(ctx, w.src, s.Manifest.State) {
		if err != nil {
			return err
		}
		if w.without[doc.Link.CID] {
			w.done.Erased.Documents++
			w.done.Erased.Bytes += doc.Bytes
			continue
		}
		if err := w.write(ctx, doc); err != nil {
			return fmt.Errorf("document %q: %w", doc.Path, err)
		}
		w.done.Documents++
		w.done.Bytes += doc.Bytes
		progress(Progress{"write", w.done.Documents, total})
	}
	all := dag.Totals{Documents: w.done.Documents + w.done.Erased.Documents, Bytes: w.done.Bytes + w.done.Erased.Bytes}
	if all != s.Manifest.Totals {
		return fmt.Errorf("wrote %d documents of %d bytes, the manifest says %d of %d",
			all.Documents, all.Bytes, total, s.Manifest.Totals.Bytes)
	}
	return nil
}

func (w *writer) write(ctx context.Context, doc dag.Document) (err error) {
	path := filepath.Join(w.dir, filepath.FromSlash(doc.Path))
	if dir := filepath.Dir(path); !w.made[dir] {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		w.made[dir] = true
	}
	// O_EXCL: names that the file system takes for one must not overwrite each
	// other.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = dag.CopyDocument(ctx, w.src, doc.Link, f) // a write per chunk
	return err
}
