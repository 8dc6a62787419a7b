package savepoints_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// wantStopped requires that nothing can be signed in a bank's log, however often it is
// tried and opened.
func wantStopped(t *testing.T, b *savepoints.Bank, why error) *savepoints.Bank {
	t.Helper()
	before, err := b.Head(ctx, "")
	must(t, err)
	for i := range 3 {
		_, err := b.Take(ctx, state{"a": fmt.Sprint("stopped", i)}, savepoints.TakeOptions{Policy: "p"})
		if !errors.Is(err, why) && !errors.Is(err, anchor.ErrPoisoned) {
			t.Errorf("take %d: %v", i, err)
		}
	}
	b = reopen(t, b)
	if _, err := b.Note(ctx, "x"); !errors.Is(err, why) {
		t.Errorf("note after another open: %v", err)
	}
	after, err := b.Head(ctx, "")
	must(t, err)
	if after.Size != before.Size {
		t.Errorf("the log grew from %d to %d", before.Size, after.Size)
	}
	return b
}

// Of two hosts that write one log the one that comes second stops, and stays so when its
// witness is silent, and when it is opened again.
func TestSecondWriterStaysStopped(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	_, err := b.Take(ctx, state{"a": "1"}, savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	other := openBank(t, copyBank(t, b))
	_, err = other.Take(ctx, state{"a": "2"}, savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	if _, err := b.Publish(ctx); !errors.Is(err, anchor.ErrRollback) {
		t.Fatalf("publish: %v", err)
	}
	b = wantStopped(t, b, anchor.ErrRollback)
	w.down.Store(true)
	wantStopped(t, b, anchor.ErrRollback)
}

// Who was stopped goes on once the witnesses say that what is here is the newest.
func TestStoppedWriterGoesOn(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	_, err := b.Take(ctx, state{"a": "1"}, savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	key := savepoints.LogID(b.Origin())[:16]
	must(t, b.Repo().PutRecord("stopped", key, []byte(`{"v":1,"why":"somebody said so","heads":[]}`)))
	w.down.Store(true)
	if _, err := b.Take(ctx, state{"a": "2"}, savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, anchor.ErrRollback) || !strings.Contains(err.Error(), "somebody said so") {
		t.Fatalf("while nobody says otherwise: %v", err)
	}
	if s, err := b.Status(ctx); err != nil || !s.Own.Stopped {
		t.Errorf("status: %+v %v", s.Own, err)
	}
	w.down.Store(false)
	take(t, b, state{"a": "2"}, "p")
	if s, err := b.Status(ctx); err != nil || s.Own.Stopped {
		t.Errorf("status: %+v %v", s.Own, err)
	}
	if why, err := b.Repo().Record("stopped", key); err != nil || why != nil {
		t.Errorf("the record is still there: %s %v", why, err)
	}
}

// Files of the repository that are older than others say that the log is an old copy: its
// receipts are under heads that it does not have.
func TestOldHeadFiles(t *testing.T) {
	heads := func(b *savepoints.Bank, pattern string) []string {
		found, err := filepath.Glob(filepath.Join(b.Repo().Dir(), "meta", "heads", pattern))
		must(t, err)
		return found
	}
	t.Run("head", func(t *testing.T) {
		b := initBank(t)
		take(t, b, state{"a": "1"}, "p")
		file := heads(b, "*")[0]
		old, err := os.ReadFile(file)
		must(t, err)
		take(t, b, state{"a": "2"}, "p")
		must(t, b.Close())
		must(t, os.WriteFile(file, old, 0o600))
		b = wantStopped(t, openBank(t, b.Repo().Dir()), anchor.ErrRollback)
		if found, _ := filepath.Glob(filepath.Join(b.Repo().Dir(), "evidence", "*")); len(found) == 0 {
			t.Error("nothing was kept of it")
		}
	})
	t.Run("pending head", func(t *testing.T) {
		w := newRegulator(t)
		b := newWitnessedBank(t, w)
		_, err := b.Take(ctx, state{"a": "1"}, savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
		must(t, err)
		w.down.Store(true)
		take(t, b, state{"a": "2"}, "p")
		must(t, b.Close())
		must(t, os.Remove(heads(b, "*-pending")[0]))
		wantStopped(t, openBank(t, b.Repo().Dir()), anchor.ErrRollback)
	})
	t.Run("forked already", func(t *testing.T) {
		b := initBank(t)
		take(t, b, state{"a": "1"}, "p")
		other := openBank(t, copyBank(t, b))
		take(t, b, state{"a": "2"}, "p")
		take(t, other, state{"a": "3"}, "p")
		must(t, b.Close())
		must(t, other.Close())
		for i, file := range heads(b, "*") {
			data, err := os.ReadFile(heads(other, "*")[i])
			must(t, err)
			must(t, os.WriteFile(file, data, 0o600))
		}
		must(t, os.CopyFS(filepath.Join(b.Repo().Dir(), "other"), os.DirFS(filepath.Join(other.Repo().Dir(), "packs"))))
		// The tiles of the other head are missing, which is damage, and no reason to sign.
		b = openBank(t, b.Repo().Dir())
		if _, err := b.Take(ctx, state{"a": "4"}, savepoints.TakeOptions{Policy: "p"}); err == nil {
			t.Error("it signs")
		}
	})
}

// A note of a pending manifest that is older than the log unpins nothing.
func TestOldPendingNote(t *testing.T) {
	b := initBank(t)
	one := take(t, b, smallState(1), "p")
	take(t, b, smallState(2), "p")
	must(t, b.Repo().PutRecord("pending", hexOf(one.Entry.Policy[:]), []byte(one.CID.String())))
	take(t, b, smallState(3), "p")
	_, err := b.Verify(ctx, one.Savepoint)
	must(t, err)
}

// After the log's key was replaced, an old copy of one of the files is refused: what it
// would sign nobody believes.
func TestOldFilesAfterRotation(t *testing.T) {
	for _, name := range []string{"log.key", "trust.policy"} {
		b := initBank(t)
		take(t, b, smallState(1), "p")
		old, err := b.Repo().ReadFile(name)
		must(t, err)
		_, err = b.RotateKey(ctx)
		must(t, err)
		must(t, b.FinishRotation(ctx))
		dir := b.Repo().Dir()
		now, err := b.Repo().ReadFile(name)
		must(t, err)
		must(t, b.Close())
		must(t, os.WriteFile(filepath.Join(dir, name), old, 0o600))
		if opened, err := savepoints.Open(ctx, dir); !errors.Is(err, anchor.ErrPolicy) {
			t.Errorf("an old %s: %v", name, err)
			if err == nil {
				must(t, opened.Close())
			}
		}
		must(t, os.WriteFile(filepath.Join(dir, name), now, 0o600))
		take(t, openBank(t, dir), smallState(2), "p")
	}
}

// A log whose only entries wait for witnesses is not forgotten by init.
func TestInitAfterLostKey(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	w.down.Store(true)
	take(t, b, smallState(1), "p")
	must(t, b.Close())
	must(t, os.Remove(filepath.Join(b.Repo().Dir(), "log.key")))
	if _, err := savepoints.Init(ctx, b.Repo().Dir(), savepoints.InitOptions{}); !errors.Is(err, savepoints.ErrLogExists) {
		t.Errorf("init: %v", err)
	}
}

// Where policies have private ids, a host without the key of their names does not take
// the log over: it could never save.
func TestContinueWithoutPolicyKey(t *testing.T) {
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{PrivateIDs: true})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	take(t, b, smallState(1), "p")
	_, url := countedGateway(t, b)
	skey, err := b.Repo().ReadFile("log.key")
	must(t, err)
	policy, err := b.TrustPolicy()
	must(t, err)
	keys, err := savepoints.LogKey(skey, policy)
	must(t, err)
	dir := filepath.Join(t.TempDir(), "next")
	if _, err := savepoints.Continue(ctx, dir, savepoints.ContinueOptions{Keys: keys, Sources: []string{url}, Unwitnessed: true}); !errors.Is(err, savepoints.ErrKeys) {
		t.Errorf("continue: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "log.key")); err == nil {
		t.Error("the key is in its place")
	}
}

// What was taken last goes to the targets once it is witnessed, and does not wait for
// what comes next.
func TestReplicationOfWitnessed(t *testing.T) {
	w := newRegulator(t)
	backup := t.TempDir()
	b := withTargets(t, newWitnessedBank(t, w), backup)
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{}, 2)
	go func() { b.Replication().Run(running, func(replication.Status) {}); done <- struct{}{} }()
	go func() { b.KeepPublished(running, nil); done <- struct{}{} }()
	defer func() { stop(); <-done; <-done }()
	for i := range 3 {
		take(t, b, smallState(i), "p")
		await(t, "its archive", func() bool {
			files, err := filepath.Glob(filepath.Join(backup, "*.car"))
			return err == nil && len(files) == i+1
		})
	}
}

// A witness that does not answer is waited for once, and not by each take.
func TestTakeWithSilentWitness(t *testing.T) {
	w := newRegulator(t)
	asked := make(chan struct{}, 100)
	end := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-end
	}))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(end) })
	line := strings.Fields(w.line)
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{Witnesses: []string{line[0] + " " + line[1] + " " + silent.URL}})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	for i := range 3 {
		take(t, b, smallState(i), "p")
	}
	if len(asked) != 1 {
		t.Errorf("it was asked %d times", len(asked))
	}
}

