package savepoints_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// counted is the gateway of a bank that remembers the requests for the log.
type counted struct {
	next http.Handler
	mu   sync.Mutex
	asks []string
	deny string // paths that begin with this are not found
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	deny := c.deny
	if q := r.URL.Query().Get("format"); q != "car" && q != "raw" {
		c.asks = append(c.asks, r.URL.Path)
	}
	c.mu.Unlock()
	if deny != "" && strings.HasPrefix(r.URL.Path, deny) {
		http.NotFound(w, r)
		return
	}
	c.next.ServeHTTP(w, r)
}

func countedGateway(t *testing.T, b *savepoints.Bank) (*counted, string) {
	t.Helper()
	h, err := b.Repo().Gateway(b.LogRoot)
	must(t, err)
	c := &counted{next: h}
	web := httptest.NewServer(c)
	t.Cleanup(web.Close)
	return c, web.URL
}

// published runs what keeps the log and its name published.
func published(t *testing.T, b *savepoints.Bank) (name string) {
	t.Helper()
	publishing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); b.KeepPublished(publishing, func(err error) { t.Log(err) }) }()
	t.Cleanup(func() { stop(); <-done })
	p := policyOf(t, b)
	name, _ = strings.CutPrefix(p.URLs[0], "ipns://")
	awaitName(t, b, name)
	return name
}

// awaitName waits until the name stands for the newest head.
func awaitName(t *testing.T, b *savepoints.Bank, name string) {
	t.Helper()
	await(t, "the name", func() bool {
		h, err := b.Head(ctx, "")
		must(t, err)
		n, err := b.Repo().Name(name)
		return err == nil && n.Value == "/ipfs/"+h.Root.String()
	})
}

// A fresh host needs at most six requests to find and prove the newest save point,
// however long the log is and whether it is found as such or by its name.
func TestFreshHostRequests(t *testing.T) {
	b := initBank(t)
	c, url := countedGateway(t, b)
	name := published(t, b)
	for _, size := range []int{1, 255, 256, 300} {
		h, err := b.Head(ctx, "")
		must(t, err)
		for range size - int(h.Size) {
			take(t, b, smallState(size), "p")
		}
		awaitName(t, b, name)
		for _, deny := range []string{"", "/tlog/"} {
			to, p := reader(t, b)
			c.mu.Lock()
			c.asks, c.deny = nil, deny
			c.mu.Unlock()
			got, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url)
			must(t, err)
			if got.Entry.Sequence != uint64(size) {
				t.Errorf("sequence %d of %d", got.Entry.Sequence, size)
			}
			c.mu.Lock()
			if len(c.asks) > 6 || len(c.asks) == 0 {
				t.Errorf("size %d, without %q: %d requests: %q", size, deny, len(c.asks), c.asks)
			}
			c.mu.Unlock()
		}
	}
	// An old one is found by reading on, from the end.
	to, p := reader(t, b)
	got, err := fetch(to, savepoints.Ref{Policy: "p", Sequence: 2}, p, url)
	must(t, err)
	if got.Entry.Sequence != 2 {
		t.Errorf("sequence %d", got.Entry.Sequence)
	}
	if _, err := fetch(to, savepoints.Ref{Policy: "p", Sequence: 999}, p, url); !errors.Is(err, savepoints.ErrNotFound) {
		t.Error(err)
	}
}

// A head that was signed, and whose entries nobody gives, means that what can be read is
// not the newest.
func TestWithheldEntries(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	old := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	c, url := countedGateway(t, b)
	c.deny = "/tlog/" + savepoints.LogID(b.Origin()) + "/tile/"
	_, behind := countedGateway(t, old)
	to, p := reader(t, b)
	o := savepoints.FetchOptions{Policy: p, Sources: []string{url, behind}}
	if _, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, o); !errors.Is(err, anchor.ErrStale) {
		t.Fatal(err)
	}
	o.AcceptStale = true
	got, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, o)
	if err != nil || got.Freshness != savepoints.FreshnessStaleAccepted || got.Entry.Sequence != 1 {
		t.Errorf("%v %d %v", got.Freshness, got.Entry.Sequence, err)
	}
	// Given by another source it is the newest.
	_, whole := countedGateway(t, b)
	o = savepoints.FetchOptions{Policy: p, Sources: []string{url, behind, whole}}
	if got, err = to.Fetch(ctx, savepoints.Ref{Policy: "p"}, o); err != nil || got.Entry.Sequence != 2 || got.Freshness != savepoints.FreshnessUnknown {
		t.Errorf("%v %d %v", got.Freshness, got.Entry.Sequence, err)
	}
}

