// Package durable changes files so that a crash at any instruction, or a loss of
// power, leaves the old state or the new one.
//
// A file is written as a temporary one beside it, synced (fsync(2)), renamed over
// the old one (rename(2)), and its folder synced, since the name belongs to the
// folder. What a process that died left of this is removed by [Clean].
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// TemporaryPrefix begins the names of the files that WriteFile has not renamed yet.
const TemporaryPrefix = ".tmp-"

// WriteFile replaces a file by one that holds data.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return Write(path, perm, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// Write replaces a file so that after a crash it holds the old bytes, or those
// that fill wrote.
func Write(path string, perm fs.FileMode, fill func(*os.File) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, TemporaryPrefix+"*")
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
	if err := fill(f); err != nil {
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
	return SyncDir(dir)
}

// MakeDir makes a folder and those above it that are missing, durably.
func MakeDir(path string) error {
	err := os.Mkdir(path, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		st, err := os.Stat(path)
		if err == nil && !st.IsDir() {
			err = fmt.Errorf("%s: %w", path, syscall.ENOTDIR)
		}
		return err
	case errors.Is(err, fs.ErrNotExist):
		if err := MakeDir(filepath.Dir(path)); err != nil {
			return err
		}
		return MakeDir(path)
	case err != nil:
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes creations, renames and removals in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Remove removes a file durably. That it is not there is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Clean removes what WriteFile left behind in a folder when its process
// died.
func Clean(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, TemporaryPrefix+"*"))
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
