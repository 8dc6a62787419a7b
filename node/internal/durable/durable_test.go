package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable/durabletest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func fill(f durable.File) error {
	_, err := f.Write([]byte("new"))
	return err
}

// TestWriteNew: a new file is there, whole and on disk, once it is made; whatever call
// fails, nothing is left, or all of it is there.
func TestWriteNew(t *testing.T) {
	full := errors.New("disk full")
	for _, fault := range []string{"", "create", "write", "sync", "syncdir", "link", "link, rename", "remove"} {
		dir := t.TempDir()
		disk, err := durabletest.New(dir)
		must(t, err)
		disk.Before = func(op durabletest.Op) error {
			if op.Kind == fault || fault == "link, rename" && (op.Kind == "link" || op.Kind == "rename") {
				return full
			}
			return nil
		}
		path := filepath.Join(dir, "file")
		err = durable.On(disk).WriteNew(path, 0o640, fill)
		fine := fault == "" || fault == "link" // where there are no links it is renamed
		if fine != (err == nil) || err != nil && !errors.Is(err, full) {
			t.Errorf("%q fails: %v", fault, err)
		}
		if left := names(t, dir); !fine && fault != "syncdir" && fault != "remove" && len(left) > 0 {
			t.Errorf("%q fails and leaves %v", fault, left)
		}
		if !fine {
			continue
		}
		after := t.TempDir()
		must(t, disk.LosePower(dir, after, nil))
		got, err := os.ReadFile(filepath.Join(after, "file"))
		if left := names(t, dir); err != nil || string(got) != "new" || !slices.Equal(left, []string{"file"}) {
			t.Errorf("%q fails: %q on disk, %v; the folder has %v", fault, got, err, left)
		}
		if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
	}
}

// TestWriteNewUnderUmask: nobody can read what the umask keeps to its owner.
func TestWriteNewUnderUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := filepath.Join(t.TempDir(), "file")
	must(t, durable.WriteNew(path, 0o666, fill))
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestWriteNewReplacesNothing: neither what is there nor what comes meanwhile is replaced,
// be it a link that leads nowhere.
func TestWriteNewReplacesNothing(t *testing.T) {
	for what, there := range map[string]func(path string) error{
		"file":   func(path string) error { return os.WriteFile(path, []byte("old"), 0o600) },
		"link":   func(path string) error { return os.Symlink("nowhere", path) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		for _, meanwhile := range []bool{false, true} {
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			if !meanwhile {
				must(t, there(path))
			}
			err := durable.WriteNew(path, 0o600, func(f durable.File) error {
				if !meanwhile {
					t.Errorf("%s: filled for nothing", what)
				}
				return errors.Join(there(path), fill(f))
			})
			if !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s, meanwhile %v: %v", what, meanwhile, err)
			}
			if got := names(t, dir); !slices.Equal(got, []string{"file"}) {
				t.Errorf("%s: the folder has %v", what, got)
			}
			if what != "file" {
				continue
			}
			if got, err := os.ReadFile(path); string(got) != "old" {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
}
