// Command ipfs-savepoint saves the state of long-running policies as save points
// on IPFS and restores it. "ipfs-savepoint help" lists what it can do; README.md
// begins with a demonstration.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	dir, err := os.Getwd()
	if err != nil {
		dir = "."
	}
	e := &env{out: os.Stdout, err: os.Stderr, dir: dir, terminal: isTerminal(os.Stderr)}
	status := e.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
