package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

const (
	demoPolicy = "mrv"
	demoSeed   = 1
	demoYears  = 3
	// demoTimeout bounds the whole demonstration, demoWait every step of it that
	// waits for another process.
	demoTimeout = 2 * time.Minute
	demoWait    = 30 * time.Second
)

// demoJSON is the result of demo.
type demoJSON struct {
	OK          bool           `json:"ok"`
	Savepoints  []demoSave     `json:"savepoints"`
	Restored    demoRestored   `json:"restored"`
	Final       demoFinalState `json:"final"`
	Undisturbed demoFinalState `json:"undisturbed"`
	Seconds     float64        `json:"seconds"`
}

type demoSave struct {
	Savepoint string `json:"savepoint"`
	Block     string `json:"block"`
	Sequence  uint64 `json:"sequence"`
	Height    uint64 `json:"height"`
}

type demoRestored struct {
	Savepoint string `json:"savepoint"`
	State     string `json:"state"`
}

type demoFinalState struct {
	State string `json:"state"`
}

func (e *env) demoCommand() *cobra.Command {
	var keep string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a disaster and the recovery from it, with real processes, in a temporary folder",
		Long: `Show a disaster and the recovery from it, with real processes on this machine.

Host A runs a small policy and takes save points. Host B follows A. A is killed in
the middle of a step and its folder is deleted. Host C, fresh, restores the last
save point from B through the network, with nothing but the public trust policy
and B's address, and runs the policy to its end. The final state must be the one
of a run that was never disturbed.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keep != "" {
				keep = e.path(keep)
			}
			return e.demo(cmd.Context(), keep)
		},
	}
	cmd.Flags().StringVar(&keep, "keep", "", "work in `DIR`, which must not exist, and leave it there")
	cmd.AddCommand(e.demoHostCommand(), e.demoContinueCommand())
	return cmd
}

func (e *env) demo(ctx context.Context, keep string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	dir := keep
	if keep == "" {
		if dir, err = os.MkdirTemp("", "ipfs-savepoint-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := os.Mkdir(keep, 0o700); err != nil {
		return fmt.Errorf("%w: --keep: %w", savepoints.ErrUsage, err)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	d := &demonstration{e: e, dir: dir, program: program, start: time.Now()}
	defer d.killAll()
	if err := d.run(ctx); err != nil {
		return err
	}
	d.killAll()
	d.result.Seconds = time.Since(d.start).Seconds()
	d.epilogue(keep)
	if e.json {
		err = e.print(d.result)
	}
	if !d.result.OK {
		err = errors.Join(err, fmt.Errorf("the final state is %s, that of the undisturbed run %s", d.result.Final.State, d.result.Undisturbed.State))
	}
	return err
}

// demonstration is a demo in progress.
type demonstration struct {
	e       *env
	dir     string
	program string
	start   time.Time
	result  demoJSON
	running []*child
}

func (d *demonstration) say(format string, args ...any) {
	d.e.note("%6.2f s  "+format, append([]any{time.Since(d.start).Seconds()}, args...)...)
}

func (d *demonstration) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demonstration) run(ctx context.Context) error {
	if err := d.undisturbed(ctx); err != nil {
		return fmt.Errorf("undisturbed run: %w", err)
	}
	a, addrA, err := d.startA(ctx)
	if err != nil {
		return fmt.Errorf("host A: %w", err)
	}
	b, addrB, err := d.startB(ctx, addrA)
	if err != nil {
		return fmt.Errorf("host B: %w", err)
	}
	if err := d.watch(ctx, a, b); err != nil {
		return err
	}
	if err := d.disaster(a); err != nil {
		return fmt.Errorf("disaster: %w", err)
	}
	if err := d.restore(ctx, addrB); err != nil {
		return fmt.Errorf("host C: %w", err)
	}
	return d.finish(ctx)
}

func (d *demonstration) undisturbed(ctx context.Context) error {
	r, err := newDemoRun()
	if err != nil {
		return err
	}
	if err := r.Run(ctx, 0); err != nil {
		return err
	}
	c, err := stateCID(ctx, r.Documents())
	d.result.Undisturbed.State = c
	d.say("a run that nobody disturbs: %d steps, final state %s", r.Height(), c)
	return err
}

// startA makes host A's repository and starts the policy on it.
func (d *demonstration) startA(ctx context.Context) (*child, string, error) {
	if err := d.command(ctx, nil, "init", "--repo", d.path("a")); err != nil {
		return nil, "", err
	}
	// What the operator keeps elsewhere: the one file, public, that a fresh
	// host will need.
	policy, err := os.ReadFile(d.path("a/trust.policy"))
	if err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(d.path("trust.policy"), policy, 0o644); err != nil {
		return nil, "", err
	}
	a, err := d.spawn("A", "demo", "host", "--repo", d.path("a"))
	if err != nil {
		return nil, "", err
	}
	ev, err := a.next(ctx, "serving")
	if err != nil {
		return nil, "", err
	}
	d.say("host A (process %d) runs the policy and serves at %s", a.pid(), ev.Serving.Swarm[0])
	return a, ev.Serving.Swarm[0], nil
}

// startB starts a plain replica of A.
func (d *demonstration) startB(ctx context.Context, addrA string) (*child, string, error) {
	b, err := d.spawn("B", "serve", "--repo", d.path("b"), "--follow", addrA, "--trust", d.path("trust.policy"),
		"--interval", "200ms", "--gateway", "127.0.0.1:0", "--swarm", "/ip4/127.0.0.1/tcp/0")
	if err != nil {
		return nil, "", err
	}
	ev, err := b.next(ctx, "serving")
	if err != nil {
		return nil, "", err
	}
	d.say("host B (process %d) follows A and serves at %s", b.pid(), ev.Serving.Swarm[0])
	return b, ev.Serving.Swarm[0], nil
}

// watch lets A run until it is in the middle of a step after its last save point,
// and B until it has them all.
func (d *demonstration) watch(ctx context.Context, a, b *child) error {
	if err := a.send("go"); err != nil {
		return err
	}
	for {
		ev, err := a.next(ctx, "")
		if err != nil {
			return fmt.Errorf("host A: %w", err)
		}
		if s := ev.Saved; s != nil {
			d.result.Savepoints = append(d.result.Savepoints, *s)
			d.say("host A: save point %d at block %q, height %d: %s", s.Sequence, s.Block, s.Height, s.Savepoint)
		}
		if ev.Middle > 0 {
			d.say("host A: in the middle of step %d", ev.Middle)
			break
		}
	}
	for range d.result.Savepoints {
		ev, err := b.next(ctx, "fetched")
		if err != nil {
			return fmt.Errorf("host B: %w", err)
		}
		d.say("host B: fetched and verified %s", ev.Fetched.Savepoint)
	}
	return nil
}

// disaster kills A and deletes everything that it had.
func (d *demonstration) disaster(a *child) error {
	if err := a.kill(); err != nil {
		return err
	}
	if err := os.RemoveAll(d.path("a")); err != nil {
		return err
	}
	d.say("DISASTER: host A was killed (SIGKILL) and its folder is gone")
	return nil
}

// restore brings the last save point to host C, which has nothing yet.
func (d *demonstration) restore(ctx context.Context, addrB string) error {
	d.say("host C: fresh; it has the trust policy and B's address")
	var r restoredJSON
	if err := d.command(ctx, &r, "restore", demoPolicy+"@latest", "--repo", d.path("c"), "--from", addrB,
		"--trust", d.path("trust.policy"), "--to", d.path("c-state")); err != nil {
		return err
	}
	d.result.Restored = demoRestored{r.Savepoint, r.State}
	d.say("host C: restored %s: %d documents, every byte verified", r.Savepoint, r.Documents)
	last := d.result.Savepoints[len(d.result.Savepoints)-1]
	if r.Savepoint != last.Savepoint {
		return fmt.Errorf("restored %s, the last save point is %s", r.Savepoint, last.Savepoint)
	}
	return nil
}

// finish runs the policy on from the restored documents.
func (d *demonstration) finish(ctx context.Context) error {
	var f demoFinished
	if err := d.command(ctx, &f, "demo", "continue", d.path("c-state")); err != nil {
		return err
	}
	d.result.Final.State = f.State
	d.result.OK = f.State == d.result.Undisturbed.State
	d.say("host C: the policy went on from height %d to its end at %d, final state %s", f.From, f.Height, f.State)
	return nil
}

func (d *demonstration) epilogue(keep string) {
	if d.result.OK {
		d.say("the final state equals that of the undisturbed run: nothing was lost")
	}
	at := keep
	if keep == "" {
		at = "DIR"
	}
	d.e.note("\nsave point       %s\nrestored state   %s\nfinal state      %s", d.result.Restored.Savepoint, d.result.Restored.State, d.result.Final.State)
	if keep == "" {
		d.e.note("\nEverything was removed again. To look at it: ipfs-savepoint demo --keep DIR, then")
	} else {
		d.e.note("\nTo look at it:")
	}
	d.e.note("  ipfs-savepoint --repo %[1]s/b list\n  ipfs-savepoint --repo %[1]s/b show %[2]s@latest\n  ipfs-savepoint --repo %[1]s/b verify --all\n"+
		"  ipfs-savepoint --repo %[1]s/b serve    # then, in a browser: http://127.0.0.1:8481/ipfs/%[3]s/state/\n"+
		"  find %[1]s/c-state -type f | head", at, demoPolicy, d.result.Restored.Savepoint)
}
