package savepoints_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// lagging is a source that has what one bank has until its checkpoint has been read so
// many times, and then what the other has.
func lagging(t *testing.T, first, then *savepoints.Bank, reads int64) string {
	t.Helper()
	before, err := first.Repo().Gateway(first.LogRoot)
	must(t, err)
	after, err := then.Repo().Gateway(then.LogRoot)
	must(t, err)
	var n atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read := n.Load()
		if strings.HasSuffix(r.URL.Path, "/checkpoint") {
			read = n.Add(1) - 1
		}
		if read < reads {
			before.ServeHTTP(w, r)
			return
		}
		after.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	return web.URL
}

// A witness knows a head before it is published. Who asks in between looks again, and is
// told of a rollback only if nothing newer is shown.
func TestDiscoverWhilePublishing(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	_, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	old := openBank(t, copyBank(t, b))
	_, err = b.Take(ctx, smallState(2), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	to, p := reader(t, b)
	d, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{lagging(t, old, b, 3)}})
	if err != nil || d.Head.Size != 2 || d.Freshness != savepoints.FreshnessWitnessed {
		t.Errorf("size %d, %s, %v", d.Head.Size, d.Freshness, err)
	}
	_, behind := countedGateway(t, old)
	to, _ = reader(t, b)
	if _, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{behind}}); !errors.Is(err, anchor.ErrRollback) {
		t.Errorf("a source that stays behind: %v", err)
	}
}

// What is known here may have come from the same source a moment later.
func TestSourceIsReadAgain(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	old := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	follows(t, to, p, url, 2)
	d, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{lagging(t, old, b, 1)}})
	if err != nil || d.Head.Size != 2 {
		t.Errorf("size %d, %v", d.Head.Size, err)
	}
}

// overtaken is a source whose checkpoint comes late: the log of the bank has grown meanwhile,
// so many times, and somebody else has been told.
func overtaken(t *testing.T, b *savepoints.Bank, times int, told func(size int64)) string {
	t.Helper()
	gateway, err := b.Repo().Gateway(b.LogRoot)
	must(t, err)
	var mu sync.Mutex
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said := httptest.NewRecorder()
		gateway.ServeHTTP(said, r)
		mu.Lock()
		if times > 0 && strings.HasSuffix(r.URL.Path, "/checkpoint") {
			times--
			take(t, b, smallState(times), "p")
			told(mustHead(t, b).Size)
		}
		mu.Unlock()
		w.WriteHeader(said.Code)
		w.Write(said.Body.Bytes())
	}))
	t.Cleanup(web.Close)
	return web.URL
}

// What comes to be known here while sources are asked makes no rollback of what they show,
// however often.
func TestCopyGrowsMeanwhile(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	follows(t, to, p, url, 1)
	late := overtaken(t, b, 10, func(size int64) { follows(t, to, p, url, int(size)) })
	d, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{late}})
	if err != nil || d.Head.Size != 2 {
		t.Errorf("size %d, %v", d.Head.Size, err)
	}

	late = overtaken(t, b, 10, func(size int64) {
		if d, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{url}}); err != nil || d.Head.Size != size {
			t.Errorf("size %d of %d, %v", d.Head.Size, size, err)
		}
	})
	f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{late}})
	f.await(t, 10)
	f.stop(t)
	if len(f.failed) > 0 {
		t.Errorf("told: %v", f.failed)
	}
	must(t, to.VerifyLog(ctx, p.Origin))
}

// Discoveries and a follower on one repository do not take each other for a rollback or
// for another writer while the log grows.
func TestDiscoverWhileFollowing(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	growing, stop := context.WithCancel(ctx)
	followed, discovered := make(chan error), make(chan error)
	go func() {
		followed <- to.Follow(growing, savepoints.FollowOptions{Policy: p, Sources: []string{url}, Interval: time.Millisecond, Failed: func(err error) { t.Errorf("follow: %v", err) }})
	}()
	go func() {
		for n := 0; growing.Err() == nil; n++ {
			if _, err := to.Discover(growing, savepoints.FetchOptions{Policy: p, Sources: []string{url}}); err != nil && growing.Err() == nil {
				t.Errorf("discovery %d: %v", n, err)
			}
		}
		close(discovered)
	}()
	for i := range 60 {
		take(t, b, smallState(i), "p")
	}
	stop()
	must(t, <-followed)
	<-discovered
}

// recosigned has a bank publish the same head with newer cosignatures, which tell seconds.
func recosigned(t *testing.T, b *savepoints.Bank, p *anchor.Policy) anchor.Head {
	t.Helper()
	before, err := b.Head(ctx, "")
	must(t, err)
	await(t, "another second", func() bool { return !anchor.CosignedSince(p, before, time.Now().Truncate(time.Second)) })
	_, err = b.Publish(ctx)
	must(t, err)
	now, err := b.Head(ctx, "")
	must(t, err)
	if !anchor.Fresher(p, now, before) {
		t.Fatal("the cosignatures are not newer")
	}
	return now
}

// That a head was cosigned again, as witnesses do of a log that does not grow, comes to
// those who have a copy of it.
func TestNewCosignaturesAreCopied(t *testing.T) {
	w := newRegulator(t)
	b := newWitnessedBank(t, w)
	_, err := b.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p", Witnessed: time.Minute})
	must(t, err)
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	follows(t, to, p, url, 1)
	for _, what := range []string{"discovery", "follower"} {
		newest := recosigned(t, b, p)
		if what == "follower" {
			following, stop := context.WithCancel(ctx)
			done := make(chan error)
			go func() {
				done <- to.Follow(following, savepoints.FollowOptions{Policy: p, Sources: []string{url}, Interval: 10 * time.Millisecond})
			}()
			await(t, "the copy", func() bool { h, err := to.Head(ctx, p.Origin); return err == nil && !anchor.Fresher(p, newest, h) })
			stop()
			must(t, <-done)
			continue
		}
		d, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{url}})
		must(t, err)
		h, err := to.Head(ctx, p.Origin)
		must(t, err)
		if anchor.Fresher(p, newest, d.Head) || anchor.Fresher(p, newest, h) {
			t.Errorf("%s: the copy has older cosignatures than the source", what)
		}
	}
	must(t, to.VerifyLog(ctx, p.Origin))
}
