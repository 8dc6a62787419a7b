package replication

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
)

// Identity is what is known of who a place is, so that one that was found in several
// ways counts once.
type Identity struct {
	// Peer is its libp2p peer id; "" if it has said none. A gateway says it itself: a
	// wrong one can make two places count once, and no place twice.
	Peer string
	// At is where it is: the addresses with port of a gateway, the path of a folder.
	At []string
}

// Same reports whether two places are one: of one peer id, or, where one of them has not
// said its own, at one address. Gateways of several owners behind one address are taken
// for one, and a gateway that says no peer id for another place than its own peer.
func (a Identity) Same(b Identity) bool {
	if a.Peer != "" && b.Peer != "" {
		return a.Peer == b.Peer
	}
	return slices.ContainsFunc(a.At, func(at string) bool { return slices.Contains(b.At, at) })
}

// addressesOf returns the addresses with port at which a URL is reached: all of loopback
// as one, for they are all this host's. A name that is not known is an address of its own.
func addressesOf(ctx context.Context, text string) []string {
	u, err := url.Parse(text)
	if err != nil {
		return nil
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return []string{net.JoinHostPort(u.Hostname(), port)}
	}
	var out []string
	for _, ip := range found {
		ip = ip.Unmap()
		if ip.IsLoopback() || ip.IsUnspecified() {
			ip = netip.IPv6Loopback()
		}
		out = append(out, net.JoinHostPort(ip.String(), port))
	}
	return out
}
