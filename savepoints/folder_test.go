package savepoints_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// writeFolder writes a state as files.
func writeFolder(t *testing.T, s state) string {
	t.Helper()
	dir := t.TempDir()
	for path, text := range s {
		full := filepath.Join(dir, path)
		must(t, os.MkdirAll(filepath.Dir(full), 0o700))
		must(t, os.WriteFile(full, []byte(text), 0o600))
	}
	return dir
}

func openFolder(t *testing.T, dir string) *savepoints.Folder {
	t.Helper()
	f, err := savepoints.OpenFolder(dir)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// readAll reads all documents of a source.
func readAll(s savepoints.Source) (state, []string, error) {
	out := state{}
	var order []string
	for doc, err := range s.Documents(ctx) {
		if err != nil {
			return nil, nil, err
		}
		r, err := doc.Open()
		if err != nil {
			return nil, nil, err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, nil, err
		}
		if err := r.Close(); err != nil {
			return nil, nil, err
		}
		out[doc.Path] = string(data)
		order = append(order, doc.Path)
	}
	return out, order, nil
}

func TestFolder(t *testing.T) {
	want := state{"a": "1", "b/c": "", "b/d/e f.json": "3", "ü/日本.txt": "4", ".hidden": "5", "b.x": "6", strings.Repeat("n", 255): "7"}
	dir := writeFolder(t, want)
	must(t, os.MkdirAll(filepath.Join(dir, "empty/inner"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "b/z"), 0o700))
	f := openFolder(t, dir)
	got, order, err := readAll(f)
	must(t, err)
	if len(got) != len(want) || !slices.IsSorted(order) {
		t.Errorf("%d documents in the order %q", len(got), order)
	}
	for path, text := range want {
		if got[path] != text {
			t.Errorf("%q holds %q", path, got[path])
		}
	}
	if !slices.Equal(f.Dropped, []string{"b/z", "empty", "empty/inner"}) {
		t.Errorf("dropped %q", f.Dropped)
	}
	c, err := f.Consistency(ctx)
	if err != nil || !c.Consistent || c.Method == "" {
		t.Errorf("consistency %+v, %v", c, err)
	}
	if !slices.Equal(f.Dropped, []string{"b/z", "empty", "empty/inner"}) {
		t.Errorf("dropped %q after a look at consistency", f.Dropped)
	}
	// The same documents from elsewhere are the same state.
	b := initBank(t)
	if x, y := take(t, b, f, "p"), take(t, b, want, "p"); x.Manifest.State != y.Manifest.State || x.Manifest.Totals != want.totals() {
		t.Errorf("a folder has state %s, its documents %s", x.Manifest.State, y.Manifest.State)
	}
}

func TestFolderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		add func(dir string) error
		say string
	}{
		"symlink to a file":   {func(dir string) error { return os.Symlink("a", filepath.Join(dir, "odd")) }, "symlink"},
		"symlink to a folder": {func(dir string) error { return os.Symlink("sub", filepath.Join(dir, "odd")) }, "symlink"},
		"dangling symlink":    {func(dir string) error { return os.Symlink("/nowhere", filepath.Join(dir, "sub/odd")) }, "symlink"},
		"pipe":                {func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "odd"), 0o600) }, "pipe"},
		"socket": {func(dir string) error {
			l, err := net.Listen("unix", filepath.Join(dir, "odd"))
			if err == nil {
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}, "socket"},
		"device": {func(dir string) error { return syscall.Mknod(filepath.Join(dir, "odd"), syscall.S_IFCHR|0o600, 1<<8|3) }, "device"},
	} {
		dir := writeFolder(t, state{"a": "1", "sub/b": "2"})
		if err := c.add(dir); err != nil {
			t.Logf("%s is left out: %v", name, err)
			continue
		}
		_, _, err := readAll(openFolder(t, dir))
		if !errors.Is(err, savepoints.ErrUsage) || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), "odd") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Names that no document can have.
	dir := writeFolder(t, state{"a": "1"})
	must(t, os.WriteFile(filepath.Join(dir, "bad\xff"), nil, 0o600))
	if _, _, err := readAll(openFolder(t, dir)); !errors.Is(err, dag.ErrName) {
		t.Errorf("name that is not UTF-8: %v", err)
	}
	deep := writeFolder(t, state{strings.Repeat("d/", dag.MaxNames) + "f": "1"})
	if _, _, err := readAll(openFolder(t, deep)); !errors.Is(err, dag.ErrName) {
		t.Errorf("too deep: %v", err)
	}
	for _, dir := range []string{filepath.Join(dir, "absent"), filepath.Join(dir, "a")} {
		if _, err := savepoints.OpenFolder(dir); !errors.Is(err, savepoints.ErrUsage) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range openFolder(t, dir).Documents(ended) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended: %v", err)
		}
	}
}

