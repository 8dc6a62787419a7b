package publish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hiero-ledger/hiero-sdk-go/v2/proto/services"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs/publish"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// memory is the store of a log.
type memory struct {
	mu     sync.Mutex
	blocks map[cid.Cid][]byte
	heads  map[string][]byte
}

func (m *memory) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.blocks[c]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("%s: %w", c, dag.ErrNotFound)
}

func (m *memory) Put(_ context.Context, blocks ...dag.Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range blocks {
		m.blocks[b.CID] = b.Data
	}
	return nil
}

func (m *memory) Sync(context.Context) error { return nil }

func (m *memory) Head(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heads[name], nil
}

func (m *memory) SwapHead(_ context.Context, name string, old, new []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !bytes.Equal(m.heads[name], old) {
		return errors.New("head is another one")
	}
	m.heads[name] = new
	return nil
}

// watched is a log and its tlog-tiles prefix on a gateway.
type watched struct {
	*anchor.Log
	store  *memory
	policy *anchor.Policy
	text   []byte
	url    string
	down   atomic.Bool
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	skey, vkey, err := anchor.GenerateKey("log.example/watched")
	must(t, err)
	w := openWatched(t, skey)
	w.text = anchor.FormatPolicy(vkey)
	w.policy, err = anchor.ParsePolicy(w.text)
	must(t, err)
	return w
}

func openWatched(t *testing.T, skey string) *watched {
	t.Helper()
	w := &watched{store: &memory{blocks: map[cid.Cid][]byte{}, heads: map[string][]byte{}}}
	signer, err := anchor.NewSigner(skey)
	must(t, err)
	w.Log, err = anchor.Open(context.Background(), w.store, signer, anchor.Options{Create: true})
	must(t, err)
	web := httptest.NewServer(w)
	t.Cleanup(web.Close)
	w.url = web.URL + "/tlog/ab/"
	return w
}

func (w *watched) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/tlog/ab/")
	root := w.Head().Root
	body, err := dag.ReadDocument(r.Context(), w.store, root, path)
	if !ok || err != nil || w.down.Load() {
		http.NotFound(rw, r)
		return
	}
	rw.Header().Set("X-Ipfs-Roots", root.String()+","+dag.RawBlock(body).CID.String())
	rw.Write(body) // the reader may have gone
}

func (w *watched) grow(t *testing.T, n int) {
	t.Helper()
	for range n {
		_, _, err := w.Append(context.Background(), fmt.Append(nil, "record ", w.Head().Size))
		must(t, err)
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

// heads are the sizes of the heads on the topic, in their order.
func (l *ledger) heads(t *testing.T, p *anchor.Policy) (sizes []int64) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.messages {
		checkpoint, _, err := hcs.DecodeHead(m.Data)
		must(t, err)
		h, err := anchor.VerifyCheckpoint(p, checkpoint)
		must(t, err)
		sizes = append(sizes, h.Size)
	}
	return sizes
}

// watching is a Watch that runs.
type watching struct {
	stop   func() error
	mu     sync.Mutex
	errs   []error
	output []publish.Published
}

func (w *watching) failures() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errs
}

func (r *rig) watch(t *testing.T, l *watched, receipts string, change func(*publish.WatchOptions)) *watching {
	t.Helper()
	w := &watching{}
	o := publish.WatchOptions{
		Log: l.url, Policy: l.policy, Topic: r.topic, Publisher: r.publisher(t), Receipts: receipts, Interval: 10 * time.Millisecond,
		Published: func(p publish.Published) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.output = append(w.output, p)
		},
		Failed: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.errs = append(w.errs, err)
		},
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- publish.Watch(ctx, o) }()
	w.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { w.stop() })
	return w
}

