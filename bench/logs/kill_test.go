package logs

import (
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// TestKilled kills processes that take save points at random moments: takes one after
// the other, and a running serve to which several takes are handed at once. What they
// have said must be true, and the repository must be as before a take, or as after it.
func TestKilled(t *testing.T) {
	t.Logf("seed %d", *seed)
	var outcomes tally
	groups(t, func(t *testing.T, r *trial, runs int) {
		for i := range runs {
			kind, kill := "take", r.killTakes
			if i%2 == 1 {
				kind, kill = "serve", r.killServe
			}
			done, err := kill(t)
			if err == nil {
				err = r.judge()
			}
			if err != nil {
				outcomes.add(kind + " killed: " + bad)
				t.Fatalf("run %d, %s: %v", i, kind, err)
			}
			outcomes.add(fmt.Sprintf("%s killed after %s save points: all there", kind, few(done)))
		}
	})
	outcomes.print(t)
}

// few is a number, but for large ones.
func few(n int) string {
	if n > 3 {
		return "more than 3"
	}
	return fmt.Sprint(n)
}

// moment is a random time within which a few takes are done.
func (r *trial) moment() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Duration(r.rand.Int64N(int64(4 * r.pace)))
}

// killTakes runs takes one after the other and kills the one that runs when the time
// is over. It returns how many save points were acknowledged.
func (r *trial) killTakes(t *testing.T) (done int, err error) {
	over := time.After(r.moment())
	for {
		p := background(t, exec.Command(r.program, r.changed()...))
		select {
		case <-p.over:
			if status := p.cmd.ProcessState.ExitCode(); status != 0 {
				return done, fmt.Errorf("take before the kill: %d\n%s", status, p.said(t))
			}
			done += len(r.printed(p.said(t)))
		case <-over:
			p.end(t, syscall.SIGKILL)
			return done + len(r.printed(p.said(t))), nil
		}
	}
}

// killServe starts serve, has several processes hand takes to it, and kills it.
func (r *trial) killServe(t *testing.T) (done int, err error) {
	p := background(t, exec.Command(r.program, "serve", "--repo", r.dir, "--json", "--quiet",
		"--gateway", "127.0.0.1:0", "--swarm", "/ip4/127.0.0.1/tcp/0"))
	var listening struct{ Gateway string }
	p.says(t, &listening)
	wait := r.moment()
	var clients sync.WaitGroup
	var killed atomic.Bool
	var mu sync.Mutex
	problem := func(e error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			err = e
		}
	}
	for range 3 {
		clients.Go(func() {
			for !killed.Load() {
				e, failed := execute(r.program, r.changed()...)
				n := len(r.printed(e.out))
				mu.Lock()
				done += n
				mu.Unlock()
				switch {
				case failed != nil:
					problem(failed)
				case e.panicked() || e.status != 0 && !(e.status == 7 && killed.Load()):
					problem(fmt.Errorf("take handed to serve: %d\n%s%s", e.status, e.out, e.err))
				}
				// What the gateway shows is published.
				if status, _, checkpoint := get(listening.Gateway + "/tlog/" + savepoints.LogID(r.origin()) + "/checkpoint"); status == 200 {
					if e := r.published([]byte(checkpoint)); e != nil {
						problem(e)
					}
				}
			}
		})
	}
	time.Sleep(wait)
	killed.Store(true)
	p.end(t, syscall.SIGKILL)
	clients.Wait()
	return done, err
}
