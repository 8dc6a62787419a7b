package savepoints_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// stress is how long TestEverythingAtOnce runs: 3 seconds, or the time in the
// environment variable IPFS_SAVEPOINT_STRESS, which is also that of the stress test of
// node/segments. Minutes are worth while:
//
//	IPFS_SAVEPOINT_STRESS=3m go test -race -timeout 10m -run EverythingAtOnce ./savepoints
func stress(t *testing.T) time.Duration {
	d, err := time.ParseDuration(cmp.Or(os.Getenv("IPFS_SAVEPOINT_STRESS"), "3s"))
	must(t, err)
	return d
}

// stressState is one of a few states that share most of their documents, and return.
func stressState(i int) state {
	s := state{}
	for k := range 90 {
		s[fmt.Sprintf("c/%03d.json", k)] = fmt.Sprint("document ", k)
	}
	for k := range 10 {
		s[fmt.Sprintf("c/%03d.json", (i*7+k)%90)] = fmt.Sprint("changed ", i%13, " ", k)
	}
	return s
}

// stressed is a bank in use by everybody at once, and a follower of it.
type stressed struct {
	b, copied *savepoints.Bank
	policy    *anchor.Policy
	url       string

	takes, fetches, reads, given, collected, sealed atomic.Int64
}

// again calls f until ctx ends.
func again(ctx context.Context, t *testing.T, wg *sync.WaitGroup, cancel func(), what string, f func(i int) error) {
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := f(i); err != nil && ctx.Err() == nil {
				t.Errorf("%s: %v", what, err)
				cancel()
			}
		}
	})
}

// Takes, fetches, a follower that gives up what is old, readers of the gateway, deletion,
// collection of garbage and sealing, all at the same time: nobody ever misses
// anything, and in the end everything that is held is whole.
func TestEverythingAtOnce(t *testing.T) {
	u := &stressed{b: initBank(t)}
	take(t, u.b, stressState(0), "p0")
	u.copied, u.policy = reader(t, u.b)
	u.url = serve(t, u.b).GatewayURL()
	once, _ := reader(t, u.b) // fetches single save points

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for n := range 2 {
		again(ctx, t, &wg, cancel, "take", func(i int) error {
			_, err := u.b.Take(ctx, stressState(i*2+n), savepoints.TakeOptions{Policy: fmt.Sprint("p", n)})
			u.takes.Add(1)
			return err
		})
	}
	wg.Go(func() { u.follow(ctx, t) })
	again(ctx, t, &wg, cancel, "fetch", func(int) error { return u.fetch(ctx, once) })
	again(ctx, t, &wg, cancel, "read", func(i int) error { return u.read(ctx) })
	for name, b := range map[string]*savepoints.Bank{"source": u.b, "follower": u.copied, "fetcher": once} {
		again(ctx, t, &wg, cancel, "collect in the "+name, func(i int) error { return u.collect(ctx, b, i) })
	}
	again(ctx, t, &wg, cancel, "delete", func(i int) error { return u.deleteGarbage(ctx, i) })
	time.AfterFunc(stress(t), func() {
		// On a busy machine it takes longer until everything has happened.
		for end := time.Now().Add(time.Minute); !u.enough() && ctx.Err() == nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	})
	wg.Wait()

	t.Logf("%d takes, %d fetches, %d reads, %d given up, %d IPFS blocks collected, %d times sealed",
		u.takes.Load(), u.fetches.Load(), u.reads.Load(), u.given.Load(), u.collected.Load(), u.sealed.Load())
	if !u.enough() {
		t.Error("too little happened")
	}
	checkHistory(t, u.b)
	for _, b := range []*savepoints.Bank{u.b, u.copied, once} {
		checkWhole(t, b, u.b.Origin())
		checkWhole(t, reopen(t, b), u.b.Origin())
	}
}

