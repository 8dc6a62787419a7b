package savepoints_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// withMirror opens a bank again whose trust policy names a mirror.
func withMirror(t *testing.T, b *savepoints.Bank, url string) *savepoints.Bank {
	t.Helper()
	text, err := b.TrustPolicy()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.Repo().Dir(), "trust.policy"), fmt.Appendf(text, "# ipfs-savepoint: mirror %s\n", url), 0o600))
	return reopen(t, b)
}

// hanging is a server that answers nobody.
func hanging(t *testing.T) (url string) {
	end := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end }))
	t.Cleanup(web.Close)
	t.Cleanup(func() { close(end) })
	return web.URL
}

// nameRecord signs a record of a bank's own name for a size of its log.
func nameRecord(t *testing.T, b *savepoints.Bank, size uint64, life time.Duration) node.Name {
	t.Helper()
	key, err := b.Repo().ReadFile("ipns.key")
	must(t, err)
	h, err := b.Head(ctx, "")
	must(t, err)
	n, err := node.SignName(key, node.Name{Value: "/ipfs/" + h.Root.String(), Sequence: size << 16, Expires: time.Now().Add(life)})
	must(t, err)
	return n
}

// What the log's name said of it counts when its time has passed, too.
func TestOldCopyByExpiredName(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	for size, want := range []error{1: nil, 2: anchor.ErrRollback} {
		n := nameRecord(t, b, uint64(size), -time.Hour)
		must(t, b.Repo().PutRecord("names", n.Name, n.Record))
		b = reopen(t, b)
		if err := b.LogError(); !errors.Is(err, want) {
			t.Errorf("of a log of 1, a name said %d: %v", size, err)
		}
	}
}

// A record of the log's name that is damaged says nothing, but is told of, and made anew.
func TestDamagedName(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	n := nameRecord(t, b, 1, time.Hour)
	n.Record[len(n.Record)/2] ^= 1
	must(t, b.Repo().PutRecord("names", n.Name, n.Record))
	b = reopen(t, b)
	must(t, b.LogError())
	if err := b.VerifyLog(ctx, b.Origin()); !errors.Is(err, node.ErrDamaged) {
		t.Errorf("verified: %v", err)
	}
	told := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.KeepPublished(running, func(err error) { told <- err })
	}()
	if err := <-told; !errors.Is(err, savepoints.ErrDamaged) {
		t.Errorf("told: %v", err)
	}
	stop()
	<-done
	must(t, b.VerifyLog(ctx, b.Origin()))
}

// What the ledger has of the log is not outweighed by a mirror that shows less, not even
// by one that is this host itself.
func TestStopIsNotLiftedByMirrors(t *testing.T) {
	b, l := newLedgerBank(t, savepoints.InitOptions{})
	take(t, b, smallState(1), "p")
	var gateway http.Handler = http.NotFoundHandler()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { gateway.ServeHTTP(w, r) }))
	t.Cleanup(web.Close)
	b = withMirror(t, b, web.URL)
	old := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	l.publish(t, b)
	var err error
	gateway, err = old.Repo().Gateway(old.LogRoot)
	must(t, err)
	if s := watched(t, old); !errors.Is(s.Err, anchor.ErrRollback) {
		t.Fatalf("the ledger: %+v", s)
	}
	wantStopped(t, old, anchor.ErrRollback)
}

