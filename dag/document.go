package dag

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrNoBytes: bytes of a document are missing or damaged, its other nodes are as they
// should be as far as they were read. It comes with an ErrNotFound or ErrHash.
var ErrNoBytes = errors.New("bytes of a document cannot be read")

// The parts of the CID profile that concern documents; both as in IPIP-499
// unixfs-v1-2025.
const (
	// ChunkSize is the length in bytes of the largest document that is one
	// raw IPFS block, and of the chunks of larger ones.
	ChunkSize = 1 << 20
	// FileLinks is the number of links of a full node of a large document.
	FileLinks = 1024
	// maxDocument is the length that a document of four levels can have. With
	// more, the sums of lengths would not be safe in 64 bits.
	maxDocument = 1 << 60
)

// WriteDocument writes the bytes of r to sink and returns the link to them and
// their number. Up to ChunkSize bytes become one raw IPFS block; more become a
// balanced UnixFS file. It holds one chunk and about 150 bytes per chunk written.
func WriteDocument(ctx context.Context, sink Sink, r io.Reader) (Link, uint64, error) {
	var leaves []subtree
	var total uint64
	for {
		chunk, err := readChunk(r)
		if err != nil {
			return Link{}, 0, err
		}
		if len(chunk) == 0 && len(leaves) > 0 {
			break
		}
		b := RawBlock(chunk)
		if err := sink.Put(ctx, b); err != nil {
			return Link{}, 0, err
		}
		total += uint64(len(chunk))
		leaves = append(leaves, subtree{b.link(), uint64(len(chunk))})
		if len(chunk) < ChunkSize {
			break
		}
	}
	l, err := writeLevels(ctx, sink, leaves)
	return l, total, err
}

// readChunk reads ChunkSize bytes, or as many as are left.
func readChunk(r io.Reader) ([]byte, error) {
	// Most documents are small: grow towards a chunk instead of allocating one.
	data, err := io.ReadAll(io.LimitReader(r, ChunkSize))
	if err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	return data, nil
}

// subtree is a part of a large document: its DAG and the number of its bytes.
type subtree struct {
	link  Link
	bytes uint64
}

// writeLevels joins subtrees of equal height, the last one perhaps smaller,
// level by level until one is left.
func writeLevels(ctx context.Context, sink Sink, level []subtree) (Link, error) {
	for len(level) > 1 {
		var next []subtree
		for len(level) > 0 {
			n := min(FileLinks, len(level))
			node, bytes := fileNode(level[:n])
			b, l := node.block()
			if err := sink.Put(ctx, b); err != nil {
				return Link{}, err
			}
			next = append(next, subtree{l, bytes})
			level = level[n:]
		}
		level = next
	}
	return level[0].link, nil
}

func fileNode(children []subtree) (node, uint64) {
	n := node{typ: typeFile}
	for _, c := range children {
		n.links = append(n.links, newLink("", "", c.link))
		n.blocksizes = append(n.blocksizes, c.bytes)
		n.filesize += c.bytes
	}
	return n, n.filesize
}

// CopyDocument writes the bytes of the document at link to w and returns their
// number. It accepts only the DAG that WriteDocument makes of those bytes; the
// error then wraps ErrNotCanonical. Since what was found wrong late is written
// by then, w must be a place that can be thrown away. A few nodes that link one another many
// times over are a document of up to 2^60 bytes: whoever writes bounds w, or ends ctx. To
// io.Discard it costs no more than there are nodes, and some 150 bytes of memory for each.
func CopyDocument(ctx context.Context, src Source, link Link, w io.Writer) (uint64, error) {
	bytes, err := documentBytes(ctx, src, link)
	if err != nil {
		return 0, err
	}
	c := documentCopy{src: src, w: w}
	whole := documentPart{link, bytes, heightOf(bytes)}
	if w == io.Discard && whole.height > 0 {
		c.seen = map[documentPart]bool{}
	}
	return bytes, c.copy(ctx, whole)
}

// documentPart is a part of a document: where it is, its length, and the number of levels of nodes
// above its chunks. They determine its shape.
type documentPart struct {
	link   Link
	bytes  uint64
	height int
}

// documentCopy is a CopyDocument in progress.
type documentCopy struct {
	src  Source
	w    io.Writer
	seen map[documentPart]bool // the parts that are as they should be; nil: each is to be written
}

