package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

func (e *env) exportCommand() *cobra.Command {
	var trust, origin string
	cmd := &cobra.Command{
		Use:   "export REF FILE.car",
		Short: "Write a save point, with the proof of its log entry, to a CAR file",
		Long: `Write a save point, with the proof of its log entry, to a CAR file.

Any IPFS tool imports the file; "restore --from FILE.car" restores from it
without a network. Documents that were erased are left out, and the log's entries that
say so are in the file with their proofs. An existing file is not overwritten. Where the
trust policy has a quorum of witnesses, nobody believes a save point before they have seen
it, and it cannot be exported (exit status 4): "take --wait witnessed" waits for them.`,
		Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withSavepoint(cmd, args[0], trust, origin, func(b *savepoints.Bank, s savepoints.Savepoint) error {
				n, err := export(cmd, b, s, e.path(args[1]))
				if err != nil {
					return err
				}
				e.note("%s@%d: %s", s.Manifest.Policy.ID, s.Manifest.Sequence, size(uint64(n)))
				return e.result(map[string]any{"savepoint": s.CID.String(), "file": e.path(args[1]), "bytes": n}, "%s\n", s.CID)
			})
		},
	}
	refFlags(cmd, &trust, &origin)
	return cmd
}

// export writes the archive under another name and gives it its own when it is
// complete and on disk.
func export(cmd *cobra.Command, b *savepoints.Bank, s savepoints.Savepoint, path string) (n int64, err error) {
	if _, err := os.Lstat(path); err == nil {
		return 0, usagef("%s is there already", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, usagef("%s: no such folder", filepath.Dir(path))
	}
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(b.Export(cmd.Context(), s, f), f.Sync()); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	st, err := f.Stat()
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return 0, err
	}
	if err := publish(f.Name(), path); err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	return st.Size(), errors.Join(dir.Sync(), dir.Close())
}

// publish gives a file its name. A link, unlike a rename, does not replace a file that
// came meanwhile; where the file system has no links, a rename must do.
func publish(temporary, path string) error {
	err := os.Link(temporary, path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return usagef("%s is there already", path)
	case err != nil:
		return os.Rename(temporary, path)
	}
	return os.Remove(temporary)
}
