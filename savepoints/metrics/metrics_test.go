package metrics_test

import (
	"context"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/metrics"
	"golang.org/x/mod/sumdb/note"
)

var ctx = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// document is a Source of one document.
type document string

func (d document) Documents(context.Context) iter.Seq2[savepoints.Document, error] {
	return func(yield func(savepoints.Document, error) bool) {
		yield(savepoints.Document{Path: "a", Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(d))), nil }}, nil)
	}
}

func (document) Consistency(context.Context) (dag.Consistency, error) {
	return dag.Consistency{Method: "memory", Consistent: true}, nil
}

func take(t *testing.T, b *savepoints.Bank, text string) {
	t.Helper()
	_, err := b.Take(ctx, document(text), savepoints.TakeOptions{Policy: "p"})
	must(t, err)
}

// scrape returns the values by what stands before them in the text.
func scrape(t *testing.T, b *savepoints.Bank) map[string]float64 {
	t.Helper()
	w := httptest.NewRecorder()
	metrics.Handler(b).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	values := map[string]float64{}
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		must(t, err)
		values[line[:i]] = v
	}
	return values
}

const (
	own  = `{origin="log.example/a"}`
	ofW  = `{origin="log.example/a",witness="w"}`
	head = "ipfs_savepoint_log_"
)

func expect(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if is, ok := got[name]; !ok || is != v {
			t.Errorf("%s is %v (there: %v), want %v", name, is, ok, v)
		}
	}
}

// stoppable is a witness that can be taken away.
type stoppable struct {
	http.Handler
	gone atomic.Bool
}

func (s *stoppable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.gone.Load() {
		http.Error(w, "gone", http.StatusServiceUnavailable)
		return
	}
	s.Handler.ServeHTTP(w, r)
}

// witnessed is a bank whose log one witness watches.
func witnessed(t *testing.T) (*savepoints.Bank, *stoppable) {
	t.Helper()
	repo, err := node.Create(ctx, filepath.Join(t.TempDir(), "witness"))
	must(t, err)
	t.Cleanup(func() { repo.Close() })
	key, err := witness.GenerateKey("witness.example/w")
	must(t, err)
	signer, err := witness.NewSigner(key)
	must(t, err)
	w := &stoppable{}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	vkey := witness.NewServer(signer, repo, nil, witness.ServerOptions{}).Key()
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{
		Origin: "log.example/a", Witnesses: []string{"w " + vkey + " " + server.URL},
	})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	w.Handler = witness.NewServer(signer, repo, []note.Verifier{b.Policies()[0].Key()}, witness.ServerOptions{})
	return b, w
}

// The lag of a log behind its witness grows while the witness is away, and is gone when
// it is back.
func TestWitnessLag(t *testing.T) {
	b, w := witnessed(t)
	const when = "ipfs_savepoint_witness_cosigned_timestamp_seconds" + ofW
	w.gone.Store(true)
	take(t, b, "1")
	// One that is not known to have ever cosigned is found by the same expression.
	expect(t, scrape(t, b), map[string]float64{when: 0})
	w.gone.Store(false)
	_, err := b.Publish(ctx)
	must(t, err)
	before := scrape(t, b)
	expect(t, before, map[string]float64{
		head + "open" + own: 1, head + "signed_size" + own: 1, head + "published_size" + own: 1, head + "receipts_size" + own: 1,
		"ipfs_savepoint_witness_error" + ofW: 0,
	})
	if age := time.Since(time.Unix(int64(before[when]), 0)); age < -time.Second || age > time.Minute {
		t.Errorf("cosigned %s ago", age)
	}

	w.gone.Store(true)
	take(t, b, "2")
	if _, err := b.Publish(ctx); err == nil {
		t.Fatal("published without a witness")
	}
	behind := map[string]float64{
		head + "signed_size" + own: 2, head + "published_size" + own: 1, head + "receipts_size" + own: 1,
		"ipfs_savepoint_witness_error" + ofW: 1, when: before[when],
	}
	expect(t, scrape(t, b), behind)

	// What the witness did last is known after a new start too.
	must(t, b.Close())
	again, err := savepoints.Open(ctx, b.Repo().Dir())
	must(t, err)
	defer again.Close()
	behind["ipfs_savepoint_witness_error"+ofW] = 0 // it has not been asked
	expect(t, scrape(t, again), behind)

	w.gone.Store(false)
	_, err = again.Publish(ctx)
	must(t, err)
	expect(t, scrape(t, again), map[string]float64{
		head + "signed_size" + own: 2, head + "published_size" + own: 2, head + "receipts_size" + own: 2,
		"ipfs_savepoint_witness_error" + ofW: 0,
	})
}

