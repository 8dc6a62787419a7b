package restore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/restore"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"pgregory.net/rapid"
)

var ctx = context.Background()

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state is a Source in memory.
type state map[string]string

func (s state) Documents(context.Context) iter.Seq2[savepoints.Document, error] {
	return func(yield func(savepoints.Document, error) bool) {
		for path, text := range s {
			open := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
			if !yield(savepoints.Document{Path: path, Open: open}, nil) {
				return
			}
		}
	}
}

func (state) Consistency(context.Context) (dag.Consistency, error) {
	return dag.Consistency{Method: "memory", Consistent: true}, nil
}

func someState() state {
	s := state{
		"large.bin": strings.Repeat("0123456789abcdef", dag.ChunkSize/10), "empty": "", "one chunk": strings.Repeat("x", dag.ChunkSize),
		"with space/ü 日本.json": "{}", strings.Repeat("n", 255): "longest", "new\nline\t\x01": "odd", "-rf": "dash", ".hidden/.x": "dots", "a\\b": "backslash",
		strings.Repeat("d/", 15) + "deep": "deep",
	}
	for i := range 100 {
		s[fmt.Sprintf("credentials/%03d", i)] = fmt.Sprint(i)
	}
	return s
}

func bank(t *testing.T, s state) (*savepoints.Bank, savepoints.Savepoint) {
	t.Helper()
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b, take(t, b, s)
}

func take(t fataler, b *savepoints.Bank, s state) savepoints.Savepoint {
	t.Helper()
	taken, err := b.Take(ctx, s, savepoints.TakeOptions{Policy: "p"})
	must(t, err)
	return taken.Savepoint
}

// checkFolder compares the files of a folder with a state.
func checkFolder(t fataler, dir string, want state) {
	t.Helper()
	got := state{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is a %v", path, d.Type())
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		got[filepath.ToSlash(rel)] = string(data)
		return err
	}))
	if !maps.Equal(got, want) {
		t.Fatalf("%d files %q, want %d %q", len(got), slices.Sorted(maps.Keys(got)), len(want), slices.Sorted(maps.Keys(want)))
	}
}

// checkOnly: nothing else lies beside the target.
func checkOnly(t fataler, parent string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(parent)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, names) {
		t.Fatalf("%s holds %q, not %q", parent, got, names)
	}
}

func TestRestore(t *testing.T) {
	s := someState()
	b, sp := bank(t, s)
	for name, prepare := range map[string]func(target string) error{
		"absent": func(string) error { return nil },
		"empty":  func(target string) error { return os.Mkdir(target, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			target := filepath.Join(parent, "target")
			must(t, prepare(target))
			last := map[string]restore.Progress{}
			done, err := restore.Folder(ctx, b, sp, target, restore.Options{Progress: func(p restore.Progress) {
				if p.Documents < last[p.Phase].Documents || p.Total != uint64(len(s)) {
					t.Errorf("progress %+v", p)
				}
				last[p.Phase] = p
			}})
			must(t, err)
			if done.Totals != sp.Manifest.Totals || last["write"].Documents != uint64(len(s)) {
				t.Errorf("done %+v, progress %+v", done, last)
			}
			checkFolder(t, target, s)
			checkOnly(t, parent, "target")
		})
	}
	t.Run("parents absent", func(t *testing.T) {
		target := filepath.Join(t.TempDir(), "a/b/c")
		_, err := restore.Folder(ctx, b, sp, target, restore.Options{})
		must(t, err)
		checkFolder(t, target, s)
	})
	t.Run("relative, with slash", func(t *testing.T) {
		t.Chdir(t.TempDir())
		_, err := restore.Folder(ctx, b, sp, "here/", restore.Options{})
		must(t, err)
		checkFolder(t, "here", s)
	})
}

// Whatever is at the target stays as it is.
func TestTargetInUse(t *testing.T) {
	b, sp := bank(t, state{"a": "1"})
	for name, prepare := range map[string]func(target string) error{
		"not empty": func(target string) error { return os.MkdirAll(filepath.Join(target, "sub"), 0o700) },
		"hidden file": func(target string) error {
			return errors.Join(os.Mkdir(target, 0o700), os.WriteFile(filepath.Join(target, ".x"), nil, 0o600))
		},
		"file":             func(target string) error { return os.WriteFile(target, []byte("mine"), 0o600) },
		"dangling symlink": func(target string) error { return os.Symlink("nowhere", target) },
		"symlink to an empty folder": func(target string) error {
			return errors.Join(os.Mkdir(target+".real", 0o700), os.Symlink(target+".real", target))
		},
		"symlink to a file": func(target string) error {
			return errors.Join(os.WriteFile(target+".real", nil, 0o600), os.Symlink(target+".real", target))
		},
		"pipe": func(target string) error { return syscall.Mkfifo(target, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			target := filepath.Join(parent, "target")
			must(t, prepare(target))
			before := picture(t, parent)
			_, err := restore.Folder(ctx, b, sp, target, restore.Options{})
			if !errors.Is(err, restore.ErrTarget) {
				t.Errorf("error %v", err)
			}
			if after := picture(t, parent); !slices.Equal(before, after) {
				t.Errorf("%q became %q", before, after)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := restore.Folder(ctx, b, sp, filepath.Join(file, "target"), restore.Options{}); err == nil {
		t.Error("restored below a file")
	}
}

// picture lists all below a folder: path, kind, and what a file or symlink says.
func picture(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		says := ""
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			says = string(data)
		case d.Type()&fs.ModeSymlink != 0:
			if says, err = os.Readlink(path); err != nil {
				return err
			}
		}
		out = append(out, fmt.Sprint(path, d.Type(), says))
		return nil
	}))
	return out
}

