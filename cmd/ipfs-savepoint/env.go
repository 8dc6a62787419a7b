package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/spf13/cobra"
)

// env is what a command may use of the world: where it writes, where it was
// called, and the repository. A command that a running serve executes for
// another process gets that process's folder and streams.
type env struct {
	out, err io.Writer
	dir      string // the caller's working directory
	terminal bool   // err is a terminal

	// bank is set while serve executes the command: the repository is open.
	bank *savepoints.Bank
	// held is set when the repository turned out to be open in a serve, which
	// is then asked to execute the command.
	held bool

	repo       string
	json       bool
	quiet      bool
	noProgress bool
}

// run executes a command line and returns the exit status.
func (e *env) run(ctx context.Context, args []string) int {
	root := e.rootCommand()
	root.SetArgs(args)
	root.SetOut(e.out)
	root.SetErr(e.err)
	err := root.ExecuteContext(ctx)
	if e.held {
		status, forwardErr := e.forward(ctx, args)
		if forwardErr == nil {
			return status
		}
		err = fmt.Errorf("%w, and cannot be asked: %w", err, forwardErr)
	}
	if err == nil {
		return 0
	}
	f := classify(ctx, err)
	message := secretKey.ReplaceAllString(err.Error(), "(a secret key)")
	fmt.Fprintf(e.err, "ipfs-savepoint: %s\n", message)
	if e.json {
		e.print(map[string]any{"error": map[string]any{"code": f.code, "message": message}})
	}
	return f.status
}

// secretKey is what an error may quote of a command line in which a secret key was given
// where a file or a public key belongs.
var secretKey = regexp.MustCompile(`(?i:AGE-SECRET-KEY)[-0-9A-Za-z]*|PRIVATE\+KEY[^\s"]*`)

// print writes one JSON document as one line.
func (e *env) print(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = e.out.Write(append(data, '\n'))
	return err
}

// result prints v as JSON if that was asked for, and the text otherwise.
func (e *env) result(v any, format string, args ...any) error {
	if e.json {
		return e.print(v)
	}
	_, err := fmt.Fprintf(e.out, format, args...)
	return err
}

// note prints a line for a person.
func (e *env) note(format string, args ...any) {
	if !e.quiet {
		fmt.Fprintf(e.err, format+"\n", args...)
	}
}

// path makes a path that the caller wrote absolute.
func (e *env) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(e.dir, p)
}

// repoDir is the folder of the repository: the flag, the environment, or the
// user's data folder.
func (e *env) repoDir() (string, error) {
	if e.repo != "" {
		return e.path(e.repo), nil
	}
	if dir := os.Getenv("IPFS_SAVEPOINT_REPO"); dir != "" {
		return e.path(dir), nil
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("%w: no --repo and no home folder: %w", savepoints.ErrUsage, err)
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "ipfs-savepoint"), nil
}

// open opens the repository with f, or returns the one that serve has open. The
// caller must call the returned function when it is done.
func (e *env) open(ctx context.Context, f func(context.Context, string) (*savepoints.Bank, error)) (*savepoints.Bank, func() error, error) {
	if e.bank != nil {
		return e.bank, func() error { return nil }, nil
	}
	dir, err := e.repoDir()
	if err != nil {
		return nil, nil, err
	}
	b, err := f(ctx, dir)
	if errors.Is(err, node.ErrHeld) {
		e.held = true
	}
	if errors.Is(err, node.ErrNoRepo) {
		err = fmt.Errorf("%w (\"ipfs-savepoint init\" makes one, --repo names another)", err)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, d := range b.Repo().Blocks.Damage() {
		e.note("repository: %s", d)
	}
	if err := b.LogError(); err != nil {
		e.note("the repository's own log cannot be written: %v", err)
	}
	return b, b.Close, nil
}

// withBank runs f with the repository open.
func (e *env) withBank(ctx context.Context, open func(context.Context, string) (*savepoints.Bank, error), f func(*savepoints.Bank) error) error {
	b, done, err := e.open(ctx, open)
	if err != nil {
		return err
	}
	return errors.Join(f(b), done())
}

// trustFlag adds --trust to a command that reads what a log anchors.
func trustFlag(cmd *cobra.Command, trust *string) {
	cmd.Flags().StringVar(trust, "trust", "", "trust policy `FILE` (C2SP tlog-policy) of the log")
}

// swarmKeyFlag adds --swarm-key to a command that talks to peers.
func swarmKeyFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "swarm-key", "", "swarm key `FILE`, kept in the repository: talk only to peers that have it")
}

