package anchor_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// testWitness is a witness that listens.
type testWitness struct {
	*httptest.Server
	line  string // of a trust policy
	skey  string
	heads *memStore
	down  atomic.Bool
}

// newWitnesses starts n witnesses of a log: a policy that wants all of them names
// them w0, w1 and so on.
func newWitnesses(t testing.TB, k key, n int) []*testWitness {
	t.Helper()
	var out []*testWitness
	for i := range n {
		name := fmt.Sprintf("w%d", i)
		skey, err := witness.GenerateKey("witness.example/" + name)
		must(t, err)
		signer, err := witness.NewSigner(skey)
		must(t, err)
		w := &testWitness{heads: newMemStore(), skey: skey}
		handler := witness.NewServer(signer, w.heads, []note.Verifier{k.signer.Verifier()}, witness.ServerOptions{Rate: 1e6, Burst: 1e6})
		w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if w.down.Load() {
				http.Error(rw, "down", http.StatusServiceUnavailable)
				return
			}
			handler.ServeHTTP(rw, r)
		}))
		t.Cleanup(w.Close)
		w.line = "witness " + name + " " + handler.Key() + " " + w.URL + "/\n"
		out = append(out, w)
	}
	return out
}

// quorum is a policy that wants so many of the witnesses.
func quorum(t testing.TB, k key, n int, witnesses []*testWitness) *anchor.Policy {
	t.Helper()
	text, group := "log "+k.vkey+"\n", fmt.Sprintf("group q %d", n)
	for i, w := range witnesses {
		text += w.line
		group += fmt.Sprintf(" w%d", i)
	}
	return parsePolicy(t, text+group+"\nquorum q\n")
}

func clients(p *anchor.Policy) []anchor.Witness {
	return witness.Clients(p, witness.ClientOptions{Timeout: time.Minute})
}

// openWitnessed opens or creates a log that has the policy.
func openWitnessed(t testing.TB, s anchor.Store, k key, p *anchor.Policy) *anchor.Log {
	t.Helper()
	l, err := anchor.Open(ctx, s, k.signer, anchor.Options{Create: true, Policy: p})
	must(t, err)
	return l
}

func appendOne(t testing.TB, l *anchor.Log, record string) anchor.Head {
	t.Helper()
	_, h, err := l.Append(ctx, []byte(record))
	must(t, err)
	return h
}

// A head is published once the witnesses that the policy demands have cosigned it,
// and stays signed and durable until then.
func TestPublish(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/published")
	ws := newWitnesses(t, k, 3)
	p := quorum(t, k, 2, ws)
	l := openWitnessed(t, store, k, p)
	appendOne(t, l, "a")
	if _, ok := l.Published(); ok {
		t.Fatal("published without a witness")
	}
	if _, ok, err := anchor.LoadHead(ctx, store, p); ok || err != nil {
		t.Fatalf("readers find a head: %v %v", ok, err)
	}
	ws[0].down.Store(true)
	ws[1].down.Store(true)
	out, err := l.Publish(ctx, clients(p))
	wantError(t, err, anchor.ErrNoQuorum)
	if out.Reports[0].Err == nil || out.Reports[1].Err == nil || out.Reports[2].Err != nil || !strings.Contains(err.Error(), "witness w0") {
		t.Errorf("reports %+v, error %v", out.Reports, err)
	}
	signed := appendOne(t, l, "b")
	store.crash()
	l = openWitnessed(t, store, k, p)
	if h := l.Head(); !equalHeads(h, signed) {
		t.Fatalf("reopened at %+v, not %+v", h, signed)
	}
	ws[1].down.Store(false)
	out, err = l.Publish(ctx, clients(p))
	must(t, err)
	h, ok := l.Published()
	if !ok || h.Size != 2 || !equalHeads(h, out.Head) || len(anchor.CosignedAt(p, h)) != 2 {
		t.Fatalf("published %+v", h)
	}
	// Any reader accepts it, and a reopened log knows it.
	stored, ok, err := anchor.LoadHead(ctx, store, p)
	if err != nil || !ok || !equalHeads(stored, h) {
		t.Fatalf("%+v %v %v", stored, ok, err)
	}
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(store, h.Root), p)
	must(t, err)
	if got := entries(t, v); len(got) != 2 || string(got[1]) != "b" {
		t.Fatalf("records %q", got)
	}
	appendOne(t, l, "c")
	store.crash()
	l = openWitnessed(t, store, k, p)
	if h, _ := l.Published(); h.Size != 2 || l.Head().Size != 3 {
		t.Fatalf("published %d, signed %d", h.Size, l.Head().Size)
	}
	ws[0].down.Store(false) // it has seen nothing so far
	out, err = l.Publish(ctx, clients(p))
	must(t, err)
	if len(anchor.CosignedAt(p, out.Head)) != 3 {
		t.Errorf("reports %+v", out.Reports)
	}
	store.check(t)
}

