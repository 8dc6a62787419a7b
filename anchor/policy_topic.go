package anchor

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// PolicyTopic is a topic of the Hedera Consensus Service on which heads of the log are
// published, and who shows it. This package does not read it; see package anchor/hcs.
type PolicyTopic struct {
	// ID is "shard.realm.num".
	ID string
	// Sequence and RunningHash, 48 bytes, are a message from which on the topic is read;
	// 0 and nil: from the first.
	Sequence    int64
	RunningHash []byte
	// Mirrors are the base URLs of at least two mirror nodes of different hosts: https,
	// or http on loopback.
	Mirrors []string
}

// runningHashSize is the length in bytes of a topic's running hash, SHA-384.
const runningHashSize = 48

// parseTopic reads the values of a comment "# ipfs-savepoint: hcs
// TOPIC[@SEQUENCE:RUNNINGHASH] MIRROR-URL MIRROR-URL…".
func parseTopic(f []string) (*PolicyTopic, error) {
	if len(f) < 3 {
		return nil, errors.New("hcs needs a topic and the URLs of at least two mirror nodes")
	}
	t := &PolicyTopic{Mirrors: f[1:]}
	id, from, given := strings.Cut(f[0], "@")
	if err := checkEntityID(id); err != nil {
		return nil, err
	}
	t.ID = id
	if given {
		sequence, hash, _ := strings.Cut(from, ":")
		n, err := strconv.ParseInt(sequence, 10, 64)
		if err != nil || n < 1 || strconv.FormatInt(n, 10) != sequence {
			return nil, fmt.Errorf("hcs: %q is not the number of a message", sequence)
		}
		t.Sequence = n
		t.RunningHash, err = base64.StdEncoding.Strict().DecodeString(hash)
		if err != nil || len(t.RunningHash) != runningHashSize {
			return nil, fmt.Errorf("hcs: running hash %q is not the base64 of %d bytes", hash, runningHashSize)
		}
	}
	hosts := map[string]bool{}
	for _, m := range t.Mirrors {
		_, host, err := ParseMirrorNode(m)
		if err != nil {
			return nil, fmt.Errorf("hcs: %w", err)
		}
		if hosts[host] {
			return nil, fmt.Errorf("hcs: two mirror nodes of host %s; each must be somebody else's", host)
		}
		hosts[host] = true
	}
	return t, nil
}

func checkEntityID(id string) error {
	parts := strings.Split(id, ".")
	ok := len(parts) == 3
	for _, p := range parts {
		n, err := strconv.ParseInt(p, 10, 64)
		ok = ok && err == nil && n >= 0 && strconv.FormatInt(n, 10) == p
	}
	if !ok {
		return fmt.Errorf("hcs: topic %q is not of the form shard.realm.num", id)
	}
	return nil
}

// ParseMirrorNode reads the base URL of a mirror node: https, or http on loopback, since
// over plain http one network could answer in the name of all mirrors. host names its
// host in whatever way the URL is written. Ports are nobody else's, except on loopback,
// where something on each of them leads elsewhere.
func ParseMirrorNode(name string) (u *url.URL, host string, err error) {
	if u, err = url.Parse(name); err != nil {
		return nil, "", err
	}
	ip, err := netip.ParseAddr(u.Hostname())
	numeric := err == nil
	local := u.Hostname() == "localhost" || numeric && ip.Unmap().IsLoopback()
	if u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return nil, "", fmt.Errorf("%q is not the https URL of a mirror node", name)
	}
	switch {
	case local:
		return u, u.Host, nil
	case numeric:
		return u, ip.Unmap().WithZone("").String(), nil
	}
	return u, strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), nil
}

// TopicLine returns the line of a policy that sets [Policy.Topic]. values is what follows
// "hcs" in it: TOPIC MIRROR-URL MIRROR-URL…. The error is a *[PolicyError].
func TopicLine(values string) (string, error) {
	f := strings.Fields(values)
	if _, err := parseTopic(f); err != nil {
		return "", &PolicyError{Err: err}
	}
	return "# ipfs-savepoint: hcs " + strings.Join(f, " ") + "\n", nil
}
