// Package logs holds other implementations of transparency logs, and the tests that
// show that they read and check what ipfs-savepoint writes: tessera's fsck reads the
// log over the gateway; torchwood's litewitness, transparency-dev's omniwitness and
// "log witness" answer alike; libraries of both verify proofs and read trust policies.
//
// It also makes the program's system calls fail, and kills it, and judges by the same
// tools what is left. -runs says how often; -seed repeats what was random.
//
// It is a Go module of its own, so that none of this weighs on whoever builds or
// imports ipfs-savepoint. litewitness is installed into a temporary folder, since the
// module graph of its tests does not resolve; it needs sqlite3 and ssh-agent.
// omniwitness is built from the module in the folder of that name, since it replaces
// one of its own dependencies. Faults are injected by strace.
package logs
