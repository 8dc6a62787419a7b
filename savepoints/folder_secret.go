package savepoints

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// A secret key in the encoding of golang.org/x/mod/sumdb/note: the name, the key's hash, and
// the base64 of the 33 bytes of algorithm and seed, on a line of its own. The hash is not
// checked: with a wrong one too it is a key.
const secretKey = "PRIVATE+KEY+"

var secretKeyLine = regexp.MustCompile(`^PRIVATE\+KEY\+[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}\s*(?:\n|$)`)

// maxSecretKey bounds the length in bytes of a secret key: names of logs have at most 255.
const maxSecretKey = 512

// document is a file that is read, unless it holds a secret key: to look at the bytes as
// they pass costs nothing.
type document struct {
	file   *os.File
	path   string
	looked bool
	held   []byte // read to look at it, and not given yet
}

func (d *document) Read(p []byte) (int, error) {
	if d.looked && len(d.held) == 0 {
		return d.file.Read(p)
	}
	if !d.looked {
		n, err := d.file.Read(p)
		if n == 0 {
			return n, err
		}
		d.looked = true
		if same := min(n, len(secretKey)); string(p[:same]) != secretKey[:same] {
			return n, err
		}
		d.held = append(make([]byte, 0, n+maxSecretKey), p[:n]...)
		clear(p[:n])
		more, err := io.ReadFull(d.file, d.held[n:cap(d.held)])
		if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, err
		}
		d.held = d.held[:n+more]
		if secretKeyLine.Match(d.held[:min(len(d.held), maxSecretKey)]) {
			clear(d.held)
			return 0, fmt.Errorf("%w: %q in the source is a secret key", ErrUsage, d.path)
		}
	}
	n := copy(p, d.held)
	d.held = d.held[n:]
	return n, nil
}

func (d *document) Close() error { return d.file.Close() }

// checkFolder refuses a folder of the source that has keys of a repository.
func (f *Folder) checkFolder(rel string, entries []fs.DirEntry) error {
	dir, err := fs.Sub(f.root.FS(), cmp.Or(filepath.ToSlash(rel), "."))
	if err != nil {
		return fmt.Errorf("read source: %w", err)
	}
	if node.Resembles(dir, entries, append(slices.Clone(keyFiles), importedFile, witnessKeyFile)...) {
		return fmt.Errorf("%w: %q in the source is a repository, or a copy of one, with its keys", ErrUsage, cmp.Or(rel, "."))
	}
	for _, e := range entries {
		if e.Name() == importedFile && e.Type().IsRegular() && holdsImported(dir) {
			return fmt.Errorf("%w: %q in the source holds the keys of a log", ErrUsage, filepath.Join(rel, importedFile))
		}
	}
	return nil
}

// holdsImported reports whether a folder has a file of imported keys, which is no key by
// itself but an archive of them.
func holdsImported(dir fs.FS) bool {
	f, err := dir.Open(importedFile)
	if err != nil {
		return false
	}
	defer f.Close()
	h, err := tar.NewReader(f).Next()
	return err == nil && slices.Contains(keyFiles, h.Name)
}
