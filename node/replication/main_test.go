package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

// childEnv makes the test binary push to a folder, and stay in the middle of it.
const childEnv = "IPFS_SAVEPOINT_REPLICATION_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		fmt.Fprintln(os.Stderr, pushForEver(os.Args[1], os.Args[2]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func child(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	return cmd
}

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustBe(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("the error is %v, want %v", err, want)
	}
}

// await waits until ok says so, at most a minute.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func newRepo(t *testing.T) *node.Repo {
	t.Helper()
	r, err := node.Create(ctx, filepath.Join(t.TempDir(), "repo"))
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

func reopen(t *testing.T, r *node.Repo) *node.Repo {
	t.Helper()
	must(t, r.Close())
	again, err := node.Open(ctx, r.Dir())
	must(t, err)
	t.Cleanup(func() { again.Close() })
	again.Config = r.Config
	return again
}

// putDAG puts a directory of documents, one of which is of its own, and returns its
// root.
func putDAG(t testing.TB, sink dag.Sink, own string) cid.Cid {
	t.Helper()
	docs := map[string]string{"own": own, "large": strings.Repeat("0123456789", dag.ChunkSize/8)}
	for i := range 100 {
		docs[fmt.Sprintf("credentials/%03d", i)] = fmt.Sprint("document ", i)
	}
	var tree dag.Editor
	for path, text := range docs {
		link, _, err := dag.WriteDocument(ctx, sink, strings.NewReader(text))
		must(t, err)
		must(t, tree.Put(path, link))
	}
	root, err := tree.Apply(ctx, nil, sink, cid.Undef)
	must(t, err)
	return root.CID
}

// itemOf is a DAG with an archive that has a second root, as those of save points do.
func itemOf(src dag.Source, root cid.Cid) Item {
	note := dag.RawBlock([]byte("about " + root.String()))
	return Item{
		Root: root, Name: "policy-1", Roots: []cid.Cid{root, note.CID},
		Write: func(ctx context.Context, w io.Writer) error {
			return dag.WriteCAR(ctx, w, with{src, note}, root, note.CID)
		},
	}
}

// with is a source with one more IPFS block.
type with struct {
	dag.Source
	block dag.Block
}

func (s with) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if c == s.block.CID {
		return s.block.Data, nil
	}
	return s.Source.Get(ctx, c)
}

// blocksOf returns the IPFS blocks of the DAGs at roots.
func blocksOf(t testing.TB, src dag.Source, roots ...cid.Cid) map[cid.Cid][]byte {
	t.Helper()
	out := map[cid.Cid][]byte{}
	for c, err := range dag.Walk(ctx, src, dag.Limits{}, roots...) {
		must(t, err)
		data, err := src.Get(ctx, c)
		must(t, err)
		out[c] = data
	}
	return out
}

// carOf is an item's archive.
func carOf(t testing.TB, item Item) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, item.Write(ctx, &b))
	return b.Bytes()
}

// secret is a token that must not be seen anywhere.
const secret = "not-to-be-seen"

func tokenIn(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(path, []byte(secret+"\n"), 0o600))
	return path
}

// pushForEver pushes to a folder and never ends.
func pushForEver(dir, target string) error {
	repo, err := node.Open(ctx, dir)
	if err != nil {
		return err
	}
	pins, err := repo.Pins()
	if err != nil {
		return err
	}
	repo.Config.Replicate = []node.Replica{{Name: "f", Kind: node.ReplicaFolder, Path: target}}
	q := NewQueue(repo, Options{
		Roots: func(context.Context, node.Replica) ([]cid.Cid, error) { return []cid.Cid{pins[0].CID}, nil },
		Item: func(_ context.Context, root cid.Cid) (Item, error) {
			item := itemOf(repo.Blocks, root)
			item.Write = func(_ context.Context, w io.Writer) error {
				if _, err := w.Write([]byte("the beginning")); err != nil {
					return err
				}
				fmt.Println("in the middle")
				select {}
			}
			return item, nil
		},
	})
	q.Run(ctx, nil)
	return nil
}
