package dag

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spaolacci/murmur3"
)

const (
	// MaxNames is the largest number of names in a document's path.
	MaxNames = 16
	// MaxNameLen is the length of the longest name, in bytes.
	MaxNameLen = 255
)

var (
	// ErrName: a name or path that a document cannot have.
	ErrName = errors.New("unusable name")
	// ErrNameCollision: two names of one directory with equal HAMT hashes.
	// Such names cannot lie in one HAMT; they are refused in every directory,
	// so that a state is never refused merely because it grew.
	ErrNameCollision = errors.New("names collide")
)

// CheckName reports whether name can be a part of a document's path: UTF-8 of 1
// to MaxNameLen bytes without "/" and NUL, not "." or "..". The error wraps ErrName.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: empty", ErrName)
	case name == "." || name == "..":
		return fmt.Errorf("%w: %q", ErrName, name)
	case len(name) > MaxNameLen:
		return fmt.Errorf("%w: %.40q… has %d bytes, more than %d", ErrName, name, len(name), MaxNameLen)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%w: %q holds a slash or NUL", ErrName, name)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: %q is not UTF-8", ErrName, name)
	}
	return nil
}

// SplitPath returns the names of a document's path, which are separated by "/".
// The error wraps ErrName.
func SplitPath(path string) ([]string, error) {
	if n := strings.Count(path, "/") + 1; n > MaxNames {
		return nil, fmt.Errorf("%w: a path of %d names, more than %d", ErrName, n, MaxNames)
	}
	names := strings.Split(path, "/")
	for _, name := range names {
		if err := CheckName(name); err != nil {
			return nil, fmt.Errorf("path %.80q: %w", path, err)
		}
	}
	return names, nil
}

// nameHash is the HAMT key of a name: the first 64 bits of murmur3-x64-128, as
// UnixFS uses it.
func nameHash(name string) uint64 { return murmur3.Sum64([]byte(name)) }
