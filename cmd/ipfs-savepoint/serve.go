package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/pinning"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/metrics"
	"github.com/spf13/cobra"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	follow        []string
	trust         string
	interval      time.Duration
	keep          int
	grace         time.Duration
	gateway       string
	swarm         []string
	open          bool
	swarmKey      string
	peers, dht    []string
	mdns, routing bool
}

// servingJSON is the content of serve.json, and what serve prints when it listens.
type servingJSON struct {
	Gateway string   `json:"gateway"`
	Swarm   []string `json:"swarm"`
	PeerID  string   `json:"peerId"`
	PID     int      `json:"pid"`
}

func (e *env) serveCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve [--follow SOURCE... --trust FILE]",
		Short: "Serve the repository to the network until interrupted",
		Long: `Serve the repository to the network until interrupted: an IPFS gateway over HTTP
and over libp2p, bitswap, and the logs under /tlog/. With --follow it also keeps
a verified copy of another repository's log and of all its save points; a
repository is made if there is none. With --keep N the copy has the newest N save
points of each policy; a save point that is here is given up only when N newer ones
have been here for the time of --grace, and nothing is given up because a log says so.

SOURCE is a multiaddr with /p2p/, the URL of a gateway, or /ipns/NAME or /ipfs/LOG-ROOT,
for which the other sources are asked, or, if there is none, those that the trust policy
names. A URL or a folder can also be a tlog-tiles prefix, which has the log alone. What
several show must not contradict each other.

Where config.toml has tables [[replicate]], new save points are brought there, and
again until they are.

Commands other than init may be used on the repository meanwhile. Addresses are printed and
written to serve.json in the repository. Port 0 takes any free port.

By libp2p may read: peers on this host, listed ones, anybody who has the swarm key, or everybody
with --open; and the peers of a pinning service in config.toml, as that service names them, from
the request to pin on until it has pinned or failed.

GET /metrics on the gateway says in the Prometheus text format how far witnesses, the log's
name and followed logs are behind.

Whoever has a token whose SHA-256 is in config.toml under "pinning" can have DAGs fetched and
pinned by the IPFS Pinning Service API, at /pinning on the gateway: "ipfs pin remote" of kubo
uses it.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if e.bank != nil {
				return node.ErrHeld // cannot serve within a serve
			}
			if (len(o.follow) == 0) != (o.trust == "") {
				return usagef("--follow and --trust go together")
			}
			if o.keep < 0 || o.grace <= 0 {
				return usagef("--keep %d --grace %s: neither may be negative", o.keep, o.grace)
			}
			if cmd.Flags().Changed("keep") && len(o.follow) == 0 {
				return usagef("--keep is for --follow: a repository gives up nothing of its own log")
			}
			o.follow = e.sources(o.follow)
			if err := savepoints.CheckSources(o.follow); err != nil {
				return err
			}
			open := savepoints.Open
			if len(o.follow) > 0 {
				open = savepoints.OpenReader
			}
			err := e.withBank(cmd.Context(), open, func(b *savepoints.Bank) error { return e.serve(cmd.Context(), b, o) })
			e.held = false // there is nothing to ask a running serve for
			return err
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.follow, "follow", nil, "keep a copy of the log and the save points at `SOURCE` (may be repeated: one that is reached is enough)")
	f.DurationVar(&o.interval, "interval", 2*time.Second, "pause between two looks at the source")
	f.IntVar(&o.keep, "keep", 0, "of a followed log, keep the newest `N` save points of each policy (default all)")
	f.DurationVar(&o.grace, "grace", savepoints.DefaultGrace, "how long newer save points must have been here before an older one is given up")
	f.StringVar(&o.gateway, "gateway", "", "`HOST:PORT` of the gateway (default from config.toml)")
	f.StringArrayVar(&o.swarm, "swarm", nil, "`MULTIADDR` for libp2p peers (may be repeated; default from config.toml)")
	f.BoolVar(&o.open, "open", false, "allow addresses that are not on loopback: whoever connects can read everything")
	f.StringArrayVar(&o.peers, "peer", nil, "stay connected to the peer at `MULTIADDR`, and let it read (may be repeated)")
	f.BoolVar(&o.mdns, "mdns", false, "find peers on the local network, and be found; they may read only if they are listed, have the swarm key, or the node is --open")
	f.StringArrayVar(&o.dht, "dht", nil, "announce pins in the DHT of the peer at `MULTIADDR` (may be repeated)")
	f.BoolVar(&o.routing, "routing", false, "answer delegated routing requests (/routing/v1) on the gateway")
	swarmKeyFlag(cmd, &o.swarmKey)
	trustFlag(cmd, &o.trust)
	return cmd
}

// serve runs until ctx ends, and then stops everything it started.
func (e *env) serve(ctx context.Context, b *savepoints.Bank, o serveOptions) error {
	var policy *anchor.Policy
	if len(o.follow) > 0 {
		t, err := e.trust(b, o.trust)
		if err != nil {
			return err
		}
		if err := b.Keep(t.file); err != nil {
			return err
		}
		b, policy = t.Bank, t.policy
	}
	if err := e.keepSwarmKey(b, o.swarmKey); err != nil {
		return err
	}
	config := b.Repo().Config
	if o.gateway != "" {
		config.Gateway = o.gateway
	}
	if len(o.swarm) > 0 {
		config.Swarm = o.swarm
	}
	config.Peers = append(config.Peers, o.peers...)
	n, err := b.Repo().Serve(ctx, node.ServeOptions{
		Gateway: config.Gateway, Swarm: config.Swarm, Open: o.open, Logs: b.LogRoot,
		Peers: config.Peers, DHT: append(config.DHT, o.dht...),
		MDNS: config.MDNS || o.mdns, Routing: config.Routing || o.routing,
	})
	if err != nil {
		return err
	}
	n.Handle("GET /metrics", metrics.Handler(b))
	stopPinning, err := e.servePinning(b, n, config)
	if err != nil {
		return errors.Join(err, n.Close())
	}
	stop, err := e.announce(b, n)
	if err != nil {
		return errors.Join(err, stopPinning(), n.Close())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var following sync.WaitGroup
	following.Go(func() {
		b.KeepPublished(ctx, func(err error) { e.note("publishing log %s: %v", b.Origin(), err) })
	})
	following.Go(func() {
		b.WatchTopic(ctx, func(err error) { e.note("log %s on the public ledger: %v", b.Origin(), err) })
	})
	following.Go(func() { e.replicating(ctx, b, n) })
	if policy != nil {
		following.Go(func() {
			if err := b.Follow(ctx, e.followOptions(policy, o)); err != nil {
				cancel(err)
			}
		})
	}
	select {
	case <-ctx.Done():
		err = nil
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			err = cause
		}
	case err = <-n.Errs():
	}
	cancel(nil)
	following.Wait()
	return errors.Join(err, stop(), stopPinning(), n.Close())
}

// servePinning offers the Pinning Service API on the gateway, if there are tokens for
// it. The returned function ends it.
func (e *env) servePinning(b *savepoints.Bank, n *node.Network, config node.Config) (func() error, error) {
	if len(config.Pinning) == 0 {
		return func() error { return nil }, nil
	}
	s, err := pinning.Start(b.Repo(), n, pinning.Options{Tokens: config.Pinning, Peers: config.Peers})
	if errors.Is(err, pinning.ErrToken) {
		err = fmt.Errorf("%w: config.toml: pinning: %w", savepoints.ErrUsage, err)
	}
	if err != nil {
		return nil, err
	}
	for _, err := range s.Unreadable() {
		e.note("%v; until it is mended or removed, no pin of the service is given up", err)
	}
	n.Handle("/pinning/", http.StripPrefix("/pinning", s))
	e.note("pinning  %s/pinning", n.GatewayURL())
	return s.Close, nil
}

func (e *env) followOptions(p *anchor.Policy, o serveOptions) savepoints.FollowOptions {
	return savepoints.FollowOptions{
		Policy: p, Sources: o.follow, Interval: o.interval, Keep: o.keep, Grace: o.grace,
		Fetched: func(s savepoints.Savepoint) {
			e.note("fetched %s@%d: %s", s.Manifest.Policy.ID, s.Manifest.Sequence, s.CID)
			if e.json {
				e.print(map[string]any{"fetched": newSavepointJSON(s)})
			}
		},
		Dropped: func(s savepoints.Savepoint) {
			e.note("given up, as --keep says: %s, log entry %d", s.CID, s.LogIndex)
			if e.json {
				e.print(map[string]any{"dropped": map[string]any{"savepoint": s.CID.String(), "logIndex": s.LogIndex}})
			}
		},
		Failed: func(err error) { e.note("following log %s: %v", p.Origin, err) },
	}
}

// announce opens serve.sock and says where the node listens: in serve.json, and
// to the caller. The returned function takes both back.
func (e *env) announce(b *savepoints.Bank, n *node.Network) (func() error, error) {
	dir := b.Repo().Dir()
	run := func(w http.ResponseWriter, r *http.Request) { serveCommand(w, r, b) }
	sock, err := e.listenCommands(dir, run, commandGrace)
	if err != nil {
		return nil, err
	}
	s := servingJSON{Gateway: n.GatewayURL(), Swarm: n.Addresses(), PeerID: n.PeerID().String(), PID: os.Getpid()}
	data, err := json.Marshal(s)
	if err == nil {
		err = b.Repo().WriteFile("serve.json", append(data, '\n'))
	}
	if err != nil {
		return nil, errors.Join(err, sock())
	}
	e.note("gateway  %s", s.Gateway)
	for _, a := range s.Swarm {
		e.note("swarm    %s", a)
	}
	if e.json {
		err = e.print(map[string]any{"serving": s})
	}
	return func() error { return errors.Join(os.Remove(filepath.Join(dir, "serve.json")), sock()) }, err
}