// Heads get onto the topic as the log grows, each once, and are read back and verified.
func TestWatch(t *testing.T) {
	r, l := newRig(t), newWatched(t)
	file := filepath.Join(t.TempDir(), "receipts")
	l.grow(t, 250)
	w := r.watch(t, l, file, nil)
	await(t, "the first head", func() bool { return len(r.heads(t, l.policy)) > 0 })
	l.grow(t, 20)
	await(t, "the last receipt", func() bool { return strings.Contains(readFile(t, file), `"size":270,`) })
	must(t, w.stop())
	report, err := hcs.Read(context.Background(), l.policy, r.topic, r.mirrors(t, nil), hcs.Options{})
	must(t, err)
	if report.Foreign+report.Untrusted != 0 || report.Newest.Head.Size != 270 || report.Newest.Head.Root != l.Head().Root {
		t.Fatalf("%+v", report)
	}
	sizes := r.heads(t, l.policy)
	var lines []publish.Published
	for line := range strings.Lines(readFile(t, file)) {
		var p publish.Published
		must(t, json.Unmarshal([]byte(line), &p))
		lines = append(lines, p)
	}
	if len(lines) != len(sizes) || len(w.output) != len(sizes) || len(w.failures()) > 0 {
		t.Fatalf("%d heads, %d lines, %d told, %v", len(sizes), len(lines), len(w.output), w.failures())
	}
	for i, p := range lines {
		m := r.messages[i]
		if p != w.output[i] || p.Size != sizes[i] || p.Sequence != m.Sequence || p.RunningHash != m.RunningHash.String() ||
			p.Topic != r.topic.String() || !strings.HasPrefix(p.Transaction, "0.0.1001@") || i > 0 && sizes[i] <= sizes[i-1] {
			t.Errorf("line %d: %+v", i, p)
		}
	}
	// It is a position from which the topic can be read on.
	last := lines[len(lines)-1]
	policy := fmt.Sprintf("%s# ipfs-savepoint: hcs %s@%d:%s https://a.example https://b.example\n", l.text, last.Topic, last.Sequence, last.RunningHash)
	if p, err := anchor.ParsePolicy([]byte(policy)); err != nil || p.Topic.Sequence != last.Sequence {
		t.Errorf("%v", err)
	}
}

// readFile returns what is in a file; nothing if it is not there yet.
func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	must(t, err)
	return string(b)
}

// What has been published is not published again after a restart, whatever the end of
// the file looks like; another topic, or another log, is another matter.
func TestWatchAgain(t *testing.T) {
	r, l := newRig(t), newWatched(t)
	file := filepath.Join(t.TempDir(), "receipts")
	l.grow(t, 2)
	w := r.watch(t, l, file, nil)
	await(t, "a receipt", func() bool { return strings.HasSuffix(readFile(t, file), "\n") })
	must(t, w.stop())
	line := readFile(t, file)
	must(t, os.WriteFile(file, []byte(line+line[:len(line)/2]), 0o600)) // a crash cut it short
	looked := make(chan struct{}, 100)
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		select {
		case looked <- struct{}{}:
		default:
		}
		l.ServeHTTP(rw, q)
	}))
	t.Cleanup(web.Close)
	w = r.watch(t, l, file, func(o *publish.WatchOptions) { o.Log = web.URL + "/tlog/ab/" })
	for range 3 {
		<-looked
	}
	if h := r.heads(t, l.policy); len(h) != 1 || len(w.failures()) > 0 {
		t.Fatalf("heads %v, %v", h, w.failures())
	}
	l.grow(t, 1)
	await(t, "another receipt", func() bool { return strings.Count(readFile(t, file), "\n") == 2 })
	must(t, w.stop())
	if h := r.heads(t, l.policy); len(h) != 2 || h[1] != 3 || !strings.HasPrefix(readFile(t, file), line) {
		t.Fatalf("heads %v, file %q", h, readFile(t, file))
	}
}

// Trouble passes, and is told once.
func TestWatchThroughFaults(t *testing.T) {
	for name, fault := range map[string]func(*rig, *watched) (end func()){
		"the ledger refuses": func(r *rig, _ *watched) func() {
			refused := atomic.Bool{}
			refused.Store(true)
			r.before = func(int) (services.ResponseCodeEnum, error) {
				if refused.Load() {
					return services.ResponseCodeEnum_INSUFFICIENT_PAYER_BALANCE, nil
				}
				return services.ResponseCodeEnum_OK, nil
			}
			return func() { refused.Store(false) }
		},
		"the log is away": func(_ *rig, l *watched) func() {
			l.down.Store(true)
			return func() { l.down.Store(false) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, l := newRig(t), newWatched(t)
			l.grow(t, 2)
			end := fault(r, l)
			w := r.watch(t, l, filepath.Join(t.TempDir(), "receipts"), nil)
			await(t, "a failure", func() bool { return len(w.failures()) > 0 })
			end()
			await(t, "the head", func() bool { return len(r.heads(t, l.policy)) == 1 })
			must(t, w.stop())
		})
	}
}

