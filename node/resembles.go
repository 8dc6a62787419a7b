package node

import (
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// maxResembling bounds, in bytes, what Resembles reads of a file.
const maxResembling = 4 << 10

var packName = regexp.MustCompile(`^[0-9]{8}\.car(\.zst)?$`)

// Resembles reports whether a folder, whose entries are given, is a repository or what
// somebody copied of one: that it holds a private key of libp2p, as that of the node, beside
// anything else of a repository, or all but the keys. Other programs use the same names, so
// it looks into the files. more are the names of further files that the caller keeps in
// repositories, keys among them.
func Resembles(dir fs.FS, entries []fs.DirEntry, more ...string) bool {
	keys := 0
	found := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == identityFile || slices.Contains(more, name):
			if holdsKey(dir, e) {
				keys++
			} else if name == identityFile {
				continue
			}
			found[name] = true
		case name == versionFile:
			n, err := strconv.Atoi(strings.TrimSpace(string(beginning(dir, e))))
			found[name] = err == nil && n > 0
		case name == packsDir:
			found[name] = holdsPacks(dir, e)
		case name == metaDir:
			found[name] = e.IsDir()
		case name == configFile:
			found[name] = true
		}
	}
	parts := 0
	for _, is := range found {
		if is {
			parts++
		}
	}
	return keys > 0 && parts > 1 || found[versionFile] && found[packsDir] && found[metaDir]
}

func holdsKey(dir fs.FS, e fs.DirEntry) bool {
	_, err := crypto.UnmarshalPrivateKey(beginning(dir, e))
	return err == nil
}

func holdsPacks(dir fs.FS, e fs.DirEntry) bool {
	if !e.IsDir() {
		return false
	}
	files, err := fs.ReadDir(dir, e.Name())
	return err == nil && slices.ContainsFunc(files, func(f fs.DirEntry) bool { return packName.MatchString(f.Name()) })
}

// beginning returns the beginning of a regular file; nothing if it cannot be read.
func beginning(dir fs.FS, e fs.DirEntry) []byte {
	if !e.Type().IsRegular() {
		return nil
	}
	f, err := dir.Open(e.Name())
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxResembling))
	if err != nil {
		return nil
	}
	return data
}
