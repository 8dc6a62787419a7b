package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// CheckTarget reports whether a restore may write to target: it must be absent, or
// an empty folder that a rename can replace. The error wraps ErrTarget.
func CheckTarget(target string) error {
	st, err := os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: %s goes through a file", ErrTarget, target)
	case err != nil:
		return err
	case !st.IsDir():
		return fmt.Errorf("%w: %s is a file or a symlink", ErrTarget, target)
	}
	names, err := os.ReadDir(target)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: %s holds %q", ErrTarget, target, names[0].Name())
	}
	parent, err := os.Stat(filepath.Dir(target))
	if err != nil {
		return err
	}
	if deviceOf(parent) != deviceOf(st) {
		return fmt.Errorf("%w: %s is a mount point; restore to a folder inside it", ErrTarget, target)
	}
	return nil
}

func deviceOf(st os.FileInfo) uint64 { return uint64(st.Sys().(*syscall.Stat_t).Dev) }

// staging is the folder ".NAME.restoring" beside the target. It holds a mark that
// it is ours, and the documents, until these take the target's name.
type staging struct {
	dir  string
	lock *os.File
}

const (
	stagingMark = "made-by-ipfs-savepoint-restore"
	stagingDocs = "documents"
)

func (st *staging) documents() string { return filepath.Join(st.dir, stagingDocs) }

// newStaging makes an empty staging folder and locks it (flock), after clearing
// one that a killed restore left. A folder that is not certainly ours is not
// touched: the error then wraps ErrTarget.
func newStaging(target string) (*staging, error) {
	dir := filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".restoring")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	lock, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is in the way: %w", ErrTarget, dir, err)
	}
	st := &staging{dir, lock}
	if err := st.prepare(target); err != nil {
		return nil, errors.Join(err, st.lock.Close())
	}
	return st, nil
}

func (st *staging) prepare(target string) error {
	if err := syscall.Flock(int(st.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("%w: %s", ErrBusy, target)
		}
		return fmt.Errorf("lock %s: %w", st.dir, err)
	}
	if err := st.checkOurs(); err != nil {
		return err
	}
	if err := os.RemoveAll(st.documents()); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(st.dir, stagingMark), nil, 0o600); err != nil {
		return err
	}
	return os.Mkdir(st.documents(), 0o777)
}

// checkOurs refuses a folder of another user, one that others may write to, and
// one with anything in it that a restore did not put there.
func (st *staging) checkOurs() error {
	info, err := st.lock.Stat()
	if err != nil {
		return err
	}
	if int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%w: %s is in the way: it is somebody else's", ErrTarget, st.dir)
	}
	found, err := os.ReadDir(st.dir)
	if err != nil {
		return err
	}
	marked := false
	for _, f := range found {
		switch f.Name() {
		case stagingMark:
			marked = true
		case stagingDocs:
		default:
			return fmt.Errorf("%w: %s is in the way: it holds %q", ErrTarget, st.dir, f.Name())
		}
	}
	if len(found) > 0 && !marked {
		return fmt.Errorf("%w: %s is in the way: no restore made it", ErrTarget, st.dir)
	}
	return nil
}

// release ends the use of the folder and leaves it as it is. It ends the lock too where a
// process was forked meanwhile, which has the folder open until it executes a program.
func (st *staging) release() {
	syscall.Flock(int(st.lock.Fd()), syscall.LOCK_UN)
	st.lock.Close()
}

// remove deletes the folder with whatever documents are still in it. The mark goes
// last, so that what a kill leaves is still known to be ours.
func (st *staging) remove() error {
	if err := os.RemoveAll(st.documents()); err != nil {
		return err
	}
	return os.RemoveAll(st.dir)
}

// commit makes all that was written durable and gives the documents the target's
// name. rename(2) replaces an empty folder, and fails if it is not empty any more.
// os.Rename replaces no folder at all.
func (st *staging) commit(target string) error {
	// The folder that was there may have been meant to be private.
	if old, err := os.Lstat(target); err == nil {
		if err := os.Chmod(st.documents(), old.Mode().Perm()); err != nil {
			return err
		}
	}
	if err := syncTree(st.lock); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := syscall.Rename(st.documents(), target); err != nil {
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("%w: %w", ErrTarget, err)
		}
		return fmt.Errorf("rename to %s: %w", target, err)
	}
	parent, err := os.Open(filepath.Dir(target))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}
