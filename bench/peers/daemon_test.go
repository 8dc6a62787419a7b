package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// daemon is a kubo that runs, on loopback and without a DHT, mDNS, bootstrap peers or
// relays: profile test, and no routing.
type daemon struct {
	kubo
	*process
	gateway string // URL
	swarm   string // multiaddr with peer id
}

// start runs the daemon. Settings are pairs of a key of kubo's config and JSON.
func (k kubo) start(t testing.TB, settings ...string) daemon {
	t.Helper()
	for i := 0; i < len(settings); i += 2 {
		k.run(t, nil, "config", "--json", settings[i], settings[i+1])
	}
	cmd := exec.Command(k.program, "daemon")
	cmd.Env = k.env()
	d := daemon{kubo: k}
	d.process, _ = start(t, cmd, "Daemon is ready")
	d.gateway = strings.TrimSuffix(readLine(t, filepath.Join(k.repo, "gateway")), "/")
	d.swarm, _, _ = strings.Cut(d.ask(t, "id", "-f", "<addrs>"), "\n")
	if !strings.HasPrefix(d.swarm, "/ip4/127.0.0.1/") {
		t.Fatalf("kubo listens at %q", d.swarm)
	}
	return d
}

// ask runs a command in the daemon.
func (d daemon) ask(t testing.TB, args ...string) string {
	t.Helper()
	return line(output(t, d.command(t, args...)))
}

// command is a command to the daemon.
func (d daemon) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := command(t, d.program, args...)
	cmd.Env = d.env()
	return cmd
}

// unlimited is a command to the daemon that may take any time.
func (d daemon) unlimited(args ...string) *exec.Cmd {
	cmd := exec.Command(d.program, args...)
	cmd.Env = d.env()
	return cmd
}

// holds fails the test unless the daemon, without the network, holds the documents
// of a state.
func (k kubo) holds(t testing.TB, state, dir string) {
	t.Helper()
	got := filepath.Join(t.TempDir(), "got")
	k.run(t, nil, "get", "-o", got, state)
	equalFolders(t, dir, got)
}

func equalFolders(t testing.TB, want, got string) {
	t.Helper()
	output(t, command(t, "diff", "-r", want, got))
}

func readLine(t testing.TB, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return line(data)
}