// Of two restores to one target the second is refused while the first runs, and
// the first is not disturbed.
func TestTwoRestores(t *testing.T) {
	s := someState()
	b, sp := bank(t, s)
	target := filepath.Join(t.TempDir(), "target")
	tried := false
	_, err := restore.Folder(ctx, b, sp, target, restore.Options{Progress: func(p restore.Progress) {
		if p.Phase != "write" || p.Documents != 50 {
			return
		}
		tried = true
		if _, err := restore.Folder(ctx, b, sp, target, restore.Options{}); !errors.Is(err, restore.ErrBusy) {
			t.Errorf("second restore: %v", err)
		}
	}})
	must(t, err)
	if !tried {
		t.Error("no second restore was tried")
	}
	checkFolder(t, target, s)
	if _, err := restore.Folder(ctx, b, sp, target, restore.Options{}); !errors.Is(err, restore.ErrTarget) {
		t.Errorf("restore over a restore: %v", err)
	}
}

// Something appears at the target meanwhile: it is not overwritten.
func TestTargetFillsMeanwhile(t *testing.T) {
	b, sp := bank(t, someState())
	parent := t.TempDir()
	target := filepath.Join(parent, "target")
	_, err := restore.Folder(ctx, b, sp, target, restore.Options{Progress: func(p restore.Progress) {
		if p.Phase == "write" && p.Documents == 10 {
			must(t, os.Mkdir(target, 0o700))
			must(t, os.WriteFile(filepath.Join(target, "mine"), []byte("x"), 0o600))
		}
	}})
	if !errors.Is(err, restore.ErrTarget) {
		t.Errorf("error %v", err)
	}
	checkFolder(t, target, state{"mine": "x"})
	checkOnly(t, parent, "target")
}

func TestDamagedSavepoint(t *testing.T) {
	s := someState()
	b, sp := bank(t, s)
	pack := filepath.Join(b.Repo().Dir(), "packs/00000001.car")
	data, err := os.ReadFile(pack)
	must(t, err)
	f, err := os.OpenFile(pack, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("#"), int64(strings.Index(string(data), "longest")))
	must(t, err)
	must(t, f.Close())
	for _, exists := range []bool{false, true} {
		parent := t.TempDir()
		target := filepath.Join(parent, "target")
		var want []string
		if exists {
			must(t, os.Mkdir(target, 0o700))
			want = []string{"target"}
		}
		if _, err := restore.Folder(ctx, b, sp, target, restore.Options{}); !errors.Is(err, savepoints.ErrDamaged) {
			t.Errorf("error %v", err)
		}
		checkOnly(t, parent, want...)
	}
}

func TestRestoreIsCancelled(t *testing.T) {
	b, sp := bank(t, someState())
	for _, phase := range []string{"verify", "write"} {
		parent := t.TempDir()
		c, cancel := context.WithCancel(ctx)
		_, err := restore.Folder(c, b, sp, filepath.Join(parent, "target"), restore.Options{Progress: func(p restore.Progress) {
			if p.Phase == phase {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) || errors.Is(err, savepoints.ErrDamaged) {
			t.Errorf("%s: %v", phase, err)
		}
		checkOnly(t, parent)
	}
}

// Any set of documents comes back as it was.
func TestRestoreProperties(t *testing.T) {
	b, _ := bank(t, state{})
	name := rapid.OneOf(rapid.StringMatching(`[a-c]{1,2}`), rapid.StringN(1, 60, 255)).Filter(func(s string) bool { return dag.CheckName(s) == nil })
	text := rapid.OneOf(rapid.String(), rapid.Custom(func(t *rapid.T) string {
		return strings.Repeat("z", rapid.SampledFrom([]int{dag.ChunkSize - 1, dag.ChunkSize, dag.ChunkSize + 1}).Draw(t, "size"))
	}))
	rapid.Check(t, func(rt *rapid.T) {
		want := state{}
		var tree dag.Editor
		for range rapid.IntRange(0, 20).Draw(rt, "documents") {
			path := strings.Join(rapid.SliceOfN(name, 1, 5).Draw(rt, "path"), "/")
			if tree.Put(path, dag.Link{CID: dag.RawBlock(nil).CID}) == nil {
				want[path] = text.Draw(rt, "text")
			}
		}
		parent, err := os.MkdirTemp(t.TempDir(), "")
		must(rt, err)
		target := filepath.Join(parent, "target")
		sp := take(rt, b, want)
		_, err = restore.Folder(ctx, b, sp, target, restore.Options{})
		must(rt, err)
		checkFolder(rt, target, want)
		// What was restored, saved again, is the same state.
		folder, err := savepoints.OpenFolder(target)
		must(rt, err)
		again, err := b.Take(ctx, folder, savepoints.TakeOptions{Policy: "again"})
		must(rt, err)
		if again.Manifest.State != sp.Manifest.State {
			rt.Fatalf("state %s became %s", sp.Manifest.State, again.Manifest.State)
		}
		must(rt, os.RemoveAll(parent))
	})
}
