// Package savepoints takes save points, finds them, checks them, and moves them
// between repositories.
//
// A [Bank] is an open repository seen as the place where save points go. It holds
// a log of its own if it was made by [Init], and verified copies of other logs.
// For every save point that it holds it keeps a receipt: a C2SP tlog-proof whose
// extra line is the log entry. So a save point can be listed, checked and exported
// without the log, by the trust policy alone.
//
// # What this package may touch
//
// The repository, through package node; the network, through node's sources, the
// witnesses and the mirror nodes that a trust policy names; and the folder that [Folder]
// reads. Nothing is written outside the repository.
//
// # What is given up
//
// A save point is retired, a document is erased: the log says it first, then the
// repository that writes it does it. Others keep what they have by their own rules.
// [Bank.Verify] and all other readers tell what was erased from what is damaged.
//
// # Order of a take
//
// documents, directories and manifest are put; the manifest is noted as pending
// and pinned, which syncs them; the entry is appended to the log, which returns
// when the signed head is on disk; the receipt is written. After a crash anywhere in
// between, the next open finishes it, or the next take of the same state uses it.
package savepoints