// Heads of a log whose policy gets a quorum, and loses it again, extend each other.
func TestPolicyChanges(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/changes")
	p := quorum(t, k, 1, newWitnesses(t, k, 1))
	appendOne(t, create(t, store, k), "a")
	l := openWitnessed(t, store, k, p)
	appendOne(t, l, "b")
	if _, ok := l.Published(); ok {
		t.Error("a head without cosignatures counts as published")
	}
	_, err := l.Publish(ctx, clients(p))
	must(t, err)
	appendOne(t, l, "c")
	l = reopen(t, store, k)
	h := appendOne(t, l, "d")
	if h.Size != 4 {
		t.Fatalf("size %d", h.Size)
	}
	l = openWitnessed(t, store, k, p)
	appendOne(t, l, "e")
	out, err := l.Publish(ctx, clients(p))
	must(t, err)
	if out.Size != 5 {
		t.Errorf("size %d", out.Size)
	}
}

// An old copy of the store signs nothing once a witness has been asked.
func TestRolledBackLog(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/rolled-back")
	p := quorum(t, k, 1, newWitnesses(t, k, 1))
	l := openWitnessed(t, store, k, p)
	appendOne(t, l, "a")
	_, err := l.Publish(ctx, clients(p))
	must(t, err)
	backup := store.clone()
	appendOne(t, l, "b")
	_, err = l.Publish(ctx, clients(p))
	must(t, err)

	old := openWitnessed(t, backup.clone(), k, p)
	_, err = old.Publish(ctx, clients(p))
	wantError(t, err, anchor.ErrRollback)
	var evidence *anchor.RollbackError
	if !errors.As(err, &evidence) || evidence.Old.Size != 2 || evidence.New.Size != 1 {
		t.Errorf("evidence %+v", evidence)
	}
	_, _, err = old.Append(ctx, []byte("fork"))
	wantError(t, err, anchor.ErrPoisoned)
	wantError(t, err, anchor.ErrRollback)

	// If it signed before it asked, the witness refuses the fork, of the size that it
	// knows and of larger ones.
	for more := range 3 {
		fork := openWitnessed(t, backup.clone(), k, p)
		for i := range more + 1 {
			appendOne(t, fork, fmt.Sprint("fork ", i))
		}
		_, err = fork.Publish(ctx, clients(p))
		wantError(t, err, anchor.ErrFork)
		_, _, err = fork.Append(ctx, []byte("more"))
		wantError(t, err, anchor.ErrPoisoned)
	}

	// What was published elsewhere is enough too.
	_, err = anchor.Open(ctx, backup, k.signer, anchor.Options{Policy: p, Published: 2})
	wantError(t, err, anchor.ErrRollback)
	_, err = anchor.Open(ctx, newMemStore(), k.signer, anchor.Options{Create: true, Policy: p, Published: 2})
	wantError(t, err, anchor.ErrRollback)
}

// Appends do not wait for witnesses.
func TestAppendWhilePublishing(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/slow")
	ws := newWitnesses(t, k, 1)
	p := quorum(t, k, 1, ws)
	l := openWitnessed(t, store, k, p)
	asked, answer := make(chan struct{}), make(chan struct{})
	real := clients(p)[0]
	slow := witnessFunc{real, func(ctx context.Context, ask func() ([]byte, error)) ([]byte, error) {
		close(asked)
		<-answer
		return ask()
	}}
	appendOne(t, l, "a")
	done := make(chan error, 1)
	go func() {
		_, err := l.Publish(ctx, []anchor.Witness{slow})
		done <- err
	}()
	<-asked
	for i := range 300 {
		appendOne(t, l, fmt.Sprint(i))
	}
	close(answer)
	must(t, <-done)
	if h, ok := l.Published(); !ok || h.Size != 1 {
		t.Fatalf("published %d", h.Size)
	}
	_, err := l.Publish(ctx, clients(p))
	must(t, err)
	if h, _ := l.Published(); h.Size != 301 {
		t.Fatalf("published %d", h.Size)
	}
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(store, must1(l.Published()).Root), p)
	must(t, err)
	if n := len(entries(t, v)); n != 301 {
		t.Fatalf("%d records", n)
	}
}