// keepSwarmKey makes the key in a file that of the repository, if a file was named.
func (e *env) keepSwarmKey(b *savepoints.Bank, file string) error {
	if file == "" {
		return nil
	}
	key, err := e.readFile("swarm key", file, maxKeyFile)
	if err != nil {
		return err
	}
	if err := b.Repo().SetSwarmKey(key); err != nil {
		return fmt.Errorf("%w: %s: %w", savepoints.ErrUsage, file, err)
	}
	return nil
}

// trusted is the repository as a command sees it with --trust FILE.
type trusted struct {
	*savepoints.Bank
	// policy is the one of FILE; without FILE the only one in force, or nil.
	policy *anchor.Policy
	file   []byte
}

// trust reads the policy file, if there is one, and puts it in force.
func (e *env) trust(b *savepoints.Bank, file string) (trusted, error) {
	if file == "" {
		t := trusted{Bank: b}
		if all := b.Policies(); len(all) == 1 {
			t.policy = all[0]
		}
		return t, nil
	}
	data, err := e.readTrust(file)
	if err != nil {
		return trusted{}, err
	}
	b, p, err := b.Trust(data)
	if err != nil {
		return trusted{}, fmt.Errorf("trust policy %s: %w", file, err)
	}
	e.noteWarnings(file, p)
	return trusted{b, p, data}, nil
}

// noteWarnings says what in a trust policy file has no meaning here.
func (e *env) noteWarnings(file string, p *anchor.Policy) {
	for _, w := range p.Warnings {
		e.note("trust policy %s: %s", file, w)
	}
}

// logOf is the log that a reference means: the one that was named, or the one of
// the policy file that was given.
func (t trusted) logOf(origin string) string {
	if origin == "" && t.file != nil {
		return t.policy.Origin
	}
	return origin
}

// policyOf is the policy of the log of an origin; of an empty one that of the policy
// file, of the repository's own log, or of the only log.
func (t trusted) policyOf(origin string) (*anchor.Policy, error) {
	if origin = t.logOf(origin); origin == "" {
		origin = t.Origin()
	}
	if origin == "" && t.policy != nil {
		return t.policy, nil
	}
	for _, p := range t.Policies() {
		if p.Origin == origin {
			return p, nil
		}
	}
	if origin == "" {
		return nil, fmt.Errorf("%w: --trust FILE or --log ORIGIN says which log", savepoints.ErrNoTrust)
	}
	return nil, fmt.Errorf("%w for log %q", savepoints.ErrNoTrust, origin)
}

// noteUntrusted says what a list leaves out, and refuses to call it empty if that
// is all there is.
func (e *env) noteUntrusted(t trusted, listed int) error {
	n, err := t.Untrusted()
	if err != nil || n == 0 {
		return err
	}
	if listed == 0 {
		return fmt.Errorf("%w: the repository holds %d save points of logs that nothing says to believe; --trust FILE does", savepoints.ErrNoTrust, n)
	}
	e.note("%d save points of logs without a trust policy are left out; --trust FILE shows them", n)
	return nil
}

// toRead runs f with the repository, for a command that reads what it holds.
func (e *env) toRead(ctx context.Context, trustFile string, f func(trusted) error) error {
	return e.withBank(ctx, savepoints.Open, func(b *savepoints.Bank) error {
		t, err := e.trust(b, trustFile)
		if err != nil {
			return err
		}
		return f(t)
	})
}

// toReceive runs f with the repository, which is made if there is none, for a command
// that takes from others and must therefore know whom to believe.
func (e *env) toReceive(ctx context.Context, trustFile string, f func(trusted) error) error {
	return e.withBank(ctx, savepoints.OpenReader, func(b *savepoints.Bank) error {
		t, err := e.trust(b, trustFile)
		if err != nil {
			return err
		}
		if t.policy == nil {
			return fmt.Errorf("%w: --trust FILE says whose log to believe", savepoints.ErrNoTrust)
		}
		return f(t)
	})
}

// sources makes the paths among sources absolute.
func (e *env) sources(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = s
		if !strings.Contains(s, "://") && !strings.Contains(s, "/p2p/") {
			out[i] = e.path(s)
		}
	}
	return out
}

// exactArgs refuses another number of arguments as a usage error.
func exactArgs(n int) cobra.PositionalArgs { return rangeArgs(n, n) }

func rangeArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return fmt.Errorf("%w: usage: %s", savepoints.ErrUsage, cmd.UseLine())
		}
		return nil
	}
}
