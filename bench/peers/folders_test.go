package peers

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files writes a folder: its argument is the folder, which is empty.
type files func(t *testing.T, dir string)

// The shapes of folders at which layouts differ: around the fan-out and the
// threshold, around a chunk, deep, large, and with names that few expect.
func folders() map[string]files {
	shapes := map[string]files{
		"one byte below the threshold": nodeOf(4095),
		"at the threshold":             nodeOf(4096),
		"one byte above the threshold": nodeOf(4097),
		"empty files":                  func(t *testing.T, dir string) { write(t, dir, "empty", 0); write(t, dir, "a/empty", 0) },
		"one byte less than a chunk":   func(t *testing.T, dir string) { write(t, dir, "file", 1<<20-1) },
		"a chunk":                      func(t *testing.T, dir string) { write(t, dir, "file", 1<<20) },
		"one byte more than a chunk":   func(t *testing.T, dir string) { write(t, dir, "file", 1<<20+1) },
		"300 MiB":                      func(t *testing.T, dir string) { write(t, dir, "file", 300<<20) },
		"16 names deep": func(t *testing.T, dir string) {
			for depth := range 16 {
				write(t, dir, strings.Repeat("d/", depth)+"file", depth)
			}
		},
		"dotfiles": func(t *testing.T, dir string) {
			for _, name := range []string{".hidden", ".folder/file", ".folder/.hidden", "...", "..a", "a/.b/c"} {
				write(t, dir, name, 10)
			}
		},
		"long names": func(t *testing.T, dir string) {
			for _, name := range []string{strings.Repeat("n", 255), strings.Repeat("é", 127), strings.Repeat("文", 85), strings.Repeat("d", 255) + "/" + strings.Repeat("n", 255)} {
				write(t, dir, name, 10)
			}
		},
		"names of many kinds": func(t *testing.T, dir string) {
			for i, name := range []string{
				"\u00e9", "e\u0301", "日本語", "🌍🌱", "with space", "tab\there", "line\nbreak", `back\slash`, `"quoted"`, "'", "%2F", "a%b", "#", "?", "*",
				"ünï/côdé/文書.json", "-", "--help", "~", "A", "a", "\x01", "\u202e", " ",
			} {
				write(t, dir, name, i)
			}
		},
		"empty folders beside files": func(t *testing.T, dir string) {
			write(t, dir, "a/b/file", 1)
			for _, empty := range []string{"empty", "a/empty", "a/b/empty", ".empty"} {
				mkdir(t, dir, empty)
			}
		},
	}
	for _, n := range []int{1, 16, 17, 255, 256, 257, 5_000, 100_000} {
		shapes[fmt.Sprintf("%d files", n)] = func(t *testing.T, dir string) {
			for i := range n {
				write(t, dir, fmt.Sprintf("%016x.json", i*7919), i%200)
			}
		}
	}
	return shapes
}

// nodeOf makes a folder whose directory has one basic node of so many bytes: a
// link to a file of less than 128 bytes adds 44 bytes and its name to a node of
// otherwise 4 bytes, or 45 if the name is longer than 83.
func nodeOf(bytes int) files {
	return func(t *testing.T, dir string) {
		left := bytes - 4
		for i := 0; left >= 2*75; i++ {
			write(t, dir, fmt.Sprintf("%031d", i), 100)
			left -= 44 + 31
		}
		write(t, dir, strings.Repeat("x", left-44), 100)
	}
}

func mkdir(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, filepath.FromSlash(name)), 0o700); err != nil {
		t.Fatal(err)
	}
}

// write makes a file of so many bytes, each file of a name and length the same.
func write(t testing.TB, dir, name string, length int) {
	t.Helper()
	mkdir(t, dir, filepath.Dir(name))
	f, err := os.Create(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(f)
	x := uint32(length)
	for _, c := range []byte(name) {
		x = x*31 + uint32(c)
	}
	for range length {
		x = x*1664525 + 1013904223
		if err := out.WriteByte(byte(x >> 24)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTakeEqualsKuboOnFolders compares the state CID of take with that of kubo, set
// to our CID profile, for folders of every shape.
func TestTakeEqualsKuboOnFolders(t *testing.T) {
	k, p := newKubo(t), newProduct(t)
	for name, write := range folders() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir)
			got, want := p.take(t, dir).State, k.addFolder(t, dir)
			if got != want {
				t.Errorf("take says %s, kubo says %s", got, want)
			}
			if size, ok := nodeSizes[name]; ok {
				if root := k.run(t, nil, "block", "get", want); len(root) != size {
					t.Errorf("the node has %d bytes, not %d", len(root), size)
				}
			}
		})
	}
}

// nodeSizes are what the folders around the threshold must come to.
var nodeSizes = map[string]int{"one byte below the threshold": 4095, "at the threshold": 4096}

// kubo drops a folder that is empty on disk, and keeps one in which it dropped all.
// A state has neither.
func TestKuboKeepsFoldersOfEmptyFolders(t *testing.T) {
	k, p := newKubo(t), newProduct(t)
	dir := t.TempDir()
	write(t, dir, "file", 1)
	without := k.addFolder(t, dir)
	mkdir(t, dir, "a/b/empty")
	if got := p.take(t, dir).State; got != without {
		t.Errorf("take says %s, not %s as without the empty folders", got, without)
	}
	if k.addFolder(t, dir) == without {
		t.Error("kubo drops the folders too: docs/formats.md says otherwise")
	}
}
