package segments

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

var ctx = context.Background()

type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bytesOf(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	out := make([]byte, n)
	rand.NewChaCha8(key).Read(out)
	return out
}

func openTestStore(t fataler, dir string) *Store {
	t.Helper()
	s, err := Open(ctx, dir)
	must(t, err)
	return s
}

func segmentPath(dir string, n uint32) string { return filepath.Join(dir, fmt.Sprintf("%08d.car", n)) }

// section is one section of a segment, as the CARv1 specification has it.
type section struct {
	cid        cid.Cid
	start, end int64
}

// sections walks a segment that is not damaged, by the specification alone.
func sections(t fataler, path string) []section {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	var out []section
	off := int64(0)
	for first := true; off < int64(len(data)); first = false {
		n, k := binary.Uvarint(data[off:])
		end := off + int64(k) + int64(n)
		if k <= 0 || end > int64(len(data)) {
			t.Fatalf("%s: no section at %d", path, off)
		}
		if !first {
			_, c, err := cid.CidFromBytes(data[off+int64(k):])
			must(t, err)
			out = append(out, section{c, off, end})
		}
		off = end
	}
	return out
}

// flip changes one byte of a file.
func flip(t fataler, path string, off int64, with byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	must(t, err)
	b[0] ^= with
	_, err = f.WriteAt(b[:], off)
	must(t, err)
	must(t, f.Close())
}

// fillStore makes a store of a few blocks of the given sizes and closes it.
func fillStore(t *testing.T, sizes ...int) (dir string, blocks []dag.Block) {
	t.Helper()
	dir = t.TempDir()
	s := openTestStore(t, dir)
	for i, n := range sizes {
		blocks = append(blocks, dag.RawBlock(bytesOf(uint64(i)+1, n)))
	}
	must(t, s.Put(ctx, blocks...))
	must(t, s.Sync(ctx))
	must(t, s.Close())
	return dir, blocks
}

// unreadable returns the blocks that the store does not give back. A block that
// it does give back must be equal.
func unreadable(t fataler, s *Store, blocks []dag.Block) []dag.Block {
	t.Helper()
	var lost []dag.Block
	for _, b := range blocks {
		data, err := s.Get(ctx, b.CID)
		switch {
		case err != nil:
			lost = append(lost, b)
		case !bytes.Equal(data, b.Data):
			t.Fatalf("%s: other bytes than were put", b.CID)
		}
	}
	return lost
}
