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
// package reads only that one: every node is compared with the only one that can
// stand in its place, so that two readers of one CID cannot see two different
// states. What a node alone cannot tell, whether a HAMT has enough entries to be
// one, is known to whoever reads all of a directory. See [ErrNotCanonical].
//
// # Cost
//
// A state of n documents costs n once, from [Builder]. After that, [Editor], [Diff],
// [Lookup] and proofs cost what they touch: a document's path is about log16(n) nodes
// of at most 4 KiB. docs/formats.md says why.
//
// # What this package may touch
//
// Memory only. IPFS blocks come through a [Source] and leave through a [Sink];
// nothing here knows a disk, a network, a log or a policy.
//
// # The parts
//
//   - [WriteDocument], [Builder], [Editor]: from documents, or from changes to
//     documents, to a state.
//   - [Documents], [Lookup], [ReadDocument], [CopyDocument]: from a state to
//     documents.
//   - [Diff]: from two states to the documents that differ.
//   - [VerifyState], [Missing], [Walk]: is it what it says, is it whole, what is it
//     made of.
//   - [WriteProof], [VerifyProof]: one document, or its absence, for somebody who
//     has nothing but the CID.
//   - [Manifest]: the root of a save point, in canonical DAG-CBOR.
//   - [WriteCAR], [WritePartialCAR], [ReadCAR]: DAGs as CARv1 streams.
package dag