// A mirror that hangs keeps no witness from being heard.
func TestHangingMirror(t *testing.T) {
	w := newRegulator(t)
	b := withMirror(t, newWitnessedBank(t, w), hanging(t))
	_, err := b.Take(ctx, state{"a": "1"}, savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	old := openBank(t, copyBank(t, b))
	_, err = b.Take(ctx, state{"a": "2"}, savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	wantStopped(t, old, anchor.ErrRollback)
}

// A host that is shown more of its own log, by a source or in an archive, stops.
func TestNewerOwnLog(t *testing.T) {
	for name, show := range map[string]func(b, old *savepoints.Bank, newest savepoints.Taken) error{
		"source": func(b, old *savepoints.Bank, _ savepoints.Taken) error {
			_, url := countedGateway(t, b)
			_, err := old.Discover(ctx, savepoints.FetchOptions{Policy: policyOf(t, old), Sources: []string{url}})
			return err
		},
		"archive": func(b, old *savepoints.Bank, newest savepoints.Taken) error {
			_, err := old.Import(ctx, bytes.NewReader(export(t, b, newest.Savepoint)), nil, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := initBank(t)
			take(t, b, smallState(1), "p")
			old := openBank(t, copyBank(t, b))
			take(t, b, smallState(2), "p")
			newest := take(t, b, smallState(3), "p")
			if err := show(b, old, newest); !errors.Is(err, anchor.ErrRollback) {
				t.Errorf("%v", err)
			}
			wantStopped(t, old, anchor.ErrRollback)
		})
	}
}

// Of a log whose receipts were found whole another history is noticed too.
func TestOtherHistoryOfWholeLog(t *testing.T) {
	b := initBank(t)
	take(t, b, state{"a": "0"}, "p")
	other := openBank(t, copyBank(t, b))
	for i := range 80 {
		take(t, b, state{"a": fmt.Sprint("b", i%2)}, "p")
		take(t, other, state{"a": fmt.Sprint("o", i%2)}, "p")
	}
	b, other = reopen(t, b), reopen(t, other)
	must(t, b.Close())
	must(t, other.Close())
	for _, d := range []string{"packs", filepath.Join("meta", "heads")} {
		must(t, os.RemoveAll(filepath.Join(b.Repo().Dir(), d)))
		must(t, os.CopyFS(filepath.Join(b.Repo().Dir(), d), os.DirFS(filepath.Join(other.Repo().Dir(), d))))
	}
	wantStopped(t, openBank(t, b.Repo().Dir()), anchor.ErrFork)
}

// One witness whose clock is wrong is not a quorum of them.
func TestOneWrongClock(t *testing.T) {
	w := newRegulator(t)
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{
		Witnesses: []string{strings.Replace(lateWitness(t), "w ", "late ", 1), w.line}, Quorum: 2,
	})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	w.down.Store(true)
	take(t, b, smallState(1), "p")
}

// Of what a witness claims and does not show this host goes on once it is not said any
// more, in the same process too.
func TestStopByClaim(t *testing.T) {
	w := newRegulator(t)
	claims := true
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if claims {
			rw.Header().Set("Content-Type", "text/x.tlog.size")
			rw.WriteHeader(http.StatusConflict)
			fmt.Fprintln(rw, 1000000)
			return
		}
		w.server.Load().ServeHTTP(rw, r)
	}))
	t.Cleanup(web.Close)
	f := strings.Fields(w.line)
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{Witnesses: []string{"w " + f[1] + " " + web.URL}})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	w.watch(t, b)
	if _, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, anchor.ErrRollback) {
		t.Fatalf("take: %v", err)
	}
	claims = false
	take(t, b, smallState(1), "p")
}

// The key is replaced in the log line, whatever a comment says.
func TestRotateKeyInComment(t *testing.T) {
	b := initBank(t)
	text, err := b.TrustPolicy()
	must(t, err)
	_, line, _ := strings.Cut(string(text), "\nlog ")
	comment := "# as of today: log " + strings.Fields(line)[0] + "\n"
	must(t, os.WriteFile(filepath.Join(b.Repo().Dir(), "trust.policy"), append([]byte(comment), text...), 0o600))
	b = reopen(t, b)
	take(t, b, smallState(1), "p")
	_, err = b.RotateKey(ctx)
	must(t, err)
	must(t, b.FinishRotation(ctx))
	b = reopen(t, b)
	take(t, b, smallState(2), "p")
}

// A receipt under another's name is damage, and mended.
func TestReceiptOfAnotherEntry(t *testing.T) {
	b := initBank(t)
	for i := range 80 {
		take(t, b, state{"a": fmt.Sprint(i % 2)}, "p")
	}
	b = reopen(t, b)
	files := receiptFiles(t, b)
	data, err := os.ReadFile(files[4])
	must(t, err)
	must(t, os.WriteFile(files[3], data, 0o600))
	b = reopen(t, b)
	if _, err := b.Receipts(ctx); !errors.Is(err, savepoints.ErrDamaged) {
		t.Fatalf("receipts: %v", err)
	}
	checkHistory(t, reopen(t, b))
}

// That receipts have their cosignatures is known to the next process.
func TestCosignedIsRemembered(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	w.down.Store(true)
	for i := range 80 {
		take(t, b, state{"a": fmt.Sprint(i % 2)}, "p")
	}
	b = reopen(t, b)
	w.down.Store(false)
	_, err := b.Publish(ctx)
	must(t, err)
	for range 2 {
		if s, err := b.Status(ctx); err != nil || s.Own.Receipts != 80 {
			t.Errorf("%+v %v", s.Own, err)
		}
		b = reopen(t, b)
	}
}
