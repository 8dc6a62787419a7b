package savepoints_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// keysOf returns the keys of a bank by way of a file.
func keysOf(t *testing.T, b *savepoints.Bank) savepoints.Keys {
	t.Helper()
	_, keys := exportKeys(t, b)
	return keys
}

// continueOn continues a log in a repository, which it closes at the end of the test.
func continueOn(t *testing.T, dir string, o savepoints.ContinueOptions) (*savepoints.Bank, error) {
	t.Helper()
	b, err := savepoints.Continue(ctx, dir, o)
	if err == nil {
		t.Cleanup(func() { b.Close() })
	}
	return b, err
}

// takeWitnessed takes n save points of each of two policies.
func takeWitnessed(t *testing.T, b *savepoints.Bank, n int) {
	t.Helper()
	for i := range n {
		for _, p := range []string{"p", "q"} {
			_, err := b.Take(ctx, smallState(i), savepoints.TakeOptions{Policy: p, Witnessed: time.Minute})
			must(t, err)
		}
	}
}

// A log is not continued from a head when a larger one was signed, whose entries nobody
// gives.
func TestContinueWithheld(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	old := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	c, url := countedGateway(t, b)
	c.deny = "/tlog/" + savepoints.LogID(b.Origin()) + "/tile/"
	_, behind := countedGateway(t, old)
	dir := filepath.Join(t.TempDir(), "next")
	o := savepoints.ContinueOptions{Keys: keysOf(t, b), Sources: []string{url, behind}, Unwitnessed: true}
	if _, err := continueOn(t, dir, o); !errors.Is(err, anchor.ErrStale) {
		t.Fatal(err)
	}
	isReader(t, dir)
}

// Without a source a log is not continued from a copy when a larger head is known here.
func TestContinueBehindArchive(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	_, url := countedGateway(t, b)
	r, p := reader(t, b)
	f := follow(t, r, savepoints.FollowOptions{Policy: p, Sources: []string{url}})
	f.await(t, 1)
	await(t, "a copy of the log", func() bool {
		h, err := r.Head(ctx, p.Origin)
		return err == nil && h.Root.Defined()
	})
	f.stop(t)
	imports(t, r, p, archived(t, b, take(t, b, smallState(2), "p")))
	must(t, r.Close())
	dir := r.Repo().Dir()
	o := savepoints.ContinueOptions{Keys: keysOf(t, b), Unwitnessed: true}
	if _, err := continueOn(t, dir, o); !errors.Is(err, anchor.ErrRollback) {
		t.Fatal(err)
	}
	isReader(t, dir)
	o.Sources = []string{url}
	next, err := continueOn(t, dir, o)
	must(t, err)
	if s := take(t, next, smallState(3), "p"); s.Entry.Sequence != 3 {
		t.Errorf("%+v", s.Entry)
	}
}

// isReader checks that a repository has no key and signed nothing.
func isReader(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "log.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key is in the repository: %v", err)
	}
}

