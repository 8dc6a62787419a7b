package logs

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// state is a source of one document.
type state string

func (s state) Documents(context.Context) iter.Seq2[savepoints.Document, error] {
	return func(yield func(savepoints.Document, error) bool) {
		yield(savepoints.Document{Path: "document", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(string(s))), nil
		}}, nil)
	}
}

func (state) Consistency(context.Context) (dag.Consistency, error) {
	return dag.Consistency{Method: "test", Consistent: true}, nil
}

func newBank(t testing.TB, o savepoints.InitOptions) *savepoints.Bank {
	t.Helper()
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), o)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func take(t testing.TB, b *savepoints.Bank, n int) {
	t.Helper()
	for i := range n {
		_, err := b.Take(ctx, state(fmt.Sprint("state ", i)), savepoints.TakeOptions{Policy: fmt.Sprint("policy-", i%3)})
		must(t, err)
	}
}

// policyOf is the bank's trust policy, and the key of its log.
func policyOf(t testing.TB, b *savepoints.Bank) (text []byte, vkey string) {
	t.Helper()
	text, err := b.TrustPolicy()
	must(t, err)
	return text, keyIn(text)
}

// keyIn is the key of the log of a trust policy.
func keyIn(policy []byte) (vkey string) {
	for line := range strings.Lines(string(policy)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "log" {
			vkey = f[1]
		}
	}
	return vkey
}

// headOf is the newest head of a bank's log.
func headOf(t testing.TB, b *savepoints.Bank) anchor.Head {
	t.Helper()
	h, err := b.Head(ctx, "")
	must(t, err)
	return h
}

// copyOf opens a copy of a bank, as a backup that is put back would be.
func copyOf(t testing.TB, b *savepoints.Bank) *savepoints.Bank {
	t.Helper()
	must(t, b.Repo().Blocks.Sync(ctx))
	dir := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(dir, os.DirFS(b.Repo().Dir())))
	c, err := savepoints.Open(ctx, dir)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}
