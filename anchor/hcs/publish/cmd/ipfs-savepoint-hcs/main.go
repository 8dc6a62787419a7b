// Command ipfs-savepoint-hcs publishes the heads of a log on a topic of the Hedera
// Consensus Service. It runs beside "ipfs-savepoint serve", as a process of its own: the
// ledger's software development kit is large, and the key of the account that pays is
// kept from a process that answers to the network.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs/publish"
)

const help = `Usage: ipfs-savepoint-hcs --log URL --trust FILE --operator ACCOUNT --key FILE
           (--network NAME | --node HOST:PORT=ACCOUNT...) [--topic TOPIC] [flags]

Watches a log and publishes its newest head on a topic of the Hedera Consensus Service,
if the trust policy accepts it and it is not there yet, at most one message an interval.
It prints a line of JSON for each: where the message is on the topic. The same lines are
in the file of receipts, so that no head is published twice after a restart.

Readers of a log whose trust policy names the topic ("# ipfs-savepoint: hcs TOPIC
MIRROR-URL MIRROR-URL") compare with it what they are shown. A topic should have a submit
key: without one anybody may write to it, which readers ignore but have to read.

It ends with exit status 0 on SIGINT or SIGTERM, when what is on its way has been taken
or refused. Exit status 1: the file of receipts cannot be used. 2: usage. 3: the trust
policy cannot be read. All else is told on standard error and tried again.

Flags:
`

// errUsage is an error of the caller's command line.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintf(os.Stderr, "ipfs-savepoint-hcs: %v\n", err)
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case errors.Is(err, anchor.ErrPolicy):
		os.Exit(3)
	}
	os.Exit(1)
}

// options are the command line.
type options struct {
	log, trust, topic, operator, key, submitKey, network, receipts string
	nodes                                                          []string
	interval                                                       time.Duration
	maxFee                                                         int64
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("ipfs-savepoint-hcs", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, help); f.PrintDefaults() }
	f.StringVar(&o.log, "log", "", "`URL` of the log on a gateway, such as http://127.0.0.1:8481/tlog/<hex>/")
	f.StringVar(&o.trust, "trust", "", "`FILE` of the log's trust policy")
	f.StringVar(&o.topic, "topic", "", "`TOPIC`, as 0.0.4711 (default: the trust policy's)")
	f.StringVar(&o.operator, "operator", "", "`ACCOUNT` that pays, as 0.0.1001")
	f.StringVar(&o.key, "key", "", "`FILE` with the account's key, PEM or hexadecimal DER, which only its owner may read")
	f.StringVar(&o.submitKey, "submit-key", "", "`FILE` with the topic's submit key, where that is another one")
	f.StringVar(&o.network, "network", "", "mainnet, testnet or previewnet: `NAME` of the network whose nodes the program knows")
	f.Func("node", "`HOST:PORT=ACCOUNT` of a consensus node, instead of --network (may be repeated)", func(s string) error {
		o.nodes = append(o.nodes, s)
		return nil
	})
	f.StringVar(&o.receipts, "receipts", "hcs-receipts.jsonl", "`FILE` that keeps the receipts")
	f.DurationVar(&o.interval, "interval", publish.DefaultInterval, "pause between two looks at the log")
	f.Int64Var(&o.maxFee, "max-fee", 100_000_000, "the most that is paid for a message, in `TINYBARS`")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	for name, value := range map[string]string{"log": o.log, "trust": o.trust, "operator": o.operator, "key": o.key} {
		if value == "" {
			return o, fmt.Errorf("%w: --%s is missing", errUsage, name)
		}
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("%w: unknown argument %q", errUsage, f.Arg(0))
	case (o.network == "") == (len(o.nodes) == 0):
		return o, fmt.Errorf("%w: either --network or --node", errUsage)
	case o.interval <= 0 || o.maxFee <= 0:
		return o, fmt.Errorf("%w: --interval and --max-fee must be positive", errUsage)
	}
	return o, nil
}

// config reads what the command line names.
func (o options) config() (c publish.Config, p *anchor.Policy, err error) {
	usage := func(err error) (publish.Config, *anchor.Policy, error) {
		return c, nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	text, err := os.ReadFile(o.trust)
	if err != nil {
		return usage(err)
	}
	if p, err = anchor.ParsePolicy(text); err != nil {
		return c, nil, err
	}
	topic := o.topic
	if topic == "" && p.Topic != nil {
		topic = p.Topic.ID
	}
	if topic == "" {
		return usage(errors.New("--topic is missing, and the trust policy names none"))
	}
	c = publish.Config{Network: o.network, MaxFee: o.maxFee}
	if c.Topic, err = hcs.ParseEntityID(topic); err != nil {
		return usage(err)
	}
	if c.Operator, err = hcs.ParseEntityID(o.operator); err != nil {
		return usage(err)
	}
	for _, n := range o.nodes {
		address, account, _ := strings.Cut(n, "=")
		id, err := hcs.ParseEntityID(account)
		if err != nil {
			return usage(fmt.Errorf("--node %s: %w", n, err))
		}
		if c.Nodes == nil {
			c.Nodes = map[string]hcs.EntityID{}
		}
		c.Nodes[address] = id
	}
	if c.Key, err = publish.LoadKey(o.key); err != nil {
		return usage(err)
	}
	if o.submitKey != "" {
		k, err := publish.LoadKey(o.submitKey)
		if err != nil {
			return usage(err)
		}
		c.SubmitKey = &k
	}
	return c, p, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	c, p, err := o.config()
	if err != nil {
		return err
	}
	publisher, err := publish.New(c)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(stderr, "ipfs-savepoint-hcs: trust policy: %s\n", w)
	}
	lines := json.NewEncoder(stdout)
	lines.SetEscapeHTML(false)
	return publish.Watch(ctx, publish.WatchOptions{
		Log: o.log, Policy: p, Topic: c.Topic, Publisher: publisher, Receipts: o.receipts, Interval: o.interval,
		// The receipt is in the file as well: nothing is lost if nobody reads this.
		Published: func(p publish.Published) { lines.Encode(p) },
		Failed:    func(err error) { fmt.Fprintf(stderr, "ipfs-savepoint-hcs: %v\n", err) },
	})
}