// Keys do not get into a save point, wherever in the source a copy of them lies, and what
// looks a little like them does.
func TestFolderKeepsKeysOut(t *testing.T) {
	b := initBank(t)
	file := func(name string) string {
		data, err := os.ReadFile(filepath.Join(b.Repo().Dir(), name))
		must(t, err)
		return string(data)
	}
	key, identity := file("log.key"), file("identity.key")
	var imported bytes.Buffer
	keys := tar.NewWriter(&imported)
	must(t, keys.WriteHeader(&tar.Header{Name: "log.key", Mode: 0o600, Size: int64(len(key))}))
	_, err := keys.Write([]byte(key))
	must(t, err)
	must(t, keys.Close())
	for name, files := range map[string]state{
		"backup":                {"d": "1", "old/backup/identity.key": identity, "old/backup/version": "1\n"},
		"interrupted backup":    {"d": "1", "old/backup/identity.key": identity, "old/backup/packs/00000001.car": "x"},
		"backup without keys":   {"d": "1", "old/backup/version": "1\n", "old/backup/packs/00000001.car": "x", "old/backup/meta/pins/x": "x"},
		"sealed backup":         {"d": "1", "old/backup/version": "1\n", "old/backup/packs/00000012.car.zst": "x", "old/backup/meta/pins/x": "x"},
		"backup as the source":  {"identity.key": identity, "config.toml": ""},
		"keys alone":            {"d": "1", "old/backup/identity.key": identity, "old/backup/ipns.key": file("ipns.key")},
		"keys of a log":         {"d": "1", "old/backup/policy.key": "x", "old/backup/ipns.key": file("ipns.key")},
		"imported keys":         {"d": "1", "old/backup/imported.keys": imported.String()},
		"copy of the log's key": {"d": "1", "old/backup": key},
		"key without newline":   {"d": "1", "old/backup": strings.TrimSpace(key)},
		"key with CRLF":         {"d": "1", "old/backup": strings.TrimSpace(key) + "\r\n"},
		"long file with a key":  {"d": "1", "old/backup": key + strings.Repeat("x", 3<<20)},
	} {
		_, err := b.Take(ctx, openFolder(t, writeFolder(t, files)), savepoints.TakeOptions{Policy: "p"})
		if !errors.Is(err, savepoints.ErrUsage) {
			t.Errorf("%s: %v", name, err)
		} else if _, ok := files["old/backup"]; ok && !strings.Contains(err.Error(), "old/backup") {
			t.Errorf("%s: %v does not say where", name, err)
		}
	}
	harmless := state{
		"version": "1", "packs/x": "", "meta.json": "", "keys/identity.key": "x", "short": "PRIVATE+KEY", "other": "PRIVATE KEY+",
		"inside": "a PRIVATE+KEY+", "config/config.toml": "", "config/version": "",
		// Users' documents that begin like a key stop nothing.
		"begins": "PRIVATE+KEY+", "chat": "PRIVATE+KEY+ is what such files begin with\n", "long": "PRIVATE+KEY+" + strings.Repeat("x", 3<<20),
		"half": strings.TrimSpace(key)[:60], "longer": strings.TrimSpace(key) + "AA\n", "quoted": strings.TrimSpace(key) + " is my key\n",
		// Nor do other programs' files of the same names.
		"app/version": "2.0-beta", "app/packs/textures.car": "x", "app/meta/a": "x", "other-app/identity.key": "x", "other-app/config.toml": "",
		"third/version": "3", "third/packs": "x", "third/meta": "x", "keys/imported.keys": "x", "keys/ipns.key": "x",
	}
	s := take(t, b, openFolder(t, writeFolder(t, harmless)), "p")
	checkDocuments(t, b, s.Savepoint, harmless)
	// A key is one too if its file is read in small pieces.
	for doc, err := range openFolder(t, writeFolder(t, state{"k": key})).Documents(ctx) {
		must(t, err)
		r, err := doc.Open()
		must(t, err)
		if _, err := io.ReadAll(iotest.OneByteReader(r)); !errors.Is(err, savepoints.ErrUsage) {
			t.Errorf("byte by byte: %v", err)
		}
		must(t, r.Close())
	}
}

