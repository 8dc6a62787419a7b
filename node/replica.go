package node

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The kinds of a [Replica].
const (
	// ReplicaPinningService is an endpoint of the IPFS Pinning Service API.
	ReplicaPinningService = "pinning-service"
	// ReplicaKubo is a kubo node, over its HTTP RPC.
	ReplicaKubo = "kubo"
	// ReplicaSavepoint is another ipfs-savepoint, by the URL of its gateway, under
	// which it offers the Pinning Service API.
	ReplicaSavepoint = "savepoint"
	// ReplicaFolder is a folder, or a mounted bucket, that takes CAR files.
	ReplicaFolder = "folder"
)

// Replica is a place where DAGs are replicated to: a table [[replicate]] of
// config.toml. Package replication says how.
type Replica struct {
	// Name is 1 to 32 of a-z 0-9 -, and nobody else's.
	Name string `toml:"name"`
	Kind string `toml:"kind"`
	// Endpoint is the base URL of the API; not of a folder.
	Endpoint string `toml:"endpoint"`
	// Path is that of a folder, which must be there; relative to the repository.
	Path string `toml:"path"`
	// TokenFile holds the bearer token of the API, if it wants one; relative to the
	// repository. Only its owner may be able to read it. The endpoint must then be of
	// https, or of a loopback address.
	TokenFile string `toml:"token_file"`
	// Ask are URLs of gateways, and multiaddrs that end in /p2p/<peer id>, that
	// serve what is pinned through a pinning service: whom to ask whether it is. By
	// default the service says who that is.
	Ask []string `toml:"ask"`
	// Followed: not only the repository's own DAGs go there, but also those that it
	// keeps copies of for others.
	Followed bool `toml:"followed"`
}

var replicaName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// checkReplicas refuses tables that cannot be used.
func checkReplicas(list []Replica) error {
	names := map[string]bool{}
	for i, r := range list {
		err := r.check()
		if err == nil && names[r.Name] {
			err = errors.New("another one has this name")
		}
		if err != nil {
			return fmt.Errorf("[[replicate]] %d, name %q: %w", i+1, r.Name, err)
		}
		names[r.Name] = true
	}
	return nil
}

func (r Replica) check() error {
	if !replicaName.MatchString(r.Name) {
		return errors.New("name is not 1 to 32 of a-z 0-9 -")
	}
	switch r.Kind {
	case ReplicaFolder:
		if r.Path == "" {
			return errors.New("a folder has a path")
		}
		if r.Endpoint != "" || r.TokenFile != "" {
			return errors.New("a folder has neither endpoint nor token_file")
		}
	case ReplicaPinningService, ReplicaKubo, ReplicaSavepoint:
		if r.Path != "" {
			return fmt.Errorf("path is of kind %q only", ReplicaFolder)
		}
		if err := checkEndpoint(r.Endpoint); err != nil {
			return fmt.Errorf("endpoint: %w", err)
		}
		if r.TokenFile != "" && !keepsSecrets(r.Endpoint) {
			return errors.New("a token is sent by https only, or to this host: whoever is between could read it")
		}
	default:
		return fmt.Errorf("kind %q is none of %q, %q, %q, %q", r.Kind,
			ReplicaPinningService, ReplicaKubo, ReplicaSavepoint, ReplicaFolder)
	}
	return r.checkAsk()
}

// keepsSecrets reports whether what is sent to a URL, which [checkEndpoint] has seen, is
// read there only.
func keepsSecrets(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

func (r Replica) checkAsk() error {
	if len(r.Ask) > 0 && (r.Kind == ReplicaFolder || r.Kind == ReplicaKubo) {
		return fmt.Errorf("ask is not of kind %q, which is asked itself", r.Kind)
	}
	for _, s := range r.Ask {
		err := checkEndpoint(s)
		if strings.HasPrefix(s, "/") {
			_, err = peer.AddrInfoFromString(s)
		}
		if err != nil {
			return fmt.Errorf("ask %q: %w", s, err)
		}
	}
	return nil
}

// checkEndpoint refuses a URL that a path cannot be added to. A password in it would
// come into messages.
func checkEndpoint(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("not a URL") // the reason would repeat it, and what is secret in it
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return errors.New("not the URL of an HTTP server")
	case u.User != nil:
		return errors.New("a password in a URL is not kept secret; token_file is for it")
	case u.RawQuery != "", u.Fragment != "":
		return errors.New("the URL has more than a path")
	}
	return nil
}
