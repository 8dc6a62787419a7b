package savepoints_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// childEnv makes the test binary do one thing in a loop instead of testing: take save
// points, or erase documents.
const childEnv = "IPFS_SAVEPOINT_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		forEver := map[string]func(string) error{"take": takeForEver, "erase": eraseForEver}[what]
		fmt.Fprintln(os.Stderr, forEver(os.Args[1]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var ctx = context.Background()

func must(t interface {
	Helper()
	Fatal(...any)
}, err error) {
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

// state is a Source in memory.
type state map[string]string

func (s state) Documents(context.Context) iter.Seq2[savepoints.Document, error] {
	return func(yield func(savepoints.Document, error) bool) {
		for path, text := range s { // in any order
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

func (s state) with(path, text string) state {
	out := state{path: text}
	for p, t := range s {
		if p != path {
			out[p] = t
		}
	}
	return out
}

func (s state) totals() dag.Totals {
	t := dag.Totals{Documents: uint64(len(s))}
	for _, text := range s {
		t.Bytes += uint64(len(text))
	}
	return t
}

func someState() state {
	s := state{"large.bin": strings.Repeat("0123456789", dag.ChunkSize/8)}
	for i := range 120 {
		s[fmt.Sprintf("credentials/%03d.json", i)] = fmt.Sprintf(`{"n":%d}`, i)
	}
	return s
}

// smallState is one that costs little to save and to check.
func smallState(i int) state {
	return state{"a.json": fmt.Sprint("a", i), "sub/b.json": fmt.Sprint("b", i/2), "sub/c.json": "c"}
}

func initBank(t *testing.T) *savepoints.Bank {
	t.Helper()
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func openBank(t *testing.T, dir string) *savepoints.Bank {
	t.Helper()
	b, err := savepoints.Open(ctx, dir)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func reopen(t *testing.T, b *savepoints.Bank) *savepoints.Bank {
	t.Helper()
	must(t, b.Close())
	return openBank(t, b.Repo().Dir())
}

// reader is a bank without a log that trusts the log of another, and the policy.
func reader(t *testing.T, of *savepoints.Bank) (*savepoints.Bank, *anchor.Policy) {
	t.Helper()
	b, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "reader"))
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return trusting(t, b, of)
}

func trusting(t *testing.T, b, of *savepoints.Bank) (*savepoints.Bank, *anchor.Policy) {
	t.Helper()
	policy, err := of.TrustPolicy()
	must(t, err)
	must(t, b.Keep(policy))
	b, p, err := b.Trust(policy)
	must(t, err)
	return b, p
}

func take(t testing.TB, b *savepoints.Bank, s savepoints.Source, policy string) savepoints.Taken {
	t.Helper()
	taken, err := b.Take(ctx, s, savepoints.TakeOptions{Policy: policy})
	must(t, err)
	return taken
}

func list(t *testing.T, b *savepoints.Bank) []savepoints.Savepoint {
	t.Helper()
	l, err := b.List(ctx, "")
	must(t, err)
	return l
}

// checkDocuments verifies a save point and compares its documents.
func checkDocuments(t *testing.T, b *savepoints.Bank, s savepoints.Savepoint, want state) {
	t.Helper()
	verified, err := b.Verify(ctx, s)
	must(t, err)
	totals := verified.Totals
	if totals != want.totals() || totals != s.Manifest.Totals {
		t.Fatalf("totals %+v, in the manifest %+v, want %+v", totals, s.Manifest.Totals, want.totals())
	}
	for path, text := range want {
		data, err := dag.ReadDocument(ctx, b.Repo().Blocks, s.Manifest.State, path)
		must(t, err)
		if string(data) != text {
			t.Fatalf("document %q differs", path)
		}
	}
}

func serve(t *testing.T, b *savepoints.Bank) *node.Network {
	t.Helper()
	n, err := b.Repo().Serve(ctx, node.ServeOptions{Gateway: "127.0.0.1:0", Swarm: []string{"/ip4/127.0.0.1/tcp/0"}, Logs: b.LogRoot})
	must(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

func uintPtr(n uint64) *uint64 { return &n }

func receiptFiles(t *testing.T, b *savepoints.Bank) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(b.Repo().Dir(), "meta/receipts/*"))
	must(t, err)
	return paths
}

// damage changes one byte of a file.
func damage(t *testing.T, path string, off int) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	data[off] ^= 1
	must(t, os.WriteFile(path, data, 0o600))
}

// damageBlock changes the last byte of an IPFS block in the packs of a bank.
func damageBlock(t *testing.T, b *savepoints.Bank, data []byte) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(b.Repo().Dir(), "packs/*.car"))
	must(t, err)
	var path string
	var pack []byte
	i := -1
	for _, path = range packs {
		pack, err = os.ReadFile(path)
		must(t, err)
		if i = strings.Index(string(pack), string(data)); i >= 0 {
			break
		}
	}
	if i < 0 || len(data) == 0 {
		t.Fatal("the IPFS block is not in a pack")
	}
	pack[i+len(data)-1] ^= 1
	// In place: the bank has the file open.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(pack[i:i+len(data)], int64(i))
	must(t, err)
	must(t, f.Close())
}