func must1(h anchor.Head, _ bool) anchor.Head { return h }

// A fault anywhere between signing and publishing leaves heads that extend each
// other, and a log that goes on.
func TestCrashWhilePublishing(t *testing.T) {
	for _, late := range []bool{false, true} {
		for n, done := 1, false; !done; n++ {
			store, k := newMemStore(), newKey(t, "log.example/crash-publishing")
			p := quorum(t, k, 1, newWitnesses(t, k, 1))
			l := openWitnessed(t, store, k, p)
			appendOne(t, l, "a")
			_, err := l.Publish(ctx, clients(p))
			must(t, err)
			store.ops, store.failAt, store.late = 0, n, late
			_, _, err = l.Append(ctx, []byte("b"))
			if err == nil {
				_, err = l.Publish(ctx, clients(p))
			}
			done = err == nil
			if !done {
				wantError(t, err, errInjected)
			}
			signed := l.Head()
			store.crash()
			l = openWitnessed(t, store, k, p)
			if l.Head().Size < signed.Size {
				t.Fatalf("fault %d: signed %d, reopened at %d", n, signed.Size, l.Head().Size)
			}
			appendOne(t, l, "c")
			out, err := l.Publish(ctx, clients(p))
			must(t, err)
			v, err := anchor.OpenView(ctx, anchor.LocalFetcher(store, out.Root), p)
			must(t, err)
			must(t, v.Extends(ctx, signed))
			entries(t, v)
			store.check(t)
			if n > 60 {
				t.Fatal("the fault never passes")
			}
		}
	}
}

// witnessFunc is a witness with something before its answer.
type witnessFunc struct {
	anchor.Witness
	around func(ctx context.Context, ask func() ([]byte, error)) ([]byte, error)
}

func (w witnessFunc) Cosign(ctx context.Context, old int64, proof tlog.TreeProof, checkpoint []byte) ([]byte, error) {
	return w.around(ctx, func() ([]byte, error) { return w.Witness.Cosign(ctx, old, proof, checkpoint) })
}

