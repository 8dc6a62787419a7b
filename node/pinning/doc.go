// Package pinning is the server's side of the IPFS Pinning Service API, version 1
// (ipfs.github.io/pinning-services-api-spec): others have DAGs fetched and pinned in
// a repository, with "ipfs pin remote" of kubo or with another ipfs-savepoint.
//
// # What this package may touch
//
// A node's repository and network. It keeps its requests as records of the
// repository, of the kind "requests", and pins as the owner [Owner]: a pin of the
// repository itself, or of anybody else, is never made or removed by it.
//
// # What a request goes through
//
//	queued   it waits for its turn, or for its next try
//	pinning  its DAG is being fetched, from the request's origins that are multiaddrs
//	         with a peer id, and from the peers that the server was started with
//	pinned   the DAG is complete and synced, and has a pin
//	failed   no source gave all of it, also not when it was tried again, or it is not
//	         what this repository keeps; info.status_details says why
//
// A request is on disk before it is answered, and survives a restart: what was queued
// or pinning begins anew, with what was fetched before. Its pin goes when it is
// deleted, unless another request is for the same DAG. A request that replaces another
// keeps that one's DAG until its own is pinned.
//
// Only DAGs of CIDv1 with sha2-256 of raw, dag-pb and dag-cbor nodes can be kept.
//
// # Limits
//
// A body has at most 64 KiB, a request 20 origins of together 8 KiB, and 4 KiB of meta;
// 1,000 requests wait at a time, and 100,000 are kept, of together 64 MiB; [Options.Workers] DAGs are fetched at a time, each for at most six
// hours. Whoever has a token may fill the disk.
package pinning
