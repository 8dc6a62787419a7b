package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// Files that are named on the command line. What is read is a regular file, so that a pipe
// keeps nobody waiting, least of all a serve that executes the command. What is written is
// new, and appears when it is complete and on disk.

// maxKeyFile bounds files of keys, in bytes; none has a tenth of it.
const maxKeyFile = 1 << 20

// openFile opens a file to read; what says what it is for.
func (e *env) openFile(what, file string) (*os.File, error) {
	f, err := node.OpenFile(e.path(file))
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", savepoints.ErrUsage, what, err)
	}
	return f, err
}

// readFile reads a short file.
func (e *env) readFile(what, file string, limit int64) ([]byte, error) {
	data, err := node.ReadFile(e.path(file), limit)
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", savepoints.ErrUsage, what, err)
	}
	return data, err
}

// readTrust reads a trust policy.
func (e *env) readTrust(file string) ([]byte, error) {
	return e.readFile("trust policy", file, anchor.MaxPolicySize)
}

// checkNew refuses a file that cannot be made, before there is any work.
func (e *env) checkNew(file string) error {
	path := e.path(file)
	if _, err := os.Lstat(path); err == nil {
		return usagef("%s is there already", path)
	}
	if st, err := os.Stat(filepath.Dir(path)); err != nil || !st.IsDir() {
		return usagef("%s: no such folder", filepath.Dir(path))
	}
	return nil
}

// writeNew writes a file that is not there yet, and returns its length.
func (e *env) writeNew(file string, perm fs.FileMode, fill func(io.Writer) error) (int64, error) {
	if err := e.checkNew(file); err != nil {
		return 0, err
	}
	n, err := node.WriteNewFile(e.path(file), perm, fill)
	if errors.Is(err, fs.ErrExist) {
		err = usagef("%s is there already", e.path(file)) // it came meanwhile
	}
	return n, err
}

func (e *env) writeNewBytes(file string, perm fs.FileMode, data []byte) error {
	_, err := e.writeNew(file, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	return err
}
