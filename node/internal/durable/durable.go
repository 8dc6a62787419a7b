// Package durable changes files so that a crash at any instruction, or a loss of
// power, leaves the old state or the new one.
//
// A file is written as a temporary one beside it, synced (fsync(2)), renamed over
// the old one (rename(2)), and its folder synced, since the name belongs to the
// folder. What a process that died left of this is removed by [Clean].
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// TemporaryPrefix begins the names of the files that WriteFile has not renamed yet.
const TemporaryPrefix = ".tmp-"

// Disk changes files by the calls of a [System]; the zero Disk by those of the
// operating system.
type Disk struct{ sys System }

// On returns a Disk that makes its calls to sys.
func On(sys System) Disk { return Disk{sys} }

func (d Disk) system() System {
	if d.sys == nil {
		return operatingSystem{}
	}
	return d.sys
}

// OpenFile opens a file as os.OpenFile does.
func (d Disk) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	return d.system().OpenFile(path, flag, perm)
}

// Open opens a file for reading.
func (d Disk) Open(path string) (File, error) { return d.OpenFile(path, os.O_RDONLY, 0) }

// WriteFile replaces a file by one that holds data.
func (d Disk) WriteFile(path string, data []byte, perm fs.FileMode) error {
	return d.Write(path, perm, func(f File) error {
		_, err := f.Write(data)
		return err
	})
}

// Write replaces a file so that after a crash it holds the old bytes, or those
// that fill wrote.
func (d Disk) Write(path string, perm fs.FileMode, fill func(File) error) error {
	create := func() (File, error) { return d.system().CreateTemp(filepath.Dir(path), TemporaryPrefix+"*") }
	fillAs := func(f File) error {
		if err := f.Chmod(perm); err != nil {
			return err
		}
		return fill(f)
	}
	return d.write(path, create, fillAs, d.system().Rename)
}

// WriteNew makes a file that is not there yet, so that after a crash there is none, or one
// that holds what fill wrote. The error wraps fs.ErrExist if there is one, also if it came
// meanwhile. Of perm the file gets what the process's umask leaves.
func (d Disk) WriteNew(path string, perm fs.FileMode, fill func(File) error) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	create := func() (File, error) {
		temporary := filepath.Join(filepath.Dir(path), TemporaryPrefix+rand.Text())
		return d.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	}
	return d.write(path, create, fill, d.nameNew)
}

// nameNew gives a file its name. A link, unlike a rename, does not replace a file that came
// meanwhile; where the file system has no links, a rename must do.
func (d Disk) nameNew(temporary, path string) error {
	err := d.system().Link(temporary, path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return err
	case err != nil:
		return d.system().Rename(temporary, path)
	}
	if err := d.system().Remove(temporary); err != nil {
		return errors.Join(err, d.system().Remove(path))
	}
	return nil
}

// write fills a temporary file beside path, which create makes, and has name give it that
// name.
func (d Disk) write(path string, create func() (File, error), fill func(File) error, name func(temporary, path string) error) (err error) {
	f, err := create()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			d.system().Remove(f.Name())
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := name(f.Name(), path); err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// MakeDir makes a folder and those above it that are missing, durably.
func (d Disk) MakeDir(path string) error {
	err := os.Mkdir(path, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		st, err := os.Stat(path)
		if err == nil && !st.IsDir() {
			err = fmt.Errorf("%s: %w", path, syscall.ENOTDIR)
		}
		return err
	case errors.Is(err, fs.ErrNotExist):
		if err := d.MakeDir(filepath.Dir(path)); err != nil {
			return err
		}
		return d.MakeDir(path)
	case err != nil:
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// SyncDir makes creations, renames and removals in a folder durable.
func (d Disk) SyncDir(dir string) error { return d.system().SyncDir(dir) }

// Remove removes a file durably. That it is not there is no error.
func (d Disk) Remove(path string) error {
	if err := d.system().Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// Clean removes what WriteFile left behind in a folder when its process
// died.
func (d Disk) Clean(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, TemporaryPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := d.system().Remove(path); err != nil {
			return fmt.Errorf("clean up after a crash: %w", err)
		}
	}
	return nil
}

// WriteFile is [Disk.WriteFile] with the operating system.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return Disk{}.WriteFile(path, data, perm)
}

// MakeDir is [Disk.MakeDir] with the operating system.
func MakeDir(path string) error { return Disk{}.MakeDir(path) }

// WriteNew is [Disk.WriteNew] with the operating system.
func WriteNew(path string, perm fs.FileMode, fill func(File) error) error {
	return Disk{}.WriteNew(path, perm, fill)
}

// Remove is [Disk.Remove] with the operating system.
func Remove(path string) error { return Disk{}.Remove(path) }

// Clean is [Disk.Clean] with the operating system.
func Clean(dir string) error { return Disk{}.Clean(dir) }