// meddling is a Folder in which something happens after the first document.
type meddling struct {
	*savepoints.Folder
	meddle func()
}

func (m meddling) Documents(ctx context.Context) iter.Seq2[savepoints.Document, error] {
	return func(yield func(savepoints.Document, error) bool) {
		for d, err := range m.Folder.Documents(ctx) {
			if !yield(d, err) {
				return
			}
		}
		m.meddle()
	}
}

// A folder that changes while it is read is saved, and said to be not of one moment.
func TestFolderChangesWhileRead(t *testing.T) {
	b := initBank(t)
	var dir string
	for name, meddle := range map[string]func() error{
		"nothing":  func() error { return nil },
		"replaced": func() error { return os.WriteFile(filepath.Join(dir, "a"), []byte("other"), 0o600) },
		"touched": func() error {
			return os.Chtimes(filepath.Join(dir, "a"), time.Time{}, time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC))
		},
		"added":          func() error { return os.WriteFile(filepath.Join(dir, "z"), nil, 0o600) },
		"removed":        func() error { return os.Remove(filepath.Join(dir, "s/b")) },
		"renamed":        func() error { return os.Rename(filepath.Join(dir, "s/b"), filepath.Join(dir, "s/c")) },
		"symlink added":  func() error { return os.Symlink("a", filepath.Join(dir, "l")) },
		"folder removed": func() error { return os.RemoveAll(dir) },
	} {
		dir = writeFolder(t, state{"a": "1", "s/b": "2"})
		f := openFolder(t, dir)
		if _, _, err := readAll(meddling{f, func() { must(t, meddle()) }}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c, err := f.Consistency(ctx)
		if err != nil || c.Consistent != (name == "nothing") {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	// In the manifest, too.
	dir = writeFolder(t, state{"a": "1", "s/b": "2"})
	changing := meddling{openFolder(t, dir), func() { must(t, os.WriteFile(filepath.Join(dir, "new"), nil, 0o600)) }}
	if s := take(t, b, changing, "p"); s.Manifest.Consistency.Consistent {
		t.Error("the manifest says that it is of one moment")
	}
	if s := take(t, b, openFolder(t, dir), "p"); !s.Manifest.Consistency.Consistent {
		t.Error("the manifest says that it is not of one moment")
	}
	// A file that has become a way out of the folder is not followed, one that has
	// become a pipe is not waited for.
	outside := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(outside, []byte("secret"), 0o600))
	for name, become := range map[string]func(path string) error{
		"symlink": func(path string) error { return os.Symlink(outside, path) },
		"pipe":    func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"folder":  func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		dir := writeFolder(t, state{"a": "1", "s/b": "2"})
		path := filepath.Join(dir, "a")
		m := meddling{openFolder(t, dir), func() { must(t, errors.Join(os.Remove(path), become(path))) }}
		if _, err := b.Take(ctx, m, savepoints.TakeOptions{Policy: "q"}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	// A file that is gone when it is to be read: no save point without it.
	gone := meddling{openFolder(t, dir), func() { must(t, os.Remove(filepath.Join(dir, "a"))) }}
	if _, err := b.Take(ctx, gone, savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file gone: %v", err)
	}
}
