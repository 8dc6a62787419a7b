package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
)

var (
	// ErrNotFile: what was named as a file is a folder, a pipe or a device.
	ErrNotFile = errors.New("not a regular file")
	// ErrTooLong: a file is longer than what it is for can be.
	ErrTooLong = errors.New("file is too long")
)

// OpenFile opens a file that somebody named, to read it. It never waits, as opening or reading
// a pipe does for who writes to it: the error wraps [ErrNotFile] for anything but a regular
// file, or is that of os.Open.
func OpenFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := CheckFile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// CheckFile refuses, with [ErrNotFile], what is not a regular file. It must have been opened
// with O_NONBLOCK.
func CheckFile(f *os.File) error {
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", f.Name(), ErrNotFile)
	}
	return err
}

// ReadFile reads a file as [OpenFile] opens it, of at most limit bytes ([ErrTooLong]).
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: %w: more than %d bytes", path, ErrTooLong, limit)
	}
	return data, err
}

// WriteNewFile makes a file, for somebody who named it, that holds what fill writes, and
// returns its length. It appears under its name when it is complete and on disk, with what
// the umask leaves of perm. An error leaves nothing, but for that of the last sync, after which
// a crash of the machine may take the name away. The error wraps fs.ErrExist if there is such a file already, which is
// never replaced.
func WriteNewFile(path string, perm fs.FileMode, fill func(io.Writer) error) (n int64, err error) {
	err = durable.WriteNew(path, perm, func(f durable.File) error {
		if err := fill(f); err != nil {
			return err
		}
		st, err := f.Stat()
		if err == nil {
			n = st.Size()
		}
		return err
	})
	return n, err
}
