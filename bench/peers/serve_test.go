package peers

import (
	"encoding/json"
	"os/exec"
	"testing"
)

// server is ipfs-savepoint serve, on loopback.
type server struct {
	product
	*process
	serving
}

// serving is what serve prints when it listens.
type serving struct {
	Gateway string
	Swarm   []string
}

// swarm is the server's multiaddr.
func (s server) swarm() string { return s.Swarm[0] }

// serve starts serving the repository.
func (p product) serve(t testing.TB, args ...string) server {
	t.Helper()
	args = append([]string{"--quiet", "--json", "--repo", p.repo, "serve", "--gateway", "127.0.0.1:0", "--swarm", "/ip4/127.0.0.1/tcp/0"}, args...)
	process, line := start(t, exec.Command(p.program, args...), `{"serving":`)
	var out struct{ Serving serving }
	if err := json.Unmarshal([]byte(line), &out); err != nil {
		t.Fatal(err)
	}
	return server{p, process, out.Serving}
}
