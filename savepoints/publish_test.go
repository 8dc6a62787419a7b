package savepoints_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"golang.org/x/mod/sumdb/note"
)

// regulator is a witness that listens, with a repository of its own.
type regulator struct {
	line   string // of a trust policy, without "witness"
	down   atomic.Bool
	server atomic.Pointer[witness.Server]
	repo   *node.Repo
	signer string
}

func newRegulator(t *testing.T) *regulator {
	t.Helper()
	repo, err := node.Create(ctx, filepath.Join(t.TempDir(), "witness"))
	must(t, err)
	t.Cleanup(func() { repo.Close() })
	skey, err := witness.GenerateKey("witness.example/w")
	must(t, err)
	w := &regulator{repo: repo, signer: skey}
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if s := w.server.Load(); s != nil && !w.down.Load() {
			s.ServeHTTP(rw, r)
			return
		}
		http.Error(rw, "down", http.StatusServiceUnavailable)
	}))
	t.Cleanup(web.Close)
	w.watch(t)
	w.line = "w " + w.server.Load().Key() + " " + web.URL
	return w
}

// watch makes it the witness of the logs of banks.
func (w *regulator) watch(t *testing.T, banks ...*savepoints.Bank) {
	t.Helper()
	var policies [][]byte
	for _, b := range banks {
		text, err := b.TrustPolicy()
		must(t, err)
		policies = append(policies, text)
	}
	w.trust(t, policies...)
}

// trust makes it the witness of the logs of trust policies.
func (w *regulator) trust(t *testing.T, policies ...[]byte) {
	t.Helper()
	signer, err := witness.NewSigner(w.signer)
	must(t, err)
	var keys []note.Verifier
	for _, text := range policies {
		p, err := anchor.ParsePolicy(text)
		must(t, err)
		keys = append(keys, p.Key())
	}
	w.server.Store(witness.NewServer(signer, w.repo, keys, witness.ServerOptions{}))
}

func newWitnessedBank(t *testing.T, w *regulator) *savepoints.Bank {
	t.Helper()
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{Witnesses: []string{w.line}})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	w.watch(t, b)
	return b
}

// A save point is there when take returns, and others believe it once the witness has
// cosigned its entry.
func TestTakeWitnessed(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	s := state{"a": "1"}
	w.down.Store(true)
	first, err := b.Take(ctx, s, savepoints.TakeOptions{Policy: "p"})
	must(t, err)
	second, err := b.Take(ctx, s.with("b", "2"), savepoints.TakeOptions{Policy: "p", Witnessed: 50 * time.Millisecond})
	if !errors.Is(err, anchor.ErrNoQuorum) || !second.CID.Defined() || second.Witnessed || first.Witnessed {
		t.Fatalf("without a witness: %v %v", second, err)
	}
	list, err := b.List(ctx, "p")
	if err != nil || len(list) != 2 {
		t.Fatalf("%d save points, %v", len(list), err)
	}
	_, err = b.Verify(ctx, list[0])
	must(t, err)
	if _, err := b.Head(ctx, ""); !errors.Is(err, savepoints.ErrNotFound) {
		t.Errorf("published head: %v", err)
	}
	if err := b.Export(ctx, list[1], io.Discard); !errors.Is(err, anchor.ErrNoQuorum) {
		t.Errorf("an archive that nobody believes: %v", err)
	}

	w.down.Store(false)
	third, err := b.Take(ctx, s.with("b", "3"), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	if !third.Witnessed {
		t.Error("not witnessed")
	}
	h, err := b.Head(ctx, "")
	if err != nil || h.Size != 3 {
		t.Fatalf("published head of size %d, %v", h.Size, err)
	}
	list, err = b.List(ctx, "p")
	must(t, err)
	for _, s := range list {
		must(t, exportTo(t, b, s, fresh(t, b)))
	}
}

// fresh is a repository that has nothing but the trust policy of a bank.
func fresh(t *testing.T, of *savepoints.Bank) *savepoints.Bank {
	b, _ := reader(t, of)
	return b
}

// What KeepPublished finds signed is published, and what comes later too.
func TestKeepPublished(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	w.down.Store(true)
	_, err := b.Take(ctx, state{"a": "1"}, savepoints.TakeOptions{Policy: "p"})
	must(t, err)
	running, stop := context.WithCancel(ctx)
	failed := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.KeepPublished(running, func(err error) {
			select {
			case failed <- err:
			default: // the first one is enough
			}
		})
	}()
	if err := <-failed; !errors.Is(err, anchor.ErrNoQuorum) {
		t.Error(err)
	}
	w.down.Store(false)
	published := func(size int64) func() bool {
		return func() bool {
			h, err := b.Head(ctx, "")
			return err == nil && h.Size >= size
		}
	}
	await(t, "the first save point is published", published(1))
	_, err = b.Take(ctx, state{"a": "2"}, savepoints.TakeOptions{Policy: "p"})
	must(t, err)
	await(t, "the second save point is published", published(2))
	stop()
	<-ended
}

// A repository that was put back to an old copy takes nothing.
func TestTakeInOldCopy(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	_, err := b.Take(ctx, state{"a": "1"}, savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	dir := b.Repo().Dir()
	backup := filepath.Join(t.TempDir(), "backup")
	must(t, os.CopyFS(backup, os.DirFS(dir)))
	_, err = b.Take(ctx, state{"a": "2"}, savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)

	old, err := savepoints.Open(ctx, backup)
	must(t, err)
	defer old.Close()
	for range 2 {
		_, err = old.Take(ctx, state{"a": "3"}, savepoints.TakeOptions{Policy: "p"})
		if !errors.Is(err, anchor.ErrRollback) {
			t.Fatalf("take in an old copy: %v", err)
		}
	}
	// What it holds can be read.
	list, err := old.List(ctx, "p")
	if err != nil || len(list) != 1 {
		t.Errorf("%d save points, %v", len(list), err)
	}
}

// One witness of three that refuses all heads without showing why stops neither the host
// that writes the log nor those that read it.
func TestOneWitnessRefuses(t *testing.T) {
	honest := []*regulator{newRegulator(t), newRegulator(t)}
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintln(w, 1<<40)
	}))
	t.Cleanup(liar.Close)
	lines := []string{"w0" + honest[0].line[1:], "w1" + honest[1].line[1:], "w2 " + newRegulator(t).server.Load().Key() + " " + liar.URL}
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{Witnesses: lines, Quorum: 2})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	for _, w := range honest {
		w.watch(t, b)
	}
	took, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	if err != nil || !took.Witnessed {
		t.Fatalf("witnessed: %v, %v", took.Witnessed, err)
	}
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	var said []string
	d, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{url}, Report: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }})
	if err != nil || d.Freshness != savepoints.FreshnessWitnessed || !strings.Contains(strings.Join(said, "\n"), "witness w2 contradicts") {
		t.Errorf("%s %q %v", d.Freshness, said, err)
	}
}
