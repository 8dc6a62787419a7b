package node

import (
	"context"
	"errors"
	"time"

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
	d, err := dht.New(n.host, dht.Mode(dht.ModeClient), dht.BootstrapPeers(bootstrap...), dht.DisableValues())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.run(func() error { return n.announcePins(ctx, r, d) })
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

// announcePins tells the DHT of every pin, and of new ones as they come.
func (n *Network) announcePins(ctx context.Context, r *Repo, d *dht.IpfsDHT) error {
	if err := d.Bootstrap(ctx); err != nil {
		return err
	}
	last := map[string]time.Time{}
	for tick := time.NewTicker(announceRetry); ; {
		pins, err := r.Pins()
		if err != nil {
			return err
		}
		for _, p := range pins {
			if time.Since(last[p.CID.KeyString()]) < announceEvery {
				continue
			}
			limited, cancel := context.WithTimeout(ctx, announceTimeout)
			if d.Provide(limited, p.CID, true) == nil {
				last[p.CID.KeyString()] = time.Now()
			}
			cancel()
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			if !errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return nil
		case <-tick.C:
		}
	}
}
