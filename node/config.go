package node

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/BurntSushi/toml"
)

const configFile = "config.toml"

// Config is the content of config.toml. What the file leaves out has the default
// of [DefaultConfig].
type Config struct {
	// Gateway is the host:port on which serve offers the HTTP gateway; port 0
	// takes any free one.
	Gateway string `toml:"gateway"`
	// Swarm are the multiaddrs on which serve listens for libp2p peers.
	Swarm []string `toml:"swarm"`
	// Peers, MDNS, DHT and Routing are those of [ServeOptions].
	Peers   []string `toml:"peers"`
	MDNS    bool     `toml:"mdns"`
	DHT     []string `toml:"dht"`
	Routing bool     `toml:"routing"`
	// Pinning are the SHA-256 digests, in hexadecimal, of the tokens with which the
	// Pinning Service API is used. Without one there is no such API.
	Pinning []string `toml:"pinning"`
	// Replicate says where DAGs are replicated to.
	Replicate []Replica `toml:"replicate"`
}

// DefaultConfig listens on loopback only.
func DefaultConfig() Config {
	return Config{Gateway: "127.0.0.1:8481", Swarm: []string{"/ip4/127.0.0.1/tcp/4480"}}
}

const defaultConfig = `# Where "ipfs-savepoint serve" listens; flags override this.
gateway = "127.0.0.1:8481"
swarm = ["/ip4/127.0.0.1/tcp/4480"]

# Who is met, and how others find this node. All of it is off until set.
# peers = ["/ip4/192.0.2.1/tcp/4480/p2p/12D3KooW..."]   # connected to, and may read
# mdns = true       # the local network; it may read no more for that
# dht = ["/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."]     # pins are announced there
# routing = true    # /routing/v1 on the gateway, for IPFS nodes that ask here

# Who may have DAGs fetched and pinned here by the Pinning Service API, at
# http://<gateway>/pinning: SHA-256 of each token (printf %s "$TOKEN" | sha256sum).
# pinning = ["..."]

# Where save points are brought to besides; any number of tables like these, which
# come after all that is above. A token file is readable by its owner only.
# [[replicate]]
# name = "cluster"                       # a-z 0-9 -
# kind = "pinning-service"               # IPFS Pinning Service API, as of ipfs-cluster;
#                                        # its peers may read here while they fetch
# endpoint = "https://192.0.2.2:9097"    # requests go to <endpoint>/pins
# token_file = "cluster.token"
# ask = ["https://192.0.2.2:8080"]       # "health" asks here; default: whom the service names
#
# [[replicate]]
# name = "kubo"
# kind = "kubo"
# endpoint = "http://127.0.0.1:5001"     # its HTTP RPC
#
# [[replicate]]
# name = "other"
# kind = "savepoint"                     # another ipfs-savepoint that gives a token;
#                                        # it may read here while it fetches
# endpoint = "https://192.0.2.3"         # its gateway; tokens are sent by https only,
#                                        # or to this host
# token_file = "other.token"
#
# [[replicate]]
# name = "backup"
# kind = "folder"                        # CAR files, each the archive of a save point
# path = "/mnt/backup"                   # must be there
# followed = true                        # also save points of others that are kept here
`

func readConfig(dir string) (Config, error) {
	c := DefaultConfig()
	data, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return c, err
	}
	md, err := toml.Decode(string(data), &c)
	if err != nil {
		return c, fmt.Errorf("%s: %w", configFile, err)
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		return c, fmt.Errorf("%s: unknown key %q", configFile, unknown[0])
	}
	if err := checkReplicas(c.Replicate); err != nil {
		return c, fmt.Errorf("%s: %w", configFile, err)
	}
	return c, nil
}
