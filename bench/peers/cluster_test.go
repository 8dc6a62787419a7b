package peers

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cluster is an ipfs-cluster of one peer, on loopback, which pins with a kubo and
// offers the IPFS Pinning Service API.
type cluster struct {
	*process
	api string // URL
}

// startCluster builds and starts an ipfs-cluster for a kubo.
func startCluster(t *testing.T, d daemon) cluster {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "ipfs-cluster-service")
	build := exec.Command("go", "build", "-o", program, "github.com/ipfs-cluster/ipfs-cluster/cmd/ipfs-cluster-service")
	build.Dir = filepath.Join("..", "cluster") // a module of its own
	output(t, build)

	repo := filepath.Join(dir, "repo")
	output(t, command(t, program, "--config", repo, "init", "--consensus", "crdt", "--randomports"))
	file := filepath.Join(repo, "service.json")
	var config map[string]any
	if err := json.Unmarshal([]byte(readLine(t, file)), &config); err != nil {
		t.Fatal(err)
	}
	rpc := readLine(t, filepath.Join(d.repo, "api"))
	set(t, config, "cluster.listen_multiaddress", []string{"/ip4/127.0.0.1/tcp/0"})
	set(t, config, "cluster.mdns_interval", "0s")
	set(t, config, "ipfs_connector.ipfshttp.node_multiaddress", rpc)
	set(t, config, "api.ipfsproxy.node_multiaddress", rpc)
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	pins := config["api"].(map[string]any)["pinsvcapi"].(map[string]any)["http_listen_multiaddress"].(string)
	c := cluster{api: urlOf(t, pins)}
	c.process, _ = start(t, exec.Command(program, "--config", repo, "daemon"), "IPFS Cluster is READY")
	return c
}

// set changes a value of a configuration that was decoded from JSON. The path must be
// there.
func set(t testing.TB, config map[string]any, path string, value any) {
	t.Helper()
	names := strings.Split(path, ".")
	last := len(names) - 1
	for _, name := range names[:last] {
		config, _ = config[name].(map[string]any)
	}
	if _, ok := config[names[last]]; !ok {
		t.Fatalf("the configuration has no %s", path)
	}
	config[names[last]] = value
}

// urlOf is the URL of a multiaddr /ip4/HOST/tcp/PORT.
func urlOf(t testing.TB, multiaddr string) string {
	t.Helper()
	parts := strings.Split(multiaddr, "/")
	if len(parts) != 5 || parts[1] != "ip4" || parts[3] != "tcp" {
		t.Fatalf("address %q", multiaddr)
	}
	return "http://" + parts[2] + ":" + parts[4]
}
