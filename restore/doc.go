// Package restore writes the documents of a save point to a target, whole or not
// at all.
//
// Everything is read and verified before anything is written. The documents go to
// a staging folder beside the target, are synced, and the staging folder takes the
// target's name in one rename. A restore that was killed leaves the target absent
// (or empty, as it was) and is simply run again: IPFS blocks that were fetched are
// in the repository, and a staging folder left behind is replaced. Documents that were
// erased are left out only where the caller says so.
//
// # What this package may touch
//
// The target folder and the staging folder beside it, ".NAME.restoring". It reads
// the repository and writes nothing there.
package restore
