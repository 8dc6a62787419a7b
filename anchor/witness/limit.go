package witness

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// bucket limits how often something may happen.
type bucket struct {
	mu   sync.Mutex
	used float64 // of the burst, at last
	last time.Time
}

// take reports whether it may happen now, at this rate a second and so often at once.
func (b *bucket) take(now time.Time, rate float64, burst int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.last.IsZero() {
		b.used = max(0, b.used-rate*max(0, now.Sub(b.last).Seconds()))
	}
	b.last = now
	if b.used+1 > float64(burst) {
		return false
	}
	b.used++
	return true
}

// addresses has a bucket for each remote address. Their number is fixed, so that many
// addresses take no memory; which of them share one, nobody outside can tell.
type addresses struct {
	seed    maphash.Seed
	buckets [4096]bucket
}

func newAddresses() *addresses { return &addresses{seed: maphash.MakeSeed()} }

// of returns the bucket of an http.Request's RemoteAddr.
func (a *addresses) of(remote string) *bucket {
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		// Who has an IPv6 address has at least the 2^64 of its network.
		ip := ap.Addr().Unmap().WithZone("")
		bits := 64
		if ip.Is4() {
			bits = 32
		}
		remote = netip.PrefixFrom(ip, bits).Masked().String()
	}
	return &a.buckets[maphash.String(a.seed, remote)%uint64(len(a.buckets))]
}
