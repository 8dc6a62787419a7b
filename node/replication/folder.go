package replication

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs/go-cid"
)

// folder takes each item as a CAR file <name>-<root>.car, readable by its owner only.
type folder struct {
	name, dir string
	io        patience
}

func (f *folder) Name() string { return f.name }

// path is that of an item's file.
func (f *folder) path(item Item) string {
	return filepath.Join(f.dir, item.Name+"-"+item.Root.String()+".car")
}

// check refuses a folder that is not there. It is not made: it may be the place where
// something is mounted that is not now.
func (f *folder) check() error {
	st, err := os.Stat(f.dir)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s: %w", f.dir, syscall.ENOTDIR)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", node.ErrUnreachable, err)
	}
	return nil
}

// Push writes the file, unless it is there and whole; it may have more of what was erased
// than the item has. Any other file is replaced, by one that has been read back.
func (f *folder) Push(ctx context.Context, item Item) error {
	return f.io.do(ctx, func(ctx context.Context, moved func()) error { return f.push(ctx, item, moved) })
}

func (f *folder) push(ctx context.Context, item Item, moved func()) error {
	if err := f.check(); err != nil {
		return err
	}
	if item.NotYet != nil {
		return fmt.Errorf("%w: %w", ErrNotYet, item.NotYet)
	}
	path := f.path(item)
	if err := readWhole(ctx, path, item, moved); err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := removeLeftovers(path); err != nil {
		return err
	}
	tmp, err := writeTemporary(ctx, path, item.Write, moved)
	if err != nil {
		return err
	}
	if err := readWhole(ctx, tmp, item, moved); err != nil {
		return errors.Join(fmt.Errorf("it was written and does not read back: %w", err), os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return f.sync()
}

// sync makes the name durable. Not every mounted bucket can.
func (f *folder) sync() error {
	err := durable.Disk{}.SyncDir(f.dir)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}

// temporary is a pattern of the names of files that are not finished. They are of one
// item, so that nobody else's are taken for leftovers.
func temporary(path string) string { return "." + filepath.Base(path) + ".*" }

func removeLeftovers(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ok, _ := filepath.Match(temporary(path), e.Name()); ok { // no name is a bad pattern
			if err := os.Remove(filepath.Join(filepath.Dir(path), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// writeTemporary writes a file beside path and syncs it.
func writeTemporary(ctx context.Context, path string, write func(context.Context, io.Writer) error, moved func()) (name string, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), temporary(path))
	if err != nil {
		return "", err
	}
	err = errors.Join(write(ctx, movingIO{file, ctx, moved}), file.Sync(), file.Close())
	if err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return file.Name(), nil
}

// readWhole reads a CAR file and returns nil if it is an item's, and has all that there is
// below its roots, every byte of it right, but for what the item is without. One that lacks
// less has other roots after the first two, which say why.
func readWhole(ctx context.Context, path string, item Item, moved func()) error {
	file, err := openRegular(path)
	if err != nil {
		return err
	}
	defer file.Close()
	car, err := dag.ReadCAR(movingIO{file, ctx, moved})
	if err != nil {
		return err
	}
	first := min(2, len(item.Roots))
	if len(car.Roots) < first || !slices.Equal(car.Roots[:first], item.Roots[:first]) {
		return fmt.Errorf("%w: it has other roots", dag.ErrMalformed)
	}
	if _, err := car.CopyDAG(ctx, dag.Discard, car.Roots, nil); err != nil {
		return err
	}
	lacks := car.Lacking()
	mayLack := map[cid.Cid]bool{}
	for _, c := range item.Without {
		mayLack[c] = true
	}
	unexplained := slices.ContainsFunc(lacks, func(c cid.Cid) bool { return !mayLack[c] })
	if unexplained || len(lacks) > 0 && len(car.Roots) != len(item.Roots) {
		return fmt.Errorf("%w: %d IPFS blocks are missing", dag.ErrTruncated, len(lacks))
	}
	return nil
}

// openRegular opens a regular file to read. Another kind of file might never be opened
// or read to an end, and a link leads elsewhere.
func openRegular(path string) (*os.File, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return os.Open(path)
}

// Places is the folder itself.
func (f *folder) Places(ctx context.Context, _ Item) (places []Place, err error) {
	dir, err := doValue(ctx, &f.io, func(context.Context, func()) (string, error) {
		if err := f.check(); err != nil {
			return "", err
		}
		dir, err := filepath.EvalSymlinks(f.dir)
		if err != nil {
			err = fmt.Errorf("%w: %w", node.ErrUnreachable, err)
		}
		return dir, err
	})
	if err != nil {
		return nil, err
	}
	return []Place{folderPlace{f, dir}}, nil
}

// folderPlace is a folder as somewhere to ask.
type folderPlace struct {
	*folder
	dir string
}

func (p folderPlace) ID() string                        { return p.dir }
func (p folderPlace) Close() error                      { return nil }
func (p folderPlace) Identity(context.Context) Identity { return Identity{At: []string{p.dir}} }

func (p folderPlace) Blocks(ctx context.Context, item Item, cids []cid.Cid) ([]dag.Block, error) {
	return doValue(ctx, &p.io, func(ctx context.Context, moved func()) ([]dag.Block, error) {
		path, err := p.find(item.Root)
		if err != nil {
			return nil, err
		}
		file, err := openRegular(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in := movingIO{file, ctx, moved}
		return findInCAR(ctx, &skipper{file: in, r: bufio.NewReaderSize(in, skipBuffer)}, cids)
	})
}

// find returns the path of an item's file, whatever name the item had: who asks may not
// know it any more.
func (p folderPlace) find(root cid.Cid) (string, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", node.ErrUnreachable, err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "-"+root.String()+".car") && !strings.HasPrefix(e.Name(), ".") {
			return filepath.Join(p.dir, e.Name()), nil
		}
	}
	return "", fmt.Errorf("%w: no file of %s", dag.ErrNotFound, root)
}
