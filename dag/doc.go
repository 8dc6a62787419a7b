// Package dag turns documents into an IPLD DAG and back.
//
// A state is a set of documents, each a path and its bytes. Its form is an
// ordinary UnixFS directory, so that any IPFS gateway lists it and any UnixFS
// implementation set to the same CID profile computes the same CID from the
// same files. The profile, ipfs-savepoint/v1, is IPIP-499 unixfs-v1-2025 with
// another HAMT fan-out ([Fanout]) and another directory threshold
// ([DirectoryThreshold]); docs/formats.md gives both, with the reasons.
//
// # Canonical or refused
//
// A set of documents has exactly one DAG. Whoever reads a state through this
// package reads only that one: every directory and every large document is laid
// out again from what it lists and compared with the CID it was found under, so
// that two readers of one CID cannot see two different states. See [ErrNotCanonical].
//
// # What this package may touch
//
// Memory only. IPFS blocks come through a [Source] and leave through a [Sink];
// nothing here knows a disk, a network, a log or a policy.
//
// # The parts
//
//   - [Tree], [WriteDocument]: from documents to a state.
//   - [Documents], [ReadDocument], [CopyDocument]: from a state to documents.
//   - [VerifyState], [Missing]: is it whole, and is it what it says.
//   - [Manifest]: the root of a save point, in canonical DAG-CBOR.
//   - [WriteCAR], [ReadCAR]: DAGs as CARv1 streams.
package dag
