package savepoints

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

// Folder is a Source that reads every regular file below a folder: a file is a
// document, a folder a collection. Files are opened one at a time and never
// written. It is not safe for concurrent use.
//
// What must not get into a save point, which others fetch, is refused with ErrUsage, and
// the save point with it: a repository or a copy of one, anywhere in the folder, and a
// file whose first line is the secret key of a log or of a witness, whatever its name. What
// only has the names of a repository's files, or begins like a key, is a document as any
// other: documents come from users. Other secrets are not recognized.
type Folder struct {
	root *os.Root
	// repo, if not nil, is a repository that must not be read.
	repo os.FileInfo
	// seen is what each file was when it was listed.
	seen map[string]stamp
	// Dropped are the folders without a file below them, which a state cannot
	// hold; set by Documents, sorted.
	Dropped []string
}

// stamp tells whether a file changed.
type stamp struct {
	size  int64
	mtime int64 // nanoseconds
}

// OpenFolder returns the Source of a folder. The error wraps ErrUsage if dir is
// not one.
func OpenFolder(dir string) (*Folder, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: source: %w", ErrUsage, err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("%w: source %s is not a folder", ErrUsage, dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	return &Folder{root: root}, nil
}

// Close releases the folder.
func (f *Folder) Close() error { return f.root.Close() }

// keepOut makes sure that a repository, whose keys lie in it, is no part of what is
// read: neither around the folder nor below it.
func (f *Folder) keepOut(repo string) error {
	st, err := os.Stat(repo)
	if err != nil {
		return err
	}
	f.repo = st
	dir, err := filepath.Abs(f.root.Name())
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	for ; ; dir = filepath.Dir(dir) {
		if up, err := os.Stat(dir); err == nil && os.SameFile(up, st) {
			return fmt.Errorf("%w: the source lies in the repository %s", ErrUsage, repo)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// Documents lists all files before it returns the first. A symlink, device,
// socket or pipe is refused (ErrUsage): what it stands for is not in the folder. So is a
// repository. A secret key is found when it is read.
func (f *Folder) Documents(ctx context.Context) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		f.seen, f.Dropped = map[string]stamp{}, nil
		if _, err := f.list(ctx, "", f.seen); err != nil {
			yield(Document{}, err)
			return
		}
		paths := make([]string, 0, len(f.seen))
		for path := range f.seen {
			paths = append(paths, path)
		}
		slices.Sort(paths)
		slices.Sort(f.Dropped)
		for _, path := range paths {
			open := func() (io.ReadCloser, error) { return f.open(path) }
			if !yield(Document{Path: path, Open: open}, nil) {
				return
			}
		}
	}
}

// open opens a file that was listed. What has become something else meanwhile, a
// symlink or a pipe, is refused and not waited for.
func (f *Folder) open(path string) (io.ReadCloser, error) {
	file, err := f.root.OpenFile(filepath.FromSlash(path), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: %q in the source has become a %s", ErrUsage, path, kindOf(st.Mode()))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &document{file: file, path: path}, nil
}

// list adds the files below a folder and returns their number.
func (f *Folder) list(ctx context.Context, rel string, files map[string]stamp) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	entries, err := f.readDir(rel)
	if err != nil {
		return 0, fmt.Errorf("read source: %w", err)
	}
	if err := f.checkFolder(rel, entries); err != nil {
		return 0, err
	}
	count := 0
	for _, e := range entries {
		path := e.Name()
		if rel != "" {
			path = rel + "/" + e.Name()
		}
		if _, err := dag.SplitPath(path); err != nil {
			return 0, err
		}
		n := 1
		switch mode := e.Type(); {
		case mode.IsDir():
			if n, err = f.list(ctx, path, files); err != nil {
				return 0, err
			}
			if n == 0 {
				f.Dropped = append(f.Dropped, path)
			}
		case mode.IsRegular():
			info, err := e.Info()
			if err != nil {
				return 0, fmt.Errorf("read source: %w", err)
			}
			files[path] = stamp{info.Size(), info.ModTime().UnixNano()}
		default:
			return 0, fmt.Errorf("%w: %q in the source is a %s", ErrUsage, path, kindOf(mode))
		}
		count += n
	}
	return count, nil
}

func (f *Folder) readDir(rel string) ([]fs.DirEntry, error) {
	if rel == "" {
		rel = "."
	}
	d, err := f.root.Open(filepath.FromSlash(rel))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if st, err := d.Stat(); err != nil || f.repo != nil && os.SameFile(st, f.repo) {
		return nil, errors.Join(err, fmt.Errorf("%w: %q is the repository itself", ErrUsage, rel))
	}
	return d.ReadDir(-1)
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "symlink"
	case mode&fs.ModeDevice != 0:
		return "device"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	}
	return "special file"
}

// Consistency lists the folder again: the documents belong to one moment if no
// file came, went or changed while they were read.
func (f *Folder) Consistency(ctx context.Context) (dag.Consistency, error) {
	now := map[string]stamp{}
	dropped := f.Dropped
	_, err := f.list(ctx, "", now)
	f.Dropped = dropped
	c := dag.Consistency{Method: "unchanged-while-read"}
	if err != nil {
		if ctx.Err() != nil {
			return c, err
		}
		return c, nil // a folder vanished while it was listed: not one moment
	}
	c.Consistent = len(now) == len(f.seen)
	for path, s := range f.seen {
		if now[path] != s {
			c.Consistent = false
		}
	}
	return c, nil
}
