// Package logs holds other implementations of transparency logs, and the tests that
// show that they read and check what ipfs-savepoint writes: tessera's fsck reads the
// log over the gateway, torchwood's litewitness and "log witness" answer alike,
// transparency-dev's libraries verify proofs and read trust policies.
//
// It is a Go module of its own, so that none of this weighs on whoever builds or
// imports ipfs-savepoint. litewitness is installed into a temporary folder, since the
// module graph of its tests does not resolve; it needs sqlite3 and ssh-agent.
package logs