// A log that does not extend what was published is not published, nor one that the policy
// does not accept.
func TestWatchRefusesHeads(t *testing.T) {
	skey, vkey, err := anchor.GenerateKey("log.example/watched")
	must(t, err)
	l, fork := openWatched(t, skey), openWatched(t, skey)
	l.policy, err = anchor.ParsePolicy(anchor.FormatPolicy(vkey))
	must(t, err)
	l.grow(t, 2)
	_, _, err = fork.Append(context.Background(), []byte("another record"))
	must(t, err)
	file := filepath.Join(t.TempDir(), "receipts")
	r := newRig(t)
	w := r.watch(t, l, file, nil)
	await(t, "a receipt", func() bool { return strings.HasSuffix(readFile(t, file), "\n") })
	must(t, w.stop())
	refuses := func(want error, change func(*publish.WatchOptions)) {
		t.Helper()
		w := r.watch(t, l, file, change)
		await(t, "a failure", func() bool { return len(w.failures()) > 0 })
		must(t, w.stop())
		if err := w.failures()[0]; !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
		if h := r.heads(t, l.policy); len(h) != 1 {
			t.Errorf("heads %v", h)
		}
	}
	refuses(anchor.ErrRollback, func(o *publish.WatchOptions) { o.Log = fork.url })
	fork.grow(t, 4)
	refuses(anchor.ErrFork, func(o *publish.WatchOptions) { o.Log = fork.url })
	other := newWatched(t)
	other.grow(t, 5)
	refuses(anchor.ErrUntrusted, func(o *publish.WatchOptions) { o.Log = other.url })
}

// The file of receipts is one process's, and whole.
func TestReceiptsFile(t *testing.T) {
	r, l := newRig(t), newWatched(t)
	file := filepath.Join(t.TempDir(), "receipts")
	l.grow(t, 1)
	w := r.watch(t, l, file, nil)
	await(t, "a receipt", func() bool { return strings.HasSuffix(readFile(t, file), "\n") })
	if err := r.watch(t, l, file, nil).stop(); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("twice: %v", err)
	}
	must(t, w.stop())
	good := readFile(t, file)
	for name, text := range map[string]string{"not JSON": "nonsense\n" + good, "no root": strings.Replace(good, `"rootHash":"`, `"rootHash":"x`, 1),
		"a long line": strings.Repeat("x", 1<<20)} {
		must(t, os.WriteFile(file, []byte(text), 0o600))
		if err := r.watch(t, l, file, nil).stop(); err == nil {
			t.Errorf("%s is accepted", name)
		}
		if readFile(t, file) != text {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if err := r.watch(t, l, filepath.Join(file, "x"), nil).stop(); err == nil {
		t.Error("no folder")
	}
}

// A message that the ledger took is not paid for again because its receipt says nothing that
// is known here, also after a restart.
func TestWatchUnknownReceipt(t *testing.T) {
	r, l := newRig(t), newWatched(t)
	l.grow(t, 2)
	r.receipt = func(_ int, a *services.Response) { a.GetTransactionGetReceipt().Receipt.TopicRunningHashVersion = 4 }
	file := filepath.Join(t.TempDir(), "receipts")
	for n := 1; n <= 2; n++ {
		w := r.watch(t, l, file, nil)
		await(t, "a receipt", func() bool { return strings.Count(readFile(t, file), "\n") == n })
		await(t, "the trouble to be told", func() bool { return len(w.failures()) > 0 })
		must(t, w.stop())
		if err := w.failures()[0]; !errors.Is(err, hcs.ErrReceipt) {
			t.Error(err)
		}
		if h := r.heads(t, l.policy); len(h) != n || h[n-1] != int64(n+1) {
			t.Errorf("heads %v", h)
		}
		l.grow(t, 1)
	}
	if strings.Contains(readFile(t, file), "runningHash") {
		t.Error(readFile(t, file))
	}
}
