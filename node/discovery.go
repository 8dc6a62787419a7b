package node

import (
	"context"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

const (
	// announceEvery is how often pins are announced in a DHT, which forgets them
	// after 48 hours (libp2p kad-dht specification).
	announceEvery = 22 * time.Hour
	// announceRetry is how soon what could not be announced is tried again, and
	// new pins are looked for.
	announceRetry = time.Minute
	// announceTimeout bounds one announcement.
	announceTimeout = time.Minute
)

// discover starts what finds peers, and lets them find this node. All of it is off
// unless asked for.
func (n *Network) discover(r *Repo, o ServeOptions) error {
	if o.MDNS {
		service := mdns.NewMdnsService(n.host, "", found{n})
		if err := service.Start(); err != nil {
			return err
		}
		n.stops = append(n.stops, service.Close)
	}
	if len(o.DHT) == 0 {
		return nil
	}
	bootstrap, err := parsePeers(o.DHT)
	if err != nil {
		return err
	}
	d, err := dht.New(n.host, dht.Mode(dht.ModeClient), dht.BootstrapPeers(bootstrap...))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.run(func() error { return n.announcePins(ctx, r, d, bootstrap) })
	n.stops = append(n.stops, d.Close, func() error { cancel(); return nil })
	return nil
}

// found connects to what mDNS finds.
type found struct{ n *Network }

func (f found) HandlePeerFound(p peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	f.n.host.Connect(ctx, p) // if it cannot be reached, it is announced again
}

// announcePins tells the DHT of every pin, and of new ones as they come. What cannot be
// announced, or read, is tried again later.
func (n *Network) announcePins(ctx context.Context, r *Repo, d *dht.IpfsDHT, bootstrap []peer.AddrInfo) error {
	if err := d.Bootstrap(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(announceRetry)
	defer tick.Stop()
	last := map[cid.Cid]time.Time{}
	for {
		if n.joinDHT(ctx, d, bootstrap) {
			last = announce(ctx, r, d, last)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// joinDHT makes sure that there is somebody in the DHT to tell. It waits as long as a
// connection takes.
func (n *Network) joinDHT(ctx context.Context, d *dht.IpfsDHT, bootstrap []peer.AddrInfo) bool {
	if d.RoutingTable().Size() > 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for _, p := range bootstrap {
		n.host.Connect(ctx, p) // others may be there
	}
	// A peer is taken in once it has said what it speaks.
	for pause := time.NewTicker(50 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			pause.Stop()
			return d.RoutingTable().Size() > 0
		case <-pause.C:
			if d.RoutingTable().Size() > 0 {
				pause.Stop()
				return true
			}
		}
	}
}

// announce tells of the pins that were not told of lately, and returns when each was.
func announce(ctx context.Context, r *Repo, d *dht.IpfsDHT, last map[cid.Cid]time.Time) map[cid.Cid]time.Time {
	pins, err := r.Pins()
	if err != nil {
		return last // whoever uses the pins tells of that
	}
	told := map[cid.Cid]time.Time{}
	for _, p := range pins {
		at, ok := last[p.CID]
		if !ok || time.Since(at) >= announceEvery {
			limited, cancel := context.WithTimeout(ctx, announceTimeout)
			err := d.Provide(limited, p.CID, true)
			cancel()
			if err != nil {
				continue
			}
			at = time.Now()
		}
		told[p.CID] = at
	}
	return told
}
