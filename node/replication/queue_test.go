package replication

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

// fake is a target whose pushes end as the test says.
type fake struct {
	name string
	// push is called for each push; nil: it ends well.
	push func(ctx context.Context, root cid.Cid) error

	mu     sync.Mutex
	pushed []cid.Cid
	busy   int
}

func (f *fake) Name() string { return f.name }

func (f *fake) Push(ctx context.Context, item Item) error {
	f.mu.Lock()
	f.pushed = append(f.pushed, item.Root)
	f.busy++
	if f.busy > 1 {
		panic("two pushes at a time")
	}
	push := f.push
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.busy--
	}()
	if push == nil {
		return nil
	}
	return push(ctx, item.Root)
}

func (f *fake) Places(context.Context, Item) ([]Place, error) { return nil, nil }

func (f *fake) set(push func(context.Context, cid.Cid) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.push = push
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pushed)
}

// bench is a queue to fake targets, and a clock.
type bench struct {
	t     *testing.T
	repo  *node.Repo
	fakes []*fake

	mu    sync.Mutex
	roots []cid.Cid
	now   time.Time
}

func newBench(t *testing.T, roots int, names ...string) *bench {
	b := &bench{t: t, repo: newRepo(t), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for i := range roots {
		b.roots = append(b.roots, dag.RawBlock([]byte(fmt.Sprint(i))).CID)
	}
	for _, name := range names {
		b.fakes = append(b.fakes, &fake{name: name})
		b.repo.Config.Replicate = append(b.repo.Config.Replicate, node.Replica{Name: name, Kind: node.ReplicaFolder, Path: "/" + name})
	}
	return b
}

// queue is the queue as it is after a start.
func (b *bench) queue() *Queue {
	q := NewQueue(b.repo, Options{
		FirstRetry: time.Second, LastRetry: 10 * time.Second,
		Roots: func(context.Context, node.Replica) ([]cid.Cid, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return slices.Clone(b.roots), nil
		},
		Item: func(_ context.Context, root cid.Cid) (Item, error) { return Item{Root: root}, nil },
		Now: func() time.Time {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.now
		},
	})
	for i, l := range q.lanes {
		l.Target = b.fakes[i]
	}
	return q
}

func (b *bench) restart() *Queue {
	b.repo = reopen(b.t, b.repo)
	return b.queue()
}

// pass does what is due at the first target.
func (b *bench) pass(q *Queue) time.Time {
	return q.pass(ctx, q.lanes[0], func(Status) {})
}

func (b *bench) later(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

var errNo = fmt.Errorf("%w: no", ErrRefused)

// TestQueueBacksOff: what failed is tried again after pauses that double up to a cap,
// also after a restart; what is done is not pushed again, ever.
func TestQueueBacksOff(t *testing.T) {
	b := newBench(t, 1, "f")
	f := b.fakes[0]
	f.set(func(context.Context, cid.Cid) error { return errNo })
	q := b.queue()
	for attempt := 1; attempt <= 8; attempt++ {
		next := b.pass(q)
		full := min(time.Second<<(attempt-1), 10*time.Second)
		if wait := next.Sub(b.now); wait < full/2-1 || wait > full {
			t.Fatalf("attempt %d: the next is in %v", attempt, wait)
		}
		q = b.restart()
		list, err := q.List(ctx, Selection{})
		must(t, err)
		if s := list[0]; s.State != Waiting || s.Attempts != attempt || !s.Next.Equal(next) || !strings.Contains(s.Reason, "no") {
			t.Fatalf("after the restart it is %+v", s)
		}
		b.later(next.Sub(b.now) - 1)
		b.pass(q)
		if n := f.count(); n != attempt {
			t.Fatalf("%d pushes before the %d. is due", n, attempt+1)
		}
		b.later(1)
	}
	f.set(nil)
	if next := b.pass(q); !next.IsZero() {
		t.Errorf("it is done, and next looked at in %v", next.Sub(b.now))
	}
	n := f.count()
	q = b.restart()
	b.later(time.Hour)
	b.pass(q)
	_, err := q.Once(ctx, Selection{}, nil)
	must(t, err)
	list, err := q.Once(ctx, Selection{Roots: b.roots}, nil)
	must(t, err)
	if f.count() != n || list[0].State != Done || list[0].Pushed || list[0].Attempts != 0 {
		t.Errorf("%d pushes after it was done; %+v", f.count()-n, list[0])
	}
	list, err = q.Once(ctx, Selection{Again: true}, nil)
	must(t, err)
	if f.count() != n+1 || !list[0].Pushed {
		t.Error("it was not pushed again where that was asked for")
	}
	if at, err := q.DoneAt(b.roots[0]); err != nil || !slices.Equal(at, []string{"f"}) {
		t.Errorf("done at %v, %v", at, err)
	}
}

// TestQueueNotYet: what is not ready has not failed. It is pushed as soon as the queue
// looks again; who asks for it is told.
func TestQueueNotYet(t *testing.T) {
	b := newBench(t, 2, "f")
	f := b.fakes[0]
	f.set(func(context.Context, cid.Cid) error { return fmt.Errorf("%w: no quorum", ErrNotYet) })
	q := b.queue()
	next := q.pass(ctx, q.lanes[0], func(s Status) { t.Errorf("reported: %+v", s) })
	if f.count() != 2 || !next.IsZero() {
		t.Errorf("%d pushes, the next at %v", f.count(), next)
	}
	list, err := q.Once(ctx, Selection{}, nil)
	must(t, err)
	if s := list[0]; s.State != Waiting || s.Attempts != 0 || !strings.Contains(s.Reason, "no quorum") {
		t.Errorf("%+v", s)
	}
	f.set(nil)
	b.pass(q)
	list, err = q.List(ctx, Selection{})
	must(t, err)
	if list[0].State != Done || list[1].State != Done {
		t.Errorf("%+v", list)
	}
}

// TestQueueClockWentBack: a next try that is further away than any pause is due.
func TestQueueClockWentBack(t *testing.T) {
	b := newBench(t, 1, "f")
	b.fakes[0].set(func(context.Context, cid.Cid) error { return errNo })
	q := b.queue()
	b.pass(q)
	b.later(-24 * time.Hour)
	b.pass(q)
	if n := b.fakes[0].count(); n != 2 {
		t.Errorf("%d pushes", n)
	}
}

// TestQueueUnreachable: a target that cannot be reached costs one try, whatever waits
// for it; one DAG that is refused does not keep back the others.
func TestQueueUnreachable(t *testing.T) {
	b := newBench(t, 20, "f", "g")
	f, g := b.fakes[0], b.fakes[1]
	f.set(func(context.Context, cid.Cid) error { return fmt.Errorf("%w: down", node.ErrUnreachable) })
	g.set(func(_ context.Context, root cid.Cid) error {
		if root == b.roots[3] {
			return errNo
		}
		return nil
	})
	list, err := b.queue().Once(ctx, Selection{}, nil)
	must(t, err)
	if f.count() != 1 || g.count() != 20 || len(list) != 40 {
		t.Errorf("%d and %d pushes, %d statuses", f.count(), g.count(), len(list))
	}
	for i, s := range list {
		if want := i >= 20 && i != 23; (s.State == Done) != want || !want && s.Reason == "" {
			t.Errorf("%d: %+v", i, s)
		}
	}
	if !slices.Equal(g.pushed, b.roots) {
		t.Error("not in order")
	}
	f.pushed = nil
	b.later(time.Hour)
	b.pass(b.restart())
	if f.count() != 1 {
		t.Errorf("%d pushes to a target that is down", f.count())
	}
}

// TestQueueRun: everything comes to every target, and what is new when there is
// something new; the end of the context ends it in the middle of a push.
func TestQueueRun(t *testing.T) {
	b := newBench(t, 5, "f", "g")
	q := b.queue()
	running, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	reported := make(chan Status, 100)
	done.Go(func() { q.Run(running, func(s Status) { reported <- s }) })
	for range 10 {
		if s := within(t, reported); s.State != Done || !s.Pushed {
			t.Fatalf("%+v", s)
		}
	}
	// A command does the same at the same time.
	list, err := q.Once(ctx, Selection{}, nil)
	must(t, err)
	if len(list) != 0 {
		t.Errorf("%d are left", len(list))
	}
	pushing := make(chan bool, 2)
	hang := func(ctx context.Context, _ cid.Cid) error {
		pushing <- true
		<-ctx.Done()
		return ctx.Err()
	}
	b.fakes[0].set(hang)
	b.fakes[1].set(hang)
	b.mu.Lock()
	b.roots = append(b.roots, dag.RawBlock([]byte("new")).CID)
	b.mu.Unlock()
	q.Wake()
	within(t, pushing)
	within(t, pushing)
	cancel()
	done.Wait()
	list, err = b.restart().List(ctx, Selection{})
	must(t, err)
	for _, s := range list {
		if fresh := s.Root == b.roots[5]; (s.State == Waiting) != fresh || s.Attempts != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func within[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain")
		panic("")
	}
}

// TestQueueTogether: a command and serve never push the same thing twice.
func TestQueueTogether(t *testing.T) {
	b := newBench(t, 50, "f", "g", "h")
	q := b.queue()
	running, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { q.Run(running, nil) })
	for range 4 {
		all.Go(func() {
			if _, err := q.Once(ctx, Selection{}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	await(t, "all pushes", func() bool { return b.fakes[0].count() == 50 && b.fakes[1].count() == 50 && b.fakes[2].count() == 50 })
	cancel()
	all.Wait()
	for _, f := range b.fakes {
		if f.count() != 50 {
			t.Errorf("%s: %d pushes", f.name, f.count())
		}
	}
}

// TestQueueRecords: a damaged record, and one of another place, say nothing; a target
// that is not there is an error.
func TestQueueRecords(t *testing.T) {
	b := newBench(t, 3, "f")
	_, err := b.queue().Once(ctx, Selection{}, nil)
	must(t, err)
	must(t, b.repo.PutRecord(recordKind, "f@"+b.roots[1].String(), []byte(`{"v":1,"state":"do`)))
	must(t, b.repo.PutRecord(recordKind, "nonsense", []byte("x")))
	q := b.restart()
	_, err = q.Once(ctx, Selection{}, nil)
	must(t, err)
	if f := b.fakes[0]; f.count() != 4 || f.pushed[3] != b.roots[1] {
		t.Errorf("%d pushes", f.count())
	}
	b.repo.Config.Replicate[0].Path = "/elsewhere"
	_, err = b.restart().Once(ctx, Selection{Targets: []string{"f"}}, nil)
	must(t, err)
	if f := b.fakes[0]; f.count() != 7 {
		t.Errorf("%d pushes after the place has changed", f.count()-4)
	}
	_, err = q.Once(ctx, Selection{Targets: []string{"x"}}, nil)
	mustBe(t, err, ErrNoTarget)
	_, err = q.List(ctx, Selection{Targets: []string{"x"}})
	mustBe(t, err, ErrNoTarget)
}

// TestQueueKilled: a process that is killed in the middle of a push loses nothing of
// the queue, and what it left is cleaned up.
func TestQueueKilled(t *testing.T) {
	repo, target := newRepo(t), t.TempDir()
	root := putDAG(t, repo.Blocks, "one")
	must(t, repo.Pin(ctx, root, "p"))
	must(t, repo.Close())
	cmd := child(t, repo.Dir(), target)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	killErr := cmd.Process.Kill()
	cmd.Wait() // the signal is its end
	must(t, errors.Join(err, killErr))
	if line != "in the middle\n" {
		t.Fatalf("it said %q", line)
	}
	if left := names(t, target); len(left) != 1 || !strings.HasPrefix(left[0], ".") {
		t.Fatalf("it left %v", left)
	}
	repo, err = node.Open(ctx, repo.Dir())
	must(t, err)
	t.Cleanup(func() { repo.Close() })
	repo.Config.Replicate = []node.Replica{{Name: "f", Kind: node.ReplicaFolder, Path: target}}
	q := NewQueue(repo, Options{
		Roots: func(context.Context, node.Replica) ([]cid.Cid, error) { return []cid.Cid{root}, nil },
		Item:  func(context.Context, cid.Cid) (Item, error) { return itemOf(repo.Blocks, root), nil },
	})
	list, err := q.Once(ctx, Selection{}, nil)
	must(t, err)
	if list[0].State != Done {
		t.Fatalf("%+v", list[0])
	}
	path := filepath.Join(target, "policy-1-"+root.String()+".car")
	if got := names(t, target); !slices.Equal(got, []string{filepath.Base(path)}) {
		t.Errorf("the folder holds %v", got)
	}
	got, err := os.ReadFile(path)
	must(t, err)
	if !slices.Equal(got, carOf(t, itemOf(repo.Blocks, root))) {
		t.Error("the file is not the archive")
	}
}

// FuzzDecodeRecord: a record that is accepted is what it would be written as.
func FuzzDecodeRecord(f *testing.F) {
	data, err := record{V: 1, State: Waiting, At: "folder /x", Attempts: 3, Error: "no"}.encode()
	must(f, err)
	f.Add(data)
	f.Add([]byte(`{"v":1,"state":"done","at":"","time":"2026-01-02T03:04:05Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			return
		}
		again, err := r.encode()
		must(t, err)
		back, err := decodeRecord(again)
		must(t, err)
		if !back.Time.Equal(r.Time) || !back.Next.Equal(r.Next) || back.State != r.State || back.Attempts != r.Attempts {
			t.Errorf("%+v became %+v", r, back)
		}
	})
}

// FuzzReason: whatever an error says, its reason is one short line of printable text.
func FuzzReason(f *testing.F) {
	f.Add("a\nb\x1b[2J\xff")
	f.Add(strings.Repeat("ä", 600))
	f.Add("a" + strings.Repeat("€", 600))
	f.Fuzz(func(t *testing.T, text string) {
		got := Reason(errors.New(text))
		if len(got) > maxReason || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u009b' }) || got != strings.ToValidUTF8(got, "") {
			t.Errorf("%q", got)
		}
	})
}