// The name follows the log once it is published, and says since when.
func TestNameLag(t *testing.T) {
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{Origin: "log.example/a"})
	must(t, err)
	defer b.Close()
	take(t, b, "1")
	limited, stop := context.WithCancel(ctx)
	published := make(chan struct{})
	go func() {
		defer close(published)
		b.KeepPublished(limited, func(err error) { t.Error(err) })
	}()
	const name = "ipfs_savepoint_name_"
	var got map[string]float64
	for end := time.Now().Add(30 * time.Second); got[name+"size"+own] != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the name is not published")
		}
		got = scrape(t, b)
	}
	stop()
	<-published
	if age := time.Since(time.Unix(int64(got[name+"signed_timestamp_seconds"+own]), 0)); age < -time.Second || age > time.Minute {
		t.Errorf("signed %s ago", age)
	}
	take(t, b, "2")
	lags := map[string]float64{name + "size" + own: 1, name + "error" + own: 0, head + "signed_size" + own: 2, head + "published_size" + own: 2}
	expect(t, scrape(t, b), lags)

	// A record that cannot be read takes its own value away, and nothing else.
	records, err := filepath.Glob(filepath.Join(b.Repo().Dir(), "meta", "names", "*"))
	if err != nil || len(records) != 1 {
		t.Fatalf("%q %v", records, err)
	}
	must(t, os.Remove(records[0]))
	must(t, os.Mkdir(records[0], 0o700))
	got = scrape(t, b)
	delete(lags, name+"size"+own)
	lags[name+"error"+own] = 1
	expect(t, got, lags)
	if size, ok := got[name+"size"+own]; ok {
		t.Errorf("size %v of a name that cannot be read", size)
	}
}

// A follower knows how far it is, and when its source was last reached.
func TestFollowLag(t *testing.T) {
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), savepoints.InitOptions{Origin: "log.example/a"})
	must(t, err)
	defer b.Close()
	take(t, b, "1")
	n, err := b.Repo().Serve(ctx, node.ServeOptions{Gateway: "127.0.0.1:0", Logs: b.LogRoot})
	must(t, err)
	policy, err := b.TrustPolicy()
	must(t, err)
	p, err := anchor.ParsePolicy(policy)
	must(t, err)
	replica, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "replica"))
	must(t, err)
	defer replica.Close()
	must(t, replica.Keep(policy))
	replica, _, err = replica.Trust(policy)
	must(t, err)
	if got := scrape(t, replica); len(got) != 0 {
		t.Errorf("a bank that does nothing: %v", got)
	}
	limited, stop := context.WithCancel(ctx)
	followed := make(chan error)
	fetched, failed := make(chan struct{}, 1), make(chan struct{}, 1)
	tell := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	go func() {
		followed <- replica.Follow(limited, savepoints.FollowOptions{
			Policy: p, Sources: []string{n.GatewayURL()}, Interval: 20 * time.Millisecond,
			Fetched: func(savepoints.Savepoint) { tell(fetched) }, Failed: func(error) { tell(failed) },
		})
	}()
	wait := func(c chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(30 * time.Second):
			t.Fatal("waited in vain")
		}
	}
	wait(fetched)
	const reached = "ipfs_savepoint_follow_reached_timestamp_seconds" + own
	got := scrape(t, replica)
	expect(t, got, map[string]float64{"ipfs_savepoint_follow_size" + own: 1, "ipfs_savepoint_follow_error" + own: 0})
	if age := time.Since(time.Unix(int64(got[reached]), 0)); age < -time.Second || age > time.Minute {
		t.Errorf("reached %s ago", age)
	}
	must(t, n.Close())
	take(t, b, "2")
	wait(failed)
	got = scrape(t, replica)
	expect(t, got, map[string]float64{"ipfs_savepoint_follow_size" + own: 1, "ipfs_savepoint_follow_error" + own: 1})
	stop()
	must(t, <-followed)
	if scrape(t, replica)[reached] != got[reached] {
		t.Error("reached although it is gone")
	}

	// One head that is damaged takes its own value away, and nothing else.
	heads, err := filepath.Glob(filepath.Join(replica.Repo().Dir(), "meta", "heads", "*"))
	must(t, err)
	for _, h := range heads {
		must(t, os.WriteFile(h, []byte("damaged"), 0o600))
	}
	got = scrape(t, replica)
	if size, ok := got["ipfs_savepoint_follow_size"+own]; ok || len(heads) == 0 || got[reached] == 0 {
		t.Errorf("size %v of %d damaged heads: %v", size, len(heads), got)
	}
	expect(t, got, map[string]float64{"ipfs_savepoint_follow_error" + own: 1})
}
