package savepoints_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// takeForEver takes save points and prints the CID of each that Take returned.
func takeForEver(dir string) error {
	b, err := savepoints.Open(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Println("open")
	for i := rand.IntN(1000); ; i++ {
		s, err := b.Take(ctx, smallState(i), savepoints.TakeOptions{Policy: fmt.Sprint("p", i%2)})
		if err != nil {
			return err
		}
		fmt.Println(s.CID)
	}
}

// killedWhile lets a second process take or erase for ever, kills it after a random
// time, at most within, and returns what it printed.
func killedWhile(t *testing.T, what, dir string, within time.Duration) []string {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, dir)
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	in := bufio.NewReader(out)
	first, err := in.ReadString('\n')
	must(t, err)
	if first != "open\n" {
		t.Fatalf("the child says %q", first)
	}
	time.AfterFunc(rand.N(within), func() { cmd.Process.Kill() })
	rest, err := io.ReadAll(in)
	must(t, err)
	cmd.Wait() // killed
	return strings.Fields(string(rest[:strings.LastIndex(string(rest), "\n")+1]))
}

// A process that takes save points is killed at random moments. After each, the
// bank opens; what is listed is whole; what was returned is listed; and the log
// has not shrunk.
func TestKilledWhileTaking(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	b := initBank(t)
	dir := b.Repo().Dir()
	must(t, b.Close())
	size := 0
	returned := map[string]bool{}
	for range rounds {
		for _, c := range killedWhile(t, "take", dir, 60*time.Millisecond) {
			returned[c] = true
		}
		b := openBank(t, dir)
		l := checkHistory(t, b)
		if len(l) < size {
			t.Fatalf("the log had %d entries and has %d", size, len(l))
		}
		size = len(l)
		listed := map[string]bool{}
		for _, s := range l {
			listed[s.CID.String()] = true
		}
		for c := range returned {
			if !listed[c] {
				t.Fatalf("%s was returned by Take and is lost", c)
			}
		}
		must(t, b.Close())
	}
	t.Logf("%d save points returned, %d in the log", len(returned), size)
	b = openBank(t, dir)
	take(t, b, smallState(1), "p0")
	checkHistory(t, b)
}
