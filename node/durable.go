package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// temporaryPrefix begins the names of the files that writeFile has not renamed yet.
const temporaryPrefix = ".tmp-"

// writeFile replaces a file so that after a crash it holds the old bytes or the
// new ones: write a temporary file in the same folder, fsync it, rename it over
// the old one, fsync the folder. See the man pages of fsync(2) and rename(2).
func writeFile(path string, data []byte, perm fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, temporaryPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDir makes a folder and those above it that are missing, durably.
func makeDir(path string) error {
	err := os.Mkdir(path, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		st, err := os.Stat(path)
		if err == nil && !st.IsDir() {
			err = fmt.Errorf("%s: %w", path, syscall.ENOTDIR)
		}
		return err
	case errors.Is(err, fs.ErrNotExist):
		if err := makeDir(filepath.Dir(path)); err != nil {
			return err
		}
		return makeDir(path)
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes creations, renames and removals in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeFile removes a file durably. That it is not there is no error.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return syncDir(filepath.Dir(path))
}

// cleanTemporary removes what writeFile left behind in a folder when its process
// died.
func cleanTemporary(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, temporaryPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("clean up after a crash: %w", err)
		}
	}
	return nil
}