// blocking is a source that is read until it is released.
type blocking struct{ started, release chan struct{} }

func (s blocking) Documents(context.Context) iter.Seq2[savepoints.Document, error] {
	return func(yield func(savepoints.Document, error) bool) {
		close(s.started)
		<-s.release
		yield(savepoints.Document{}, errors.New("released"))
	}
}

func (blocking) Consistency(context.Context) (dag.Consistency, error) { return dag.Consistency{}, nil }

// What is wrong with the log can be asked while a take is in progress.
func TestLogErrorDoesNotWait(t *testing.T) {
	b := initBank(t)
	s := blocking{make(chan struct{}), make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := b.Take(ctx, s, savepoints.TakeOptions{Policy: "p"})
		done <- err
	}()
	<-s.started
	must(t, b.LogError()) // or the test hangs
	close(s.release)
	if err := <-done; err == nil {
		t.Error("the take did not see its source's error")
	}
}

// Receipts are made anew in batches: an interruption loses nothing of it.
func TestCosignInBatches(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	w.down.Store(true)
	const n = 140
	for i := range n {
		take(t, b, state{"a": fmt.Sprint(i % 2)}, "p")
	}
	w.down.Store(false)
	p := policyOf(t, b)
	cosigned := func() (count int) {
		keys, err := b.Repo().Records("receipts")
		must(t, err)
		for _, key := range keys {
			proof, err := b.Repo().Record("receipts", key)
			must(t, err)
			if _, err := anchor.VerifyProof(p, proof); err == nil {
				count++
			}
		}
		return count
	}
	last := 0
	for rounds := 0; last < n; rounds++ {
		limited, cancel := context.WithCancel(ctx)
		stopped := make(chan struct{})
		go func() { // as soon as there is progress
			defer close(stopped)
			for limited.Err() == nil && cosigned() <= last {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_, err := b.Publish(limited)
		cancel()
		<-stopped
		now := cosigned()
		if now <= last && err != nil || rounds > n {
			t.Fatalf("round %d: %d of %d receipts, then %d: %v", rounds, last, n, now, err)
		}
		last = now
	}
}

// lateWitness cosigns whatever it is shown, by a clock that is an hour late
// (c2sp.org/tlog-cosignature, Ed25519).
func lateWitness(t *testing.T) (line string) {
	t.Helper()
	skey, err := witness.GenerateKey("witness.example/late")
	must(t, err)
	signer, err := witness.NewSigner(skey)
	must(t, err)
	f := strings.SplitN(skey, "+", 5) // PRIVATE, KEY, name, hash, key
	key, err := base64.StdEncoding.DecodeString(f[4])
	must(t, err)
	hash := signer.Verifier().KeyHash()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		_, checkpoint, _ := strings.Cut(string(body), "\n\n")
		text, _, _ := strings.Cut(checkpoint, "\n\n")
		at := uint64(time.Now().Add(-time.Hour).Unix())
		sig := ed25519.Sign(ed25519.NewKeyFromSeed(key[1:]), fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", at, text))
		sig = append(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, hash), at), sig...)
		fmt.Fprintf(w, "\u2014 %s %s\n", f[2], base64.StdEncoding.EncodeToString(sig))
	}))
	t.Cleanup(web.Close)
	return "w " + signer.Verifier().String() + " " + web.URL
}

// A clock that is wrong beside that of the witnesses is noticed before it is in the log,
// where time never goes back.
func TestWrongClock(t *testing.T) {
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{Witnesses: []string{lateWitness(t)}})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	for range 2 {
		if _, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, anchor.ErrStale) || !strings.Contains(err.Error(), "clocks") {
			t.Errorf("take: %v", err)
		}
	}
	if n := len(list(t, b)); n != 0 {
		t.Errorf("%d save points", n)
	}
}
