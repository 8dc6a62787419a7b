package restore_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/restore"
)

// What a restore wrote is told from everything else, with and without what is erased.
func TestHolds(t *testing.T) {
	s := state{"a": "1", "b/c": "2", "people/ada": strings.Repeat("ada", 1000), "people/eve": strings.Repeat("eve", 1000)}
	b, sp := bank(t, s)
	whole := filepath.Join(t.TempDir(), "whole")
	_, err := restore.Folder(ctx, b, sp, whole, restore.Options{})
	must(t, err)
	_, err = b.Erase(ctx, sp, "people/ada", "people/eve")
	must(t, err)
	left := maps.Clone(s)
	delete(left, "people/ada")
	delete(left, "people/eve")
	without := filepath.Join(t.TempDir(), "without")
	wrote, err := restore.Folder(ctx, b, sp, without, restore.Options{WithoutErased: true})
	must(t, err)
	checkFolder(t, without, left)

	for name, c := range map[string]struct {
		dir    string
		change func(dir string) error
		o      restore.Options
		held   bool
	}{
		"whole":              {whole, nil, restore.Options{}, true},
		"without erased":     {without, nil, restore.Options{WithoutErased: true}, true},
		"not asked for":      {without, nil, restore.Options{}, false},
		"one that was left":  {without, func(dir string) error { return os.Remove(filepath.Join(dir, "a")) }, restore.Options{WithoutErased: true}, false},
		"another document":   {without, func(dir string) error { return os.WriteFile(filepath.Join(dir, "a"), []byte("2"), 0o600) }, restore.Options{WithoutErased: true}, false},
		"one more":           {without, func(dir string) error { return os.WriteFile(filepath.Join(dir, "d"), nil, 0o600) }, restore.Options{WithoutErased: true}, false},
		"one more folder":    {without, func(dir string) error { return os.Mkdir(filepath.Join(dir, "people"), 0o700) }, restore.Options{WithoutErased: true}, false},
		"nothing there":      {without, os.RemoveAll, restore.Options{WithoutErased: true}, false},
		"other in an erased": {whole, func(dir string) error { return os.WriteFile(filepath.Join(dir, "people/ada"), nil, 0o600) }, restore.Options{WithoutErased: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			must(t, os.CopyFS(dir, os.DirFS(c.dir)))
			if c.change != nil {
				must(t, c.change(dir))
			}
			done, held, err := restore.Holds(ctx, b, sp, dir, c.o)
			if held != c.held || held && err != nil {
				t.Fatalf("%v, %v", held, err)
			}
			if held && c.dir == without && done != wrote {
				t.Errorf("%+v, not %+v", done, wrote)
			}
		})
	}
}