// The host is gone, and another one continues its log, with the consent of the witness.
func TestContinue(t *testing.T) {
	w := newRegulator(t)
	old := newWitnessedBank(t, w)
	takeWitnessed(t, old, 2)
	keys, n := keysOf(t, old), serve(t, old)
	dir := filepath.Join(t.TempDir(), "next")
	o := savepoints.ContinueOptions{Keys: keys, Sources: []string{n.GatewayURL()}}

	w.down.Store(true)
	if _, err := continueOn(t, dir, o); !errors.Is(err, anchor.ErrNoQuorum) {
		t.Fatalf("without the witness: %v", err)
	}
	isReader(t, dir)
	w.down.Store(false)
	b, err := continueOn(t, dir, o)
	must(t, err)
	h, err := b.Head(ctx, "")
	must(t, err)
	if h.Size != 6 {
		t.Errorf("published size %d", h.Size)
	}
	for i, p := range []string{"p", "q"} {
		s, err := b.Take(ctx, smallState(7+i), savepoints.TakeOptions{Policy: p, Witnessed: time.Minute})
		must(t, err)
		if s.Entry.Epoch != 1 || s.Entry.Sequence != 3 || !s.Witnessed || s.Entry.Instance != list(t, old)[0].Entry.Instance {
			t.Errorf("the first one here: %+v", s.Entry)
		}
	}
	// The other host was not dead, and is stopped by the witness.
	_, err = old.Take(ctx, smallState(9), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	if !errors.Is(err, anchor.ErrRollback) && !errors.Is(err, anchor.ErrFork) {
		t.Errorf("the old host: %v", err)
	}
	// It is not done twice.
	must(t, b.Close())
	if _, err := continueOn(t, dir, o); !errors.Is(err, savepoints.ErrLogExists) {
		t.Errorf("again: %v", err)
	}
	b = openBank(t, dir)
	if s := take(t, b, smallState(1), "p"); s.Entry.Epoch != 1 || s.Entry.Sequence != 4 {
		t.Errorf("%+v", s.Entry)
	}
}

// A mirror that has nothing but the files of the log is enough to continue it.
func TestContinueFromPrefix(t *testing.T) {
	w := newRegulator(t)
	old := newWitnessedBank(t, w)
	takeWitnessed(t, old, 1)
	mirror := t.TempDir()
	copyLog(t, old, mirror)
	dir := filepath.Join(t.TempDir(), "next")
	o := savepoints.ContinueOptions{Keys: keysOf(t, old), Sources: []string{"/ipns/k51"}}
	if _, err := continueOn(t, dir, o); !errors.Is(err, savepoints.ErrUsage) {
		t.Errorf("a name that nobody is asked for: %v", err)
	}
	o.Sources = []string{mirror}
	b, err := continueOn(t, dir, o)
	must(t, err)
	must(t, b.LogError())
	must(t, b.VerifyLog(ctx, old.Origin()))
	if h := mustHead(t, b); h.Size < 2 {
		t.Errorf("size %d", h.Size)
	}
}

// A source that shows an old log, or another one, is told by the witness.
func TestContinueFromAnOldSource(t *testing.T) {
	w := newRegulator(t)
	first := newWitnessedBank(t, w)
	takeWitnessed(t, first, 1)
	keys := keysOf(t, first)
	must(t, first.Close())
	old, fork := filepath.Join(t.TempDir(), "old"), filepath.Join(t.TempDir(), "fork")
	must(t, os.CopyFS(old, os.DirFS(first.Repo().Dir())))
	must(t, os.CopyFS(fork, os.DirFS(first.Repo().Dir())))
	first = openBank(t, first.Repo().Dir())
	takeWitnessed(t, first, 1)

	dir := filepath.Join(t.TempDir(), "next")
	_, err := continueOn(t, dir, savepoints.ContinueOptions{Keys: keys, Sources: []string{old}})
	var rollback *anchor.RollbackError
	if !errors.As(err, &rollback) || rollback.Old.Size != 4 || rollback.New.Size != 2 {
		t.Errorf("old source: %v", err)
	}
	isReader(t, dir)
	// With the newest one beside it all is well.
	b, err := continueOn(t, dir, savepoints.ContinueOptions{Keys: keys, Sources: []string{old, serve(t, first).GatewayURL()}})
	must(t, err)
	if s := take(t, b, smallState(1), "p"); s.Entry.Sequence != 3 {
		t.Errorf("%+v", s.Entry)
	}
}

// Two sources that contradict each other are evidence that somebody forked the log.
func TestContinueOfAFork(t *testing.T) {
	first := initBank(t)
	take(t, first, smallState(1), "p")
	keys := keysOf(t, first)
	must(t, first.Close())
	fork := filepath.Join(t.TempDir(), "fork")
	must(t, os.CopyFS(fork, os.DirFS(first.Repo().Dir())))
	first, other := openBank(t, first.Repo().Dir()), openBank(t, fork)
	take(t, first, smallState(2), "p")
	take(t, other, smallState(3), "p")
	dir := filepath.Join(t.TempDir(), "next")
	_, err := continueOn(t, dir, savepoints.ContinueOptions{
		Keys: keys, Sources: []string{serve(t, first).GatewayURL(), serve(t, other).GatewayURL()}, Unwitnessed: true,
	})
	var evidence *anchor.ForkError
	if !errors.As(err, &evidence) || len(evidence.Old.Checkpoint) == 0 || len(evidence.New.Checkpoint) == 0 {
		t.Errorf("%v", err)
	}
	isReader(t, dir)
}

// Without witnesses nobody can tell, so somebody has to say it.
func TestContinueUnwitnessed(t *testing.T) {
	old := initBank(t)
	take(t, old, smallState(1), "p")
	n, dir := serve(t, old), filepath.Join(t.TempDir(), "next")
	o := savepoints.ContinueOptions{Keys: keysOf(t, old), Sources: []string{n.GatewayURL()}}
	if _, err := continueOn(t, dir, o); !errors.Is(err, savepoints.ErrUnwitnessed) {
		t.Errorf("%v", err)
	}
	isReader(t, dir)
	o.Unwitnessed = true
	for what, change := range map[string]func(*savepoints.ContinueOptions){
		"no source":        func(o *savepoints.ContinueOptions) { o.Sources = nil },
		"an archive":       func(o *savepoints.ContinueOptions) { o.Sources = []string{"/dev/null"} },
		"a missing folder": func(o *savepoints.ContinueOptions) { o.Sources = []string{dir + "-missing"} },
	} {
		with := o
		change(&with)
		if _, err := continueOn(t, dir, with); !errors.Is(err, savepoints.ErrUsage) {
			t.Errorf("%s: %v", what, err)
		}
	}
	o.Keys = savepoints.Keys{}
	if _, err := continueOn(t, dir, o); !errors.Is(err, savepoints.ErrNoLogKey) {
		t.Errorf("without keys: %v", err)
	}
}

// A crash between the takeovers of several policies: they are finished by what comes next,
// none twice.
func TestTakeoverIsFinished(t *testing.T) {
	old := initBank(t)
	for _, p := range []string{"p", "q", "r"} {
		take(t, old, smallState(1), p)
	}
	dir := filepath.Join(t.TempDir(), "next")
	b, err := continueOn(t, dir, savepoints.ContinueOptions{Keys: keysOf(t, old), Sources: []string{serve(t, old).GatewayURL()}, Unwitnessed: true})
	must(t, err)
	key := savepoints.LogID(b.Origin())[:16]
	before, err := b.Head(ctx, "")
	must(t, err)
	if before.Size != 6 {
		t.Fatalf("size %d", before.Size)
	}
	// If writing had begun at 5, the policies taken over by entries 3 and 4 would not
	// have been yet.
	for from, want := range map[string]int64{"3": 0, "5": 2} {
		dir := filepath.Join(t.TempDir(), "copy")
		must(t, os.CopyFS(dir, os.DirFS(b.Repo().Dir())))
		must(t, os.MkdirAll(filepath.Join(dir, "meta/continued"), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "meta/continued", key), []byte(from), 0o600))
		c := openBank(t, dir)
		_, err = c.Note(ctx, "on we go")
		must(t, err)
		after, err := c.Head(ctx, "")
		must(t, err)
		if got := after.Size - before.Size - 1; got != want {
			t.Errorf("from %s: %d takeovers, want %d", from, got, want)
		}
		if left, err := c.Repo().Record("continued", key); left != nil || err != nil {
			t.Errorf("the record is still there: %s, %v", left, err)
		}
	}
}

