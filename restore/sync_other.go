//go:build !linux

package restore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// syncTree makes every file and folder below dir durable.
func syncTree(dir *os.File) error {
	return filepath.WalkDir(dir.Name(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
