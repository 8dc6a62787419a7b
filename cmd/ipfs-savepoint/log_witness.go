package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// witnessJSON is what "log witness" prints when it listens.
type witnessJSON struct {
	URL  string   `json:"url"`
	Key  string   `json:"key"`
	Logs []string `json:"logs"`
}

func (e *env) logWitnessCommand() *cobra.Command {
	var o witness.ServerOptions
	var name, listen string
	var trust []string
	cmd := &cobra.Command{
		Use:   "witness --name NAME --trust FILE",
		Short: "Be a witness of other people's logs until interrupted",
		Long: `Be a witness (C2SP tlog-witness) of other people's logs until interrupted. A
witness cosigns each head of a log only if it extends the one that it cosigned
before: whoever demands the cosignature cannot be shown another history.

The repository is made if there is none, and with it the witness's key, under
NAME. It remembers the trust policies of the logs, so that later "log witness"
alone is enough. It prints the line for "init --witness" and for trust policies.

When the key of a log is replaced, --trust trust.next.policy puts the new key in
the place of the old one; what was cosigned is remembered.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.withBank(cmd.Context(), savepoints.OpenReader, func(b *savepoints.Bank) error {
				for _, file := range trust {
					var err error
					if b, err = e.succeed(b, file); err != nil {
						return err
					}
				}
				return e.witness(cmd.Context(), b, name, listen, o)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "`NAME` of the witness, such as witness.example.org/one")
	f.StringArrayVar(&trust, "trust", nil, "trust policy `FILE` (C2SP tlog-policy) of a log to be witnessed (may be repeated)")
	f.StringVar(&listen, "listen", "127.0.0.1:8482", "`HOST:PORT` to listen on; port 0 takes any free one")
	f.Float64Var(&o.Rate, "rate", witness.DefaultRate, "heads a second that are cosigned for each log")
	f.IntVar(&o.Burst, "burst", witness.DefaultBurst, "heads that may come at once for each log")
	return cmd
}

// succeed puts the policy of a file in force, for a witness.
func (e *env) succeed(b *savepoints.Bank, file string) (*savepoints.Bank, error) {
	text, err := e.readTrust(file)
	if err != nil {
		return nil, err
	}
	b, p, err := b.Succeed(text)
	if err != nil {
		return nil, fmt.Errorf("trust policy %s: %w", file, err)
	}
	if given, err := anchor.ParsePolicy(text); err == nil && given.Key().KeyHash() != p.Key().KeyHash() {
		e.note("trust policy %s: the key of log %s has been replaced since; the later policy counts", file, p.Origin)
	}
	e.noteWarnings(file, p)
	return b, nil
}

// witness answers until ctx ends.
func (e *env) witness(ctx context.Context, b *savepoints.Bank, name, listen string, o witness.ServerOptions) error {
	if _, err := net.ResolveTCPAddr("tcp", listen); err != nil {
		return usagef("--listen: %v", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	// Last of what can fail: it may make the key, whose name is for ever.
	handler, err := b.Witness(name, o)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	out := witnessJSON{URL: "http://" + l.Addr().String(), Key: handler.Key()}
	for _, p := range b.Policies() {
		if p.Origin != b.Origin() {
			out.Logs = append(out.Logs, p.Origin)
		}
	}
	if err := e.result(out, "NAME %s %s\n", out.Key, out.URL); err != nil {
		return errors.Join(err, l.Close())
	}
	e.note("witness of %d logs at %s", len(out.Logs), out.URL)
	srv := &http.Server{
		Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(stopping); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		srv.Close()
	}
	<-ended
	return nil
}