func TestContinueAFrozenLog(t *testing.T) {
	old := initBank(t)
	take(t, old, smallState(1), "p")
	_, err := old.Freeze(ctx)
	must(t, err)
	_, err = continueOn(t, filepath.Join(t.TempDir(), "next"), savepoints.ContinueOptions{Keys: keysOf(t, old), Sources: []string{serve(t, old).GatewayURL()}, Unwitnessed: true})
	if !errors.Is(err, entry.ErrFrozen) {
		t.Errorf("%v", err)
	}
}

// A new log can be begun when the witnesses of the old one are gone, by who accepts that
// what is found of the old one may not be its newest head.
func TestNewLogWithoutTheOldWitnesses(t *testing.T) {
	w := newRegulator(t)
	old := newWitnessedBank(t, w)
	takeWitnessed(t, old, 1)
	w.down.Store(true)
	policy, err := old.TrustPolicy()
	must(t, err)
	_, url := countedGateway(t, old)
	r, p := reader(t, old)
	o := savepoints.FetchOptions{Policy: p, Sources: []string{url}, AcceptStale: true}
	s, err := r.Fetch(ctx, savepoints.Ref{Policy: "p"}, o)
	must(t, err)
	dir := r.Repo().Dir()
	must(t, r.Close())
	next := savepoints.NewLogOptions{Savepoint: s.Savepoint, Policy: policy, Sources: o.Sources}
	if _, err := savepoints.NewLog(ctx, dir, next); !errors.Is(err, anchor.ErrStale) {
		t.Fatal(err)
	}
	isReader(t, dir)
	next.AcceptStale = true
	b, err := savepoints.NewLog(ctx, dir, next)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	if first, ok := firstEntry(t, b).(*entry.Takeover); !ok || first.Previous.Origin != old.Origin() {
		t.Errorf("entry 0 is %+v", first)
	}
}

