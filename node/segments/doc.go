// Package segments is the store of IPFS blocks: files that only grow, which any
// tool that reads CARs imports.
//
// # What this package may touch
//
// One folder. It knows blocks and their CIDs, and nothing of what they mean: what
// is garbage, its caller says.
//
// # On disk
//
//	NNNNNNNN.car      a segment: a CARv1, its root the empty identity CID
//	NNNNNNNN.car.zst  a sealed one: the same bytes as seekable zstd
//	NNNNNNNN.idx      where the sections of a closed segment begin, by digest
//	synced            how much of the segment being written is synced
//	deleted           what was deleted and is still in a segment
//
// The segment with the highest number is the active one, to which blocks are
// appended. One that is full is closed: it gets an index on disk, of which less
// than a byte a block stays in memory. Sealing compresses a closed segment.
//
// # Durability
//
// [Store.Sync] returns after an fsync of everything put before it; callers that
// wait at the same time share one. [Store.Delete] is durable when it returns.
// Segments disappear only after what is to stay of them is synced elsewhere.
//
// # Damage
//
// Every block that is read is hashed. One whose bytes are wrong counts as absent
// from then on, so that putting it again heals it, and costs no other block. What
// a crash left at the end of the active segment is cut when the store is opened.
//
// # Collecting garbage
//
// [Store.Collect] moves what is live out of segments that hold much garbage, and
// removes them, while others read and write. A segment of which something live
// cannot be read stays. Whoever relies on blocks that
// nothing marks yet has a [Store.Hold] meanwhile: from its beginning to its end,
// what is put, found or read counts as live.
package segments
