package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// faulty are the system calls that fail, as strace names them: "?" allows that a
// machine has no such call.
var faulty = []string{"write", "?pwrite64", "?writev", "?pwritev", "fsync", "fdatasync", "?rename", "?renameat", "renameat2", "close"}

// call is a system call that strace has seen.
type call struct {
	name string
	nth  int    // of this name, in its thread
	what string // what it was done to
	fail bool   // it failed, since strace made it
}

func (c call) String() string { return c.name + " of " + c.what }

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
)

// calls reads what strace has written.
func (r *trial) calls(file string) ([]call, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []call
	seen := map[string]int{} // how many of a thread and name
	last := map[string]int{} // index of the last one of a thread
	for line := range strings.SplitSeq(string(data), "\n") {
		if m := resumedLine.FindStringSubmatch(line); m != nil {
			all[last[m[1]]].fail = strings.Contains(m[2], "(INJECTED)")
			continue
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, name := m[1], m[2]
		seen[thread+name]++
		last[thread] = len(all)
		all = append(all, call{name, seen[thread+name], r.place(m[3]), strings.Contains(m[3], "(INJECTED)")})
	}
	return all, nil
}

// place says what a call was done to; empty if that is no file of the repository, no
// stream and no connection, but of the Go runtime or of the system.
func (r *trial) place(args string) string {
	_, path, ok := strings.Cut(args, r.dir+"/")
	switch {
	case ok:
		path, _, _ = strings.Cut(path, ">")
		path, _, _ = strings.Cut(path, `"`)
		if strings.HasSuffix(path, ".car") {
			return "packs/N.car"
		}
		if f := strings.Split(path, "/"); f[0] == "meta" && len(f) > 1 {
			return "meta/" + f[1]
		}
		return path
	case strings.HasPrefix(args, "1<"):
		return "stdout"
	case strings.HasPrefix(args, "2<"):
		return "stderr"
	case strings.Contains(args, "<socket:") || strings.Contains(args, "<TCP"):
		return "connection"
	case strings.Contains(args, "<"+r.dir+">"):
		return "."
	}
	return ""
}

// strace runs a take under strace with more arguments, and returns the calls it made.
func (r *trial) strace(more ...string) (ended, []call, error) {
	file := filepath.Join(filepath.Dir(r.dir), "strace")
	args := append([]string{"-f", "-qq", "-y", "-o", file, "-e", "signal=none", "-e", "trace=" + strings.Join(faulty, ",")}, more...)
	e, err := execute("strace", slices.Concat(args, []string{r.program}, r.changed())...)
	if err != nil {
		return e, nil, err
	}
	all, err := r.calls(file)
	return e, all, err
}

// sites are the calls of a take that can be made to fail, by name.
func (r *trial) sites() (map[string][]call, error) {
	e, all, err := r.strace()
	if err != nil {
		return nil, err
	}
	if e.status != 0 || len(r.printed(e.out)) != 1 {
		return nil, fmt.Errorf("take under strace: %d\n%s%s", e.status, e.out, e.err)
	}
	out := map[string][]call{}
	for _, c := range all {
		if c.what != "" {
			out[c.name] = append(out[c.name], c)
		}
	}
	return out, nil
}

// inject makes one call of a take fail. It says what failed; nothing, if that was not
// the take's: its calls are not always made by the same threads, by which strace counts.
func (r *trial) inject(at call) (ended, []call, error) {
	e, all, err := r.strace("-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", at.name, at.nth))
	r.printed(e.out)
	if err != nil {
		return e, nil, err
	}
	var failed []call
	for _, c := range all {
		if c.fail && c.what == "" {
			return e, nil, nil // a call of the Go runtime too: how it ended says nothing
		}
		if c.fail {
			failed = append(failed, c)
		}
	}
	return e, failed, nil
}

// wrong says why a take may not end so after what failed.
func (r *trial) wrong(e ended, failed []call) error {
	said := fmt.Errorf("status %d after %v\n%s%s", e.status, failed, e.out, e.err)
	switch {
	case e.panicked():
		return said
	case e.status == 1, e.status == 4 && r.witness != nil:
		return nil
	case e.status != 0:
		return said
	}
	for _, c := range failed {
		again := r.witness != nil && (c.what == "meta/heads" || c.what == "meta/receipts") // publication is tried again
		switch {
		case c.name == "close", c.what == "stderr", c.what == "connection", c.what == "repo.lock", again:
		default:
			return said // what is not on disk, or could not be printed, was not done
		}
	}
	return nil
}

// TestFaults makes the writes, syncs, renames and closes of takes fail, one in each
// run. Whatever take then says must be true, and the repository must be as before, or
// as after it.
func TestFaults(t *testing.T) {
	need(t, "strace")
	t.Logf("seed %d", *seed)
	var outcomes, places tally
	groups(t, func(t *testing.T, r *trial, runs int) {
		sites, err := r.sites()
		must(t, err)
		var names []string
		for name := range sites {
			names = append(names, name)
		}
		slices.Sort(names)
		for i := range runs {
			name := names[i%len(names)]
			e, failed := r.oneFault(t, sites[name], &places)
			err := r.wrong(e, failed)
			if err == nil {
				err = r.judge()
			}
			if err != nil {
				outcomes.add(name + " failed: " + bad)
				t.Fatalf("run %d: %v: %v", i, failed, err)
			}
			outcomes.add(fmt.Sprintf("%s failed: status %d, all there", name, e.status))
			for _, c := range failed {
				places.add(c.String())
			}
		}
	})
	outcomes.print(t)
	t.Log("what failed, of several at once in a run each:")
	places.list(t)
}

// oneFault injects until something of the take's has failed: first what has failed
// least in all runs so far.
func (r *trial) oneFault(t *testing.T, sites []call, places *tally) (ended, []call) {
	t.Helper()
	r.rand.Shuffle(len(sites), func(i, j int) { sites[i], sites[j] = sites[j], sites[i] })
	slices.SortStableFunc(sites, func(a, b call) int { return places.of(a.String()) - places.of(b.String()) })
	for try := range 40 {
		e, failed, err := r.inject(sites[try%len(sites)])
		must(t, err)
		if len(failed) > 0 {
			return e, failed
		}
	}
	t.Fatalf("none of 40 takes made the call that should fail: %v", sites)
	return ended{}, nil
}