// A new log names the old one and its head; without the policy for it nobody reads it.
func TestNewLog(t *testing.T) {
	for name, o := range map[string]savepoints.InitOptions{"plain": {}, "private": {PrivateIDs: true}} {
		t.Run(name, func(t *testing.T) {
			old, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "old"), o)
			must(t, err)
			t.Cleanup(func() { old.Close() })
			take(t, old, smallState(1), "p")
			take(t, old, smallState(1), "q")
			newest := take(t, old, smallState(2), "p")
			policy, err := old.TrustPolicy()
			must(t, err)
			r, p := reader(t, old)
			sources := []string{serve(t, old).GatewayURL()}
			s, err := r.Fetch(ctx, savepoints.Ref{Policy: "p"}, savepoints.FetchOptions{Policy: p, Sources: sources})
			must(t, err)
			if s.CID != newest.CID {
				t.Fatalf("fetched %s", s.CID)
			}
			must(t, r.Close())
			same := savepoints.NewLogOptions{Savepoint: s.Savepoint, Policy: policy, Sources: sources, Init: savepoints.InitOptions{Origin: old.Origin()}}
			if _, err := savepoints.NewLog(ctx, r.Repo().Dir(), same); !errors.Is(err, savepoints.ErrUsage) {
				t.Errorf("with the origin of the old log: %v", err)
			}
			b, err := savepoints.NewLog(ctx, r.Repo().Dir(), savepoints.NewLogOptions{Savepoint: s.Savepoint, Policy: policy, Sources: sources})
			must(t, err)
			t.Cleanup(func() { b.Close() })
			first := firstEntry(t, b)
			takeover, ok := first.(*entry.Takeover)
			if !ok || takeover.Epoch != 1 || takeover.Previous.Origin != old.Origin() || takeover.Instance != s.Entry.Instance {
				t.Fatalf("entry 0 is %+v", first)
			}
			if _, err := anchor.OpenView(ctx, anchor.LocalFetcher(b.Repo().Blocks, takeover.Previous.Root), p); err != nil {
				t.Errorf("the old log's root: %v", err)
			}
			next := take(t, b, smallState(3), "p")
			if next.Entry.Sequence != 3 || next.Entry.Epoch != 1 || next.Manifest.Parent.Savepoint != newest.CID || next.Changed == 3 && next.Manifest.Totals.Documents != 3 {
				t.Errorf("%+v, parent %+v", next.Entry, next.Manifest.Parent)
			}
			b = reopen(t, b)
			if s := take(t, b, smallState(4), "p"); s.Entry.Sequence != 4 {
				t.Errorf("%+v", s.Entry)
			}
			// A policy that was not taken over begins anew here.
			if s := take(t, b, smallState(4), "q"); s.Entry.Sequence != 1 || s.Entry.Epoch != 0 {
				t.Errorf("%+v", s.Entry)
			}
			for _, s := range list(t, b) {
				_, err := b.Verify(ctx, s)
				must(t, err)
			}
			if _, err := savepoints.NewLog(ctx, b.Repo().Dir(), savepoints.NewLogOptions{Savepoint: s.Savepoint, Policy: policy}); !errors.Is(err, node.ErrHeld) {
				t.Errorf("while it is open: %v", err)
			}
			// The old policy says nothing of the new log.
			n := serve(t, b)
			other, p := reader(t, old)
			got, err := other.Fetch(ctx, savepoints.Ref{Policy: "p"}, savepoints.FetchOptions{Policy: p, Sources: []string{n.GatewayURL()}})
			must(t, err)
			if got.CID != newest.CID {
				t.Errorf("by the old policy %s", got.CID)
			}
		})
	}
}

// firstEntry reads the first entry of the bank's log as a stranger does.
func firstEntry(t *testing.T, b *savepoints.Bank) entry.Entry {
	t.Helper()
	text, err := b.TrustPolicy()
	must(t, err)
	p, err := anchor.ParsePolicy(text)
	must(t, err)
	h, err := b.Head(ctx, "")
	must(t, err)
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(b.Repo().Blocks, h.Root), p)
	must(t, err)
	e, err := v.Entry(ctx, 0)
	must(t, err)
	said, err := entry.Decode(e.Record)
	must(t, err)
	return said
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, err)
	return id
}