// A reader that is shown an old head learns it from the witnesses, and believes none
// of them more than their keys.
func TestFreshness(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/fresh")
	ws := newWitnesses(t, k, 2)
	p := quorum(t, k, 2, ws)
	l := openWitnessed(t, store, k, p)
	appendOne(t, l, "a")
	first, err := l.Publish(ctx, clients(p))
	must(t, err)
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(store, first.Root), p)
	must(t, err)
	again, err := v.Cosign(ctx, p, clients(p), v.Head().Size)
	must(t, err)
	for name, at := range anchor.CosignedAt(p, again.Head) {
		if at.Before(anchor.CosignedAt(p, first.Head)[name]) {
			t.Errorf("cosignature of %s went back", name)
		}
	}
	appendOne(t, l, "b")
	_, err = l.Publish(ctx, clients(p))
	must(t, err)
	_, err = v.Cosign(ctx, p, clients(p), v.Head().Size)
	wantError(t, err, anchor.ErrRollback)

	newest, _ := l.Published()
	v, err = anchor.OpenView(ctx, anchor.LocalFetcher(store, newest.Root), p)
	must(t, err)
	answer := func(say func(ask func() ([]byte, error)) ([]byte, error)) []anchor.Witness {
		c := clients(p)
		return []anchor.Witness{c[0], witnessFunc{c[1], func(_ context.Context, ask func() ([]byte, error)) ([]byte, error) { return say(ask) }}}
	}
	for name, say := range map[string]func(ask func() ([]byte, error)) ([]byte, error){
		"nothing":           func(func() ([]byte, error)) ([]byte, error) { return nil, nil },
		"garbage":           func(func() ([]byte, error)) ([]byte, error) { return []byte("\u2014 x y\n"), nil },
		"a long answer":     func(func() ([]byte, error)) ([]byte, error) { return make([]byte, 1<<17), nil },
		"unreachable":       func(func() ([]byte, error)) ([]byte, error) { return nil, anchor.ErrUnavailable },
		"sizes without end": sizesWithoutEnd(),
		"an old cosignature": func(func() ([]byte, error)) ([]byte, error) {
			return cosignedAt(t, ws[1], v.Head(), time.Now().Add(-time.Hour)), nil
		},
		"one of tomorrow": func(func() ([]byte, error)) ([]byte, error) {
			return cosignedAt(t, ws[1], v.Head(), time.Now().Add(24*time.Hour)), nil
		},
		"of another witness": func(func() ([]byte, error)) ([]byte, error) {
			return clients(p)[0].Cosign(ctx, 2, nil, v.Head().Checkpoint)
		},
	} {
		out, err := v.Cosign(ctx, p, answer(say), v.Head().Size)
		if !errors.Is(err, anchor.ErrNoQuorum) || out.Reports[0].Err != nil {
			t.Errorf("%s: %v %+v", name, err, out.Reports)
		}
	}
	// The same made now counts.
	_, err = v.Cosign(ctx, p, answer(func(func() ([]byte, error)) ([]byte, error) { return cosignedAt(t, ws[1], v.Head(), time.Now()), nil }), v.Head().Size)
	must(t, err)
	limited, cancel := context.WithCancel(ctx)
	cancel()
	_, err = v.Cosign(limited, p, clients(p), v.Head().Size)
	wantError(t, err, context.Canceled)
}

// sizesWithoutEnd is a witness that always means another size.
func sizesWithoutEnd() func(func() ([]byte, error)) ([]byte, error) {
	var n atomic.Int64
	return func(func() ([]byte, error)) ([]byte, error) { return nil, &anchor.SizeError{Size: n.Add(1) % 2} }
}

// cosignedAt is a cosignature (c2sp.org/tlog-cosignature) of some time.
func cosignedAt(t testing.TB, w *testWitness, h anchor.Head, at time.Time) []byte {
	t.Helper()
	signer, err := witness.NewSigner(w.skey)
	must(t, err)
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(w.skey, "+", 5)[4])
	must(t, err)
	text, _, _ := strings.Cut(string(h.Checkpoint), "\n\n")
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s\n", at.Unix(), text)
	sig := binary.BigEndian.AppendUint32(nil, signer.KeyHash())
	sig = binary.BigEndian.AppendUint64(sig, uint64(at.Unix()))
	sig = append(sig, ed25519.Sign(ed25519.NewKeyFromSeed(raw[1:]), []byte(message))...)
	return fmt.Appendf(nil, "\u2014 %s %s\n", signer.Name(), base64.StdEncoding.EncodeToString(sig))
}

// liar is a witness that refuses every head, and shows what it is told to.
func liar(t *testing.T, status int, answer string, shown func() []byte) string {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			w.WriteHeader(status)
			fmt.Fprint(w, answer)
		case shown == nil || !strings.HasSuffix(r.URL.Path, "/checkpoint"):
			http.NotFound(w, r)
		default:
			w.Write(shown())
		}
	}))
	t.Cleanup(web.Close)
	return web.URL
}