// What a fork proves is kept in a file.
func TestForkEvidence(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	fork := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	take(t, fork, smallState(3), "p")
	take(t, fork, smallState(4), "p")
	_, one := countedGateway(t, b)
	_, two := countedGateway(t, fork)
	to, p := reader(t, b)
	_, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{one, two}})
	if !errors.Is(err, anchor.ErrFork) {
		t.Fatal(err)
	}
	files, globErr := filepath.Glob(filepath.Join(to.Repo().Dir(), "evidence", "*.json"))
	must(t, globErr)
	if len(files) != 1 || !strings.Contains(err.Error(), files[0]) {
		t.Fatalf("%v: %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	must(t, err)
	got, err := anchor.CheckEvidence(p, text)
	must(t, err)
	if got.Old.Size != 2 || got.New.Size != 3 {
		t.Errorf("sizes %d and %d", got.Old.Size, got.New.Size)
	}
}

// Evidence of one fork is kept beside that of another of the same sizes, and written once.
func TestEvidenceOfEachFork(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	forks := []*savepoints.Bank{openBank(t, copyBank(t, b)), openBank(t, copyBank(t, b))}
	take(t, b, smallState(2), "p")
	_, one := countedGateway(t, b)
	to, p := reader(t, b)
	for i, fork := range forks {
		take(t, fork, smallState(3+i), "p")
		_, two := countedGateway(t, fork)
		for range 2 {
			if _, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{one, two}}); !errors.Is(err, anchor.ErrFork) {
				t.Fatal(err)
			}
		}
		files, err := filepath.Glob(filepath.Join(to.Repo().Dir(), "evidence", "*.json"))
		must(t, err)
		if len(files) != i+1 {
			t.Errorf("after %d forks: %q", i+1, files)
		}
	}
}

// A fork that has fewer entries than the copy held here is no old head: the copy proves it.
func TestForkSmallerThanCopy(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	fork := openBank(t, copyBank(t, b))
	for i := range 3 {
		take(t, b, smallState(i), "p")
	}
	take(t, fork, smallState(9), "p")
	_, one := countedGateway(t, b)
	_, two := countedGateway(t, fork)
	to, p := reader(t, b)
	follows(t, to, p, one, 4)
	_, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{one}})
	must(t, err)
	_, err = to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{two}})
	var proof *anchor.ForkError
	if !errors.As(err, &proof) || proof.Old.Size != 2 || proof.New.Size != 4 {
		t.Fatal(err)
	}
	if files, err := filepath.Glob(filepath.Join(to.Repo().Dir(), "evidence", "*.json")); err != nil || len(files) != 1 {
		t.Errorf("%q %v", files, err)
	}
}

// Partial tiles and bundles that no recent head needs are garbage; the name's root and
// those of recent heads are not.
func TestOldRightEdgesAreCollected(t *testing.T) {
	b := initBank(t)
	name := published(t, b)
	edge := func(root anchor.Head, path string) dag.Link {
		doc, err := dag.Lookup(ctx, b.Repo().Blocks, root.Root, path)
		must(t, err)
		return doc.Link
	}
	var old, recent anchor.Head
	var oldEdge, recentEdge dag.Link
	for i := range 320 {
		take(t, b, smallState(0), "p")
		h, err := b.Head(ctx, "")
		must(t, err)
		switch i {
		case 9:
			old, oldEdge = h, edge(h, "tile/entries/000.p/10")
		case 309:
			recent, recentEdge = h, edge(h, "tile/entries/001.p/54")
		}
	}
	awaitName(t, b, name)
	_, err := b.Collect(ctx, segments.CollectOptions{All: true})
	must(t, err)
	for what, c := range map[string]dag.Link{"directory": {CID: old.Root}, "bundle": oldEdge} {
		if _, err := b.Repo().Blocks.Get(ctx, c.CID); !errors.Is(err, dag.ErrNotFound) {
			t.Errorf("%s of size 10: %v", what, err)
		}
	}
	if _, err := b.Repo().Blocks.Get(ctx, recentEdge.CID); err != nil {
		t.Errorf("bundle of size %d: %v", recent.Size, err)
	}
	must(t, b.VerifyLog(ctx, b.Origin()))
}

