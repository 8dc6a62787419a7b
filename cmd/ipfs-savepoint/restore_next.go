package main

import (
	"context"
	"fmt"
	"reflect"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// afterRestore says how the policy goes on once its state is restored.
type afterRestore struct {
	continuing
	newLog bool
	stale  bool                   // the log that it follows may be
	init   savepoints.InitOptions // of the new log

	keys savepoints.Keys          // of the log that is continued
	log  savepoints.NewLogOptions // of the one that begins
}

// goesOn reports whether it does.
func (n *afterRestore) goesOn() bool { return n.file != "" || n.newLog }

// prepareNext refuses what could not be done later, before anything is restored.
func (e *env) prepareNext(n *afterRestore, trust string, from []string) error {
	if !n.newLog && !reflect.ValueOf(n.init).IsZero() {
		return usagef("--witness, --quorum, --origin, --private-ids and --hcs describe a log that --new-log begins")
	}
	if !n.goesOn() {
		return nil
	}
	if n.file != "" && n.newLog {
		return usagef("either --log-key FILE or --new-log")
	}
	if e.bank != nil {
		return errServing
	}
	n.continuing.from = e.sources(from)
	if n.newLog {
		if trust == "" {
			return fmt.Errorf("%w: --trust FILE says which log the new one follows", savepoints.ErrNoTrust)
		}
		if text, err := e.readTrust(trust); err == nil { // whoever reads it next says why not
			if p, err := anchor.ParsePolicy(text); err == nil && p.Origin == n.init.Origin {
				return usagef("--origin %s: a new log has another origin than the log that it follows", p.Origin)
			}
		}
		return n.init.Check()
	}
	keys, err := e.keys(n.continuing, trust)
	n.keys = keys
	return err
}

// check refuses a repository that has a log already, where another one is to be continued.
func (n *afterRestore) check(b *savepoints.Bank) error {
	if b.Origin() != "" && n.file != "" {
		return fmt.Errorf("%w: %s", savepoints.ErrLogExists, b.Origin())
	}
	return nil
}

// found notes what is to be restored, and refuses what cannot go on here.
func (n *afterRestore) found(ctx context.Context, s savepoints.Savepoint, t trusted) error {
	switch {
	case n.file != "":
		return t.CanContinue(ctx, n.keys, n.from)
	case n.newLog:
		n.log = savepoints.NewLogOptions{Savepoint: s, Policy: t.file, Sources: n.from, AcceptStale: n.stale, Init: n.init}
		return t.CanTakeOver(ctx, n.log)
	}
	return nil
}

// goOn takes over the policy.
func (e *env) goOn(ctx context.Context, n afterRestore) error {
	var err error
	switch {
	case n.file != "":
		err = e.continueLog(ctx, n.keys, n.continuing)
	case n.newLog:
		err = e.takeOver(func(dir string) (*savepoints.Bank, error) {
			return savepoints.NewLog(ctx, dir, n.log)
		})
	}
	if err != nil {
		return fmt.Errorf("the state is restored, and the policy cannot go on here yet; run the same command again: %w", err)
	}
	return nil
}