// copy copies a part, unless nobody sees that it is not copied again.
func (c *documentCopy) copy(ctx context.Context, p documentPart) error {
	if c.seen[p] {
		return nil
	}
	err := c.copyParts(ctx, p)
	if err == nil && c.seen != nil {
		c.seen[p] = true
	}
	return err
}

// documentBytes returns the length of the document at link as its top node says.
func documentBytes(ctx context.Context, src Source, link Link) (uint64, error) {
	if codecOf(link.CID) == codecRaw {
		return rawLength(link)
	}
	n, err := getNode(ctx, src, link.CID)
	if err != nil {
		return 0, err
	}
	return fileLength(n, link)
}

// checkDocument refuses a link that cannot lead to a document, as far as the link
// shows it.
func checkDocument(l Link) error {
	if err := CheckCID(l.CID); err != nil {
		return err
	}
	switch codecOf(l.CID) {
	case codecDC:
		return fmt.Errorf("%w: a document of codec dag-cbor, %s", ErrUnsupported, l.CID)
	case codecRaw:
		if l.Size > ChunkSize {
			return fmt.Errorf("%w: a document of %d bytes in one IPFS block, %s", ErrUnsupported, l.Size, l.CID)
		}
	}
	return l.checkTotal()
}

// rawLength is the length of a document that is one raw block, as the link to it
// says.
func rawLength(link Link) (uint64, error) {
	if link.Size > ChunkSize {
		return 0, fmt.Errorf("%w: the link to %s says %d bytes, more than a chunk", ErrNotCanonical, link.CID, link.Size)
	}
	return link.Size, nil
}

// fileLength is the length of the document whose top node is n, found at link.
func fileLength(n node, link Link) (uint64, error) {
	if n.typ != typeFile || n.filesize <= ChunkSize || n.filesize > maxDocument {
		return 0, fmt.Errorf("%w: %s is not a document of more than one chunk", ErrNotCanonical, link.CID)
	}
	return n.filesize, n.checkSize(link)
}

// heightOf is the number of levels of nodes above the chunks of a document of at
// most maxDocument bytes.
func heightOf(bytes uint64) int {
	height := 0
	for span := uint64(ChunkSize); span < bytes; span *= FileLinks {
		height++
	}
	return height
}

// copyParts copies what a part consists of. Every node is compared with the only one that
// can stand in its place.
func (c *documentCopy) copyParts(ctx context.Context, p documentPart) error {
	link, bytes, height := p.link, p.bytes, p.height
	if height == 0 {
		return copyChunk(ctx, c.src, link, bytes, c.w)
	}
	n, err := getNode(ctx, c.src, link.CID)
	if err != nil {
		return err
	}
	span := uint64(ChunkSize)
	for range height - 1 {
		span *= FileLinks
	}
	bad := func(why string) error {
		return fmt.Errorf("%w: %s of a document of more than one chunk: %s", ErrNotCanonical, link.CID, why)
	}
	if n.typ != typeFile || n.filesize != bytes || len(n.links) != len(n.blocksizes) {
		return bad("wrong type, length or number of links")
	}
	if uint64(len(n.links)) != (bytes+span-1)/span || len(n.links) > FileLinks {
		return bad("wrong number of links")
	}
	left := bytes
	for i, l := range n.links {
		length := min(span, left)
		if n.blocksizes[i] != length || l.Name != "" {
			return bad("wrong length or name of a part")
		}
		// The last part may be so short that it needs fewer levels; the
		// balanced layout keeps all chunks at one depth all the same.
		if err := c.copy(ctx, documentPart{l.link(), length, height - 1}); err != nil {
			return err
		}
		left -= length
	}
	return n.checkSize(link)
}

func copyChunk(ctx context.Context, src Source, link Link, bytes uint64, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if codecOf(link.CID) != codecRaw {
		return fmt.Errorf("%w: %s is not a raw chunk", ErrNotCanonical, link.CID)
	}
	if known, ok := src.(Checked); ok && w == io.Discard {
		if n, ok := known.Checked(link.CID); ok && uint64(n) == bytes && link.Size == bytes && bytes <= ChunkSize {
			return nil
		}
	}
	data, err := src.Get(ctx, link.CID)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrHash) {
		return fmt.Errorf("%w: %w", ErrNoBytes, err)
	}
	if err != nil {
		return err
	}
	if uint64(len(data)) != bytes || link.Size != bytes || bytes > ChunkSize {
		return fmt.Errorf("%w: chunk %s has %d bytes where %d belong", ErrNotCanonical, link.CID, len(data), bytes)
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("write document: %w", err)
	}
	return nil
}