// An archive that is asked for the latest save point of a witnessed log is taken only if
// the witnesses have seen nothing later.
func TestArchiveFreshness(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	took, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	s, err := b.Resolve(ctx, savepoints.Ref{CID: took.CID}, "")
	must(t, err)
	archive := filepath.Join(t.TempDir(), "a.car")
	must(t, os.WriteFile(archive, export(t, b, s), 0o600))
	to, p := reader(t, b)
	o := savepoints.FetchOptions{Policy: p, Sources: []string{archive}}
	got, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, o)
	if err != nil || got.Freshness != savepoints.FreshnessWitnessed {
		t.Fatalf("%v %v", got.Freshness, err)
	}
	_, err = b.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	if _, err = to.Fetch(ctx, savepoints.Ref{Policy: "p"}, o); !errors.Is(err, anchor.ErrStale) && !errors.Is(err, anchor.ErrRollback) {
		t.Errorf("an old archive: %v", err)
	}
	got, err = to.Fetch(ctx, savepoints.Ref{CID: took.CID}, o)
	if err != nil || got.Freshness != savepoints.FreshnessUnknown {
		t.Errorf("by CID: %v %v", got.Freshness, err)
	}
}

// A head that contradicts the policy's floor is a fork, whatever other sources show.
func TestForkFromFloor(t *testing.T) {
	b := initBank(t)
	fork := openBank(t, copyBank(t, b))
	take(t, b, smallState(1), "p")
	take(t, fork, smallState(2), "p")
	_, one := countedGateway(t, b)
	_, two := countedGateway(t, fork)
	h, err := b.Head(ctx, "")
	must(t, err)
	text, err := b.TrustPolicy()
	must(t, err)
	p, err := anchor.ParsePolicy(fmt.Appendf(nil, "%s# ipfs-savepoint: floor %d %s\n", text, h.Size, h.RootHash))
	must(t, err)
	to, _ := reader(t, b)
	d, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{one}})
	if err != nil || d.Head.Size != 1 {
		t.Fatalf("%d %v", d.Head.Size, err)
	}
	if _, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{one, two}}); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("with a forked source: %v", err)
	}
}

// A source that shows the larger head and then nothing more has as long as any other
// source, and no longer.
func TestSilentSource(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a source's whole time")
	}
	t.Parallel()
	b := initBank(t)
	take(t, b, smallState(1), "p")
	old := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	h, err := b.Repo().Gateway(b.LogRoot)
	must(t, err)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/tile/") {
			<-r.Context().Done()
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	_, behind := countedGateway(t, old)
	to, p := reader(t, b)
	limited, cancel := context.WithTimeout(ctx, 45*time.Second) // three times as long
	defer cancel()
	d, err := to.Discover(limited, savepoints.FetchOptions{Policy: p, Sources: []string{web.URL, behind}, AcceptStale: true})
	if err != nil || d.Head.Size != 1 || d.Freshness != savepoints.FreshnessStaleAccepted {
		t.Errorf("size %d, %s, %v", d.Head.Size, d.Freshness, err)
	}
}

// A file of a log is read as far as the longest can be.
func TestLongLogFile(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := anchor.MaxEndpointSize
		if strings.HasSuffix(r.URL.Path, "longer") {
			n++
		}
		w.Write(make([]byte, n))
	}))
	t.Cleanup(web.Close)
	r, err := nobody(t).Repo().Dial(web.URL)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	if data, err := r.Log("log.example").ReadEndpoint(ctx, "long"); err != nil || len(data) != anchor.MaxEndpointSize {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if _, err := r.Log("log.example").ReadEndpoint(ctx, "longer"); err == nil {
		t.Error("a longer one is read")
	}
}
