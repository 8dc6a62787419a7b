package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// System is the calls by which files are changed: what fails on a full disk, and of
// which a loss of power leaves a part. A test puts another one in its place.
type System interface {
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	CreateTemp(dir, pattern string) (File, error)
	Rename(from, to string) error
	Link(from, to string) error
	Remove(path string) error
	SyncDir(dir string) error
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Writer
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
	Chmod(perm fs.FileMode) error
	Truncate(size int64) error
	Sync() error
}

type operatingSystem struct{}

// A nil *os.File must not become a File that is not nil.
func opened(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (operatingSystem) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	return opened(os.OpenFile(path, flag, perm))
}

func (operatingSystem) CreateTemp(dir, pattern string) (File, error) {
	return opened(os.CreateTemp(dir, pattern))
}

func (operatingSystem) Rename(from, to string) error { return os.Rename(from, to) }
func (operatingSystem) Link(from, to string) error   { return os.Link(from, to) }
func (operatingSystem) Remove(path string) error     { return os.Remove(path) }

func (operatingSystem) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