// What a single witness says against a head counts if it shows the head that it means, or
// if the others make no quorum.
func TestOneWitnessAgainstAQuorum(t *testing.T) {
	k := newKey(t, "log.example/liar")
	other := newKey(t, "log.example/liar")
	ws := newWitnesses(t, k, 3)
	p := quorum(t, k, 2, ws)
	store := newMemStore()
	l := openWitnessed(t, store, k, p)
	first := appendOne(t, l, "a")
	backup := store.clone()
	_, err := l.Publish(ctx, clients(p))
	must(t, err)
	fork := openWitnessed(t, backup, k, p)
	forked := appendOne(t, fork, "x")
	second := appendOne(t, l, "b")
	_, err = l.Publish(ctx, clients(p))
	must(t, err)
	third := appendOne(t, openWitnessed(t, store.clone(), k, p), "c") // no honest witness has seen it
	foreign := appendOne(t, create(t, newMemStore(), other), "x")
	v, err := anchor.OpenViewAt(ctx, anchor.LocalFetcher(store, second.Root), p.KeyOnly(), second.Checkpoint)
	must(t, err)
	checkpoint := func(h anchor.Head) func() []byte { return func() []byte { return h.Checkpoint } }
	for name, c := range map[string]struct {
		status int
		answer string
		shown  func() []byte
		want   error
	}{
		"a size, nothing shown":      {http.StatusConflict, "1099511627776\n", nil, nil},
		"a size, garbage shown":      {http.StatusConflict, "9\n", func() []byte { return []byte("garbage") }, nil},
		"a size, another key's head": {http.StatusConflict, "9\n", checkpoint(foreign), nil},
		"a size, an older head":      {http.StatusConflict, "9\n", checkpoint(first), nil},
		"a larger head":              {http.StatusConflict, "3\n", checkpoint(third), anchor.ErrRollback},
		"refused, nothing shown":     {http.StatusUnprocessableEntity, "", nil, nil},
		"refused, the same head":     {http.StatusUnprocessableEntity, "", checkpoint(second), nil},
		"refused, a forked head":     {http.StatusUnprocessableEntity, "", checkpoint(forked), anchor.ErrFork},
	} {
		asked := clients(p)
		asked[1] = witness.NewClient("w1", liar(t, c.status, c.answer, c.shown), witness.ClientOptions{})
		out, err := v.Cosign(ctx, p, asked, 2)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if out.Reports[1].Err == nil {
			t.Errorf("%s: not reported", name)
		}
		var proven *anchor.ForkError
		var larger *anchor.RollbackError
		if c.want != nil && !(errors.As(err, &proven) || errors.As(err, &larger) && larger.Old.Checkpoint != nil) {
			t.Errorf("%s: no evidence in %v", name, err)
		}
		// Without a quorum of others it is believed as it is.
		ws[0].down.Store(true)
		if _, err := v.Cosign(ctx, p, asked, 2); !errors.Is(err, anchor.ErrRollback) && !errors.Is(err, anchor.ErrFork) {
			t.Errorf("%s, without a quorum: %v", name, err)
		}
		ws[0].down.Store(false)
	}
}

// A fault while the published head is stored, before or after it took effect, does not
// keep the next call from publishing, with the log as it is open.
func TestPublishAgainAfterFault(t *testing.T) {
	for _, late := range []bool{false, true} {
		for n, done := 1, false; !done; n++ {
			store, k := newMemStore(), newKey(t, "log.example/fault")
			p := quorum(t, k, 1, newWitnesses(t, k, 1))
			l := openWitnessed(t, store, k, p)
			appendOne(t, l, "a")
			_, err := l.Publish(ctx, clients(p))
			must(t, err)
			appendOne(t, l, "b")
			store.ops, store.failAt, store.late = 0, n, late
			_, err = l.Publish(ctx, clients(p))
			if done = err == nil; !done {
				wantError(t, err, errInjected)
			}
			store.failAt = 0
			out, err := l.Publish(ctx, clients(p))
			if err != nil || out.Size != 2 {
				t.Fatalf("fault %d, late %t: %v", n, late, err)
			}
			if n > 60 {
				t.Fatal("the fault never passes")
			}
		}
	}
}

// A witness that never answers holds nothing up that needs no more signatures.
func TestQuorumWithoutStragglers(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/straggler")
	p := quorum(t, k, 2, newWitnesses(t, k, 3))
	l := openWitnessed(t, store, k, p)
	appendOne(t, l, "a")
	witnesses := clients(p)
	silent := witnesses[1]
	witnesses[1] = witnessFunc{silent, func(ctx context.Context, _ func() ([]byte, error)) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := l.Publish(limited, witnesses)
	must(t, err)
	for i, r := range out.Reports {
		if silent := i == 1; silent != errors.Is(r.Err, anchor.ErrUnavailable) || silent != r.Time.IsZero() {
			t.Errorf("witness %s: %v", r.Witness, r.Err)
		}
	}
	if limited.Err() != nil {
		t.Error("it was waited for")
	}
}
