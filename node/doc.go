// Package node is the embedded IPFS node: a repository on disk, its store of
// IPFS blocks, pins, and the network that serves and fetches them.
//
// # What this package may touch
//
// The repository folder and the network. It knows no policy, no save point and
// no meaning of a log's head: callers give it roots to pin and bytes to keep.
//
// # On disk
//
//	version        the layout's number; newer ones are refused
//	config.toml    listen addresses of serve
//	identity.key   the libp2p key, 0600
//	packs/         IPFS blocks, as CARv1 segments that only grow
//	meta/          small records, a file each: pins, heads, receipts, names
//	repo.lock      held (flock) by the one process that has the repository open
//	serve.sock     commands for a running serve; serve.json says where it listens
//
// Other packages keep their own files beside these through [Repo.WriteFile].
//
// # Durability
//
// [Store.Sync] returns after an fsync of everything put before it; every record
// is written to a temporary file, synced, renamed, and its folder synced. A pin
// is made only after the IPFS blocks put before it are synced.
package node