func (u *stressed) enough() bool {
	return u.takes.Load() > 8 && u.fetches.Load() > 3 && u.reads.Load() > 10 && u.given.Load() > 0 && u.collected.Load() > 0 && u.sealed.Load() > 1
}

// checkWhole verifies every save point and the log.
func checkWhole(t *testing.T, b *savepoints.Bank, origin string) {
	t.Helper()
	must(t, b.VerifyLog(ctx, origin))
	for _, s := range list(t, b) {
		if _, err := b.Verify(ctx, s); err != nil {
			t.Error(err)
		}
	}
}

func (u *stressed) follow(ctx context.Context, t *testing.T) {
	err := u.copied.Follow(ctx, savepoints.FollowOptions{
		Policy: u.policy, Sources: []string{u.url}, Interval: 10 * time.Millisecond, Keep: 3, Grace: time.Nanosecond,
		Dropped: func(savepoints.Savepoint) { u.given.Add(1) },
		Failed: func(err error) {
			if ctx.Err() == nil {
				t.Errorf("follow: %v", err)
			}
		},
	})
	if err != nil {
		t.Errorf("follow: %v", err)
	}
}

// fetch brings the newest save point of a policy, and gives up all but two.
func (u *stressed) fetch(ctx context.Context, to *savepoints.Bank) error {
	_, err := fetchContext(ctx, to, savepoints.Ref{Policy: "p0"}, u.policy, u.url)
	if err != nil {
		return err
	}
	u.fetches.Add(1)
	dropped, err := to.Retain(ctx, u.b.Origin(), 2, 0)
	u.given.Add(int64(len(dropped)))
	return err
}

func fetchContext(ctx context.Context, b *savepoints.Bank, ref savepoints.Ref, p *anchor.Policy, sources ...string) (savepoints.Savepoint, error) {
	f, err := b.Fetch(ctx, ref, savepoints.FetchOptions{Policy: p, Sources: sources})
	return f.Savepoint, err
}

// read asks the gateway for a document and a whole save point.
func (u *stressed) read(ctx context.Context) error {
	all, err := u.b.List(ctx, "p0")
	if err != nil || len(all) == 0 {
		return err
	}
	s := all[rand.IntN(len(all))]
	for _, path := range []string{"/state/c/" + fmt.Sprintf("%03d.json", rand.IntN(90)), "?format=car"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url+"/ipfs/"+s.CID.String()+path, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s: %w", path, resp.Status, err)
		}
		u.reads.Add(1)
	}
	return nil
}

func (u *stressed) collect(ctx context.Context, b *savepoints.Bank, i int) error {
	select { // leave the others something to do it beside
	case <-ctx.Done():
	case <-time.After(rand.N(100 * time.Millisecond)):
	}
	got, err := b.Collect(ctx, segments.CollectOptions{All: i%2 == 0, DryRun: i%5 == 4})
	u.collected.Add(got.RemovedBlocks)
	if err == nil && len(got.Missing) > 0 {
		err = fmt.Errorf("%w: missing %v", node.ErrDamaged, got.Missing)
	}
	if err != nil || i%3 != 0 {
		return err
	}
	u.sealed.Add(1)
	return b.Repo().Blocks.Seal(ctx)
}

// deleteGarbage puts what nobody wants into the source, and deletes or erases it, or
// leaves it to be collected.
func (u *stressed) deleteGarbage(ctx context.Context, i int) error {
	store := u.b.Repo().Blocks
	b := dag.RawBlock(fmt.Append(nil, "nobody wants this ", i))
	err := store.Put(ctx, b)
	switch {
	case err != nil:
	case i%20 == 0:
		err = store.Erase(ctx, b.CID)
	case i%2 == 0:
		err = store.Delete(ctx, b.CID)
	}
	if err != nil {
		return err
	}
	if has, err := store.Has(ctx, b.CID); err != nil || has && i%2 == 0 {
		return fmt.Errorf("deleted and there: %w", err)
	}
	return nil
}
