package node

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// childEnv names the function that a second process of this test binary runs
// instead of the tests.
const childEnv = "IPFS_SAVEPOINT_NODE_TEST_CHILD"

var children = map[string]func(dir string) error{}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child prepares a second process that runs one of children on dir.
func child(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, dir)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

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

// await waits until ok says so, at most a minute.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func bytesOf(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	out := make([]byte, n)
	rand.NewChaCha8(key).Read(out)
	return out
}

func newRepo(t *testing.T) *Repo {
	t.Helper()
	r, err := Create(ctx, filepath.Join(t.TempDir(), "repo"))
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// putState puts a state of many small documents, a collection that is a HAMT, and
// a document of three chunks, and returns its root and documents.
func putState(t *testing.T, sink dag.Sink, seed uint64) (cid.Cid, map[string][]byte) {
	t.Helper()
	docs := map[string][]byte{"large.bin": bytesOf(seed, 2*dag.ChunkSize+77)}
	for i := range 100 {
		docs[fmt.Sprintf("credentials/%03d.json", i)] = bytesOf(seed+uint64(i)+1, 100+i)
	}
	var tree dag.Editor
	for path, data := range docs {
		link, _, err := dag.WriteDocument(ctx, sink, bytes.NewReader(data))
		must(t, err)
		must(t, tree.Put(path, link))
	}
	root, err := tree.Apply(ctx, nil, sink, cid.Undef)
	must(t, err)
	return root.CID, docs
}

// checkState reads everything of a state and compares it.
func checkState(t *testing.T, src dag.Source, root cid.Cid, docs map[string][]byte) {
	t.Helper()
	n := 0
	for doc, err := range dag.Documents(ctx, src, root) {
		must(t, err)
		data, err := dag.ReadDocument(ctx, src, root, doc.Path)
		must(t, err)
		if string(data) != string(docs[doc.Path]) {
			t.Fatalf("document %q differs", doc.Path)
		}
		n++
	}
	if n != len(docs) {
		t.Fatalf("%d documents, not %d", n, len(docs))
	}
}

// damage changes the last byte of an IPFS block on disk. The repository must be
// synced, and no other block may hold the bytes of its CID before.
func damage(t *testing.T, r *Repo, b dag.Block) {
	t.Helper()
	path := filepath.Join(r.Dir(), packsDir, "00000001.car")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	all, err := os.ReadFile(path)
	must(t, err)
	at := bytes.Index(all, append(b.CID.Bytes(), b.Data...))
	if at < 0 {
		t.Fatalf("%s is not on disk", b.CID)
	}
	last := at + b.CID.ByteLen() + len(b.Data) - 1
	_, err = f.WriteAt([]byte{all[last] ^ 4}, int64(last))
	must(t, err)
}
