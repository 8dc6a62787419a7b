package savepoints_test

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// A witness that cannot be one has no key yet, under whatever name it was to be one.
func TestWitnessKeyComesLast(t *testing.T) {
	b, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "witness"))
	must(t, err)
	defer b.Close()
	if _, err := b.Witness("witness.example/typo", witness.ServerOptions{}); !errors.Is(err, savepoints.ErrNoTrust) {
		t.Fatalf("a witness of no log: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.Repo().Dir(), "witness.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its key: %v", err)
	}
	b, _ = trusting(t, b, initBank(t))
	if _, err := b.Witness("", witness.ServerOptions{}); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("without a name: %v", err)
	}
	for _, name := range []string{"witness.example/right", "", "witness.example/right"} {
		_, err = b.Witness(name, witness.ServerOptions{})
		must(t, err)
	}
	if _, err := b.Witness("witness.example/typo", witness.ServerOptions{}); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("another name: %v", err)
	}
}

// What a witness remembers is no log: the collection passes over it, and keeps the logs
// and save points that the repository holds besides.
func TestCollectOfAWitness(t *testing.T) {
	b := initBank(t)
	taken := take(t, b, state{"a": "1"}, "p")
	r, p := reader(t, b)
	_, url := countedGateway(t, b)
	_, err := r.Fetch(ctx, savepoints.Ref{CID: taken.CID}, savepoints.FetchOptions{Policy: p, Sources: []string{url}})
	must(t, err)
	s, err := r.Witness("witness.example/w", witness.ServerOptions{})
	must(t, err)
	web := httptest.NewServer(s)
	defer web.Close()
	h, err := b.Head(ctx, "")
	must(t, err)
	_, err = witness.NewClient("w", web.URL, witness.ClientOptions{}).Cosign(ctx, 0, nil, h.Checkpoint)
	must(t, err)
	_, err = r.Collect(ctx, segments.CollectOptions{All: true})
	must(t, err)
	_, err = r.Verify(ctx, list(t, r)[0])
	must(t, err)
	must(t, r.VerifyLog(ctx, b.Origin()))
}
