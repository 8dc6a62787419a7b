package dag

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/ipfs/go-cid"
)

// UnixFS data types (UnixFS specification, "Data format").
const (
	typeDirectory = 1
	typeFile      = 2
	typeHAMTShard = 5
)

// murmur3 x64 64-bit, the only HAMT hash function of UnixFS (multicodec 0x22).
const hashMurmur3 = 0x22

// The keys of the protobuf fields of dag-pb (dag-pb specification, "Logical Format").
const (
	keyNodeLink  = 0x12 // PBNode.Links, bytes
	keyNodeData  = 0x0a // PBNode.Data, bytes
	keyLinkHash  = 0x0a // PBLink.Hash, bytes
	keyLinkName  = 0x12 // PBLink.Name, bytes
	keyLinkTsize = 0x18 // PBLink.Tsize, varint
)

// pbLink is a link of a dag-pb node.
type pbLink struct {
	Slot string // how the name of a HAMT link begins; only for encoding
	Name string // the name, or what follows Slot of it
	CID  binaryCID
	Size uint64
}

// binaryCID is the bytes of a CID that CheckCID accepts. Decoded nodes are full of
// CIDs that nobody follows; as a part of the node's bytes each costs nothing.
type binaryCID string

func (c binaryCID) cid() cid.Cid { return mustCast([]byte(c)) }

func (l pbLink) link() Link { return Link{CID: l.CID.cid(), Size: l.Size} }

func newLink(slot, name string, l Link) pbLink {
	return pbLink{slot, name, binaryCID(l.CID.KeyString()), l.Size}
}

// node is a dag-pb node whose data is UnixFS. Fields that its type lacks are zero.
type node struct {
	typ        uint64
	data       []byte // HAMT: the bitfield
	filesize   uint64
	blocksizes []uint64
	hashType   uint64
	fanout     uint64
	links      []pbLink
	// total is the Tsize of a link to the node: its own length and what its links
	// say. Only decodeNode sets it.
	total uint64
}

// encode returns the canonical bytes: dag-pb with links before data, the fields
// of UnixFS in the order of their numbers, absent ones left out.
func (n node) encode() []byte {
	var scratch [64]byte
	fs := n.appendUnixFS(scratch[:0])
	size := 1 + uvarintLen(uint64(len(fs))) + len(fs)
	for _, l := range n.links {
		size += linkLen(len(l.Slot)+len(l.Name), len(l.CID), l.Size)
	}
	out := make([]byte, 0, size)
	for _, l := range n.links {
		name := len(l.Slot) + len(l.Name)
		out = append(out, keyNodeLink)
		out = binary.AppendUvarint(out, uint64(linkBodyLen(name, len(l.CID), l.Size)))
		out = append(out, keyLinkHash)
		out = binary.AppendUvarint(out, uint64(len(l.CID)))
		out = append(out, l.CID...)
		out = append(out, keyLinkName)
		out = binary.AppendUvarint(out, uint64(name))
		out = append(out, l.Slot...)
		out = append(out, l.Name...)
		out = append(out, keyLinkTsize)
		out = binary.AppendUvarint(out, l.Size)
	}
	out = append(out, keyNodeData)
	out = binary.AppendUvarint(out, uint64(len(fs)))
	return append(out, fs...)
}

func (n node) appendUnixFS(out []byte) []byte {
	out = append(out, 0x08)
	out = binary.AppendUvarint(out, n.typ)
	if n.typ == typeHAMTShard {
		out = append(out, 0x12)
		out = binary.AppendUvarint(out, uint64(len(n.data)))
		out = append(out, n.data...)
	}
	if n.typ == typeFile {
		out = append(out, 0x18)
		out = binary.AppendUvarint(out, n.filesize)
		for _, s := range n.blocksizes {
			out = append(out, 0x20)
			out = binary.AppendUvarint(out, s)
		}
	}
	if n.typ == typeHAMTShard {
		out = append(out, 0x28)
		out = binary.AppendUvarint(out, n.hashType)
		out = append(out, 0x30)
		out = binary.AppendUvarint(out, n.fanout)
	}
	return out
}

// maxTotal is the largest Tsize. No DAG is as large; but links can claim it.
const maxTotal = 1<<63 - 1

// block encodes the node; the Size of the link to it is its own length and the
// sizes of all that it links. One of more than maxTotal is for the writer of the
// whole directory to refuse.
func (n node) block() (Block, Link) {
	b := newBlock(codecPB, n.encode())
	l := b.link()
	for _, child := range n.links {
		l.Size = min(l.Size, maxTotal+1) + min(child.Size, maxTotal)
	}
	return b, l
}

// checkTotal refuses a link of more than maxTotal.
func (l Link) checkTotal() error {
	if l.Size > maxTotal {
		return fmt.Errorf("%w: documents whose sizes add up to more than 63 bits", ErrUnsupported)
	}
	return nil
}

func linkBodyLen(name, c int, size uint64) int {
	return 1 + uvarintLen(uint64(c)) + c + 1 + uvarintLen(uint64(name)) + name + 1 + uvarintLen(size)
}

// linkLen is the number of bytes that a link adds to its node, whose name and CID
// are so long.
func linkLen(name, c int, size uint64) int {
	body := linkBodyLen(name, c, size)
	return 1 + uvarintLen(uint64(body)) + body
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// text is what is scanned: as a string its parts can be kept.
type text interface{ ~string | ~[]byte }

// uvarint cuts a number off the front of b. It accepts only the shortest form.
func uvarint[T text](b T) (v uint64, rest T, ok bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], true // most numbers, and cheap enough to be inlined
	}
	return longUvarint(b)
}

func longUvarint[T text](b T) (v uint64, rest T, ok bool) {
	for i := 0; i < len(b) && i < binary.MaxVarintLen64; i++ {
		c := b[i]
		if c >= 0x80 {
			v |= uint64(c&0x7f) << (7 * i)
			continue
		}
		v |= uint64(c) << (7 * i)
		// The tenth byte has room for one bit; a last byte of 0 says nothing.
		if i == binary.MaxVarintLen64-1 && c > 1 || i > 0 && c == 0 {
			break
		}
		return v, b[i+1:], true
	}
	return 0, rest, false
}

// cutBytes cuts a field of bytes with the given key off the front of b.
func cutBytes[T text](b T, key byte) (val, rest T, ok bool) {
	if len(b) == 0 || b[0] != key {
		return val, rest, false
	}
	n, rest, ok := uvarint(b[1:])
	if !ok || n > uint64(len(rest)) {
		return val, rest, false
	}
	return rest[:n], rest[n:], true
}

// rawLink is a link of a dag-pb node as it lies in the node's bytes.
type rawLink[T text] struct {
	cid, name T
	size      uint64
}

const (
	// maxLinks is how many links a dag-pb node may have. A node of a document has
	// 1,024 at most, one of a directory fewer; what else a manifest links to may be
	// laid out by other rules.
	maxLinks = 8192
	// maxLinkName is the length of the longest name of a link: one of a document
	// after the two digits of a slot.
	maxLinkName = MaxNameLen + 2
)

// scanNode calls f for each link of a dag-pb node, in order, and returns the
// node's data. It copies and allocates nothing. It accepts only the bytes that
// node.encode writes, but for what UnixFS says; errors wrap ErrNotCanonical or come
// from f.
func scanNode[T text](b T, f func(rawLink[T]) error) (data T, err error) {
	for i := 0; len(b) > 0 && b[0] == keyNodeLink; i++ {
		body, rest, ok := cutBytes(b, keyNodeLink)
		if !ok {
			return data, fmt.Errorf("%w: dag-pb link %d is cut", ErrNotCanonical, i)
		}
		l, ok := cutLink(body)
		if !ok {
			return data, fmt.Errorf("%w: dag-pb link %d is not hash, name and Tsize", ErrNotCanonical, i)
		}
		if i == maxLinks || len(l.name) > maxLinkName {
			return data, fmt.Errorf("%w: dag-pb link %d: more than %d links, or a name of more than %d bytes", ErrNotCanonical, i, maxLinks, maxLinkName)
		}
		if !isSupportedCID(l.cid) {
			return data, fmt.Errorf("%w: dag-pb link %d: %w", ErrNotCanonical, i, unsupportedCID([]byte(l.cid)))
		}
		if err := f(l); err != nil {
			return data, err
		}
		b = rest
	}
	data, rest, ok := cutBytes(b, keyNodeData)
	if !ok || len(rest) > 0 {
		return data, fmt.Errorf("%w: dag-pb links are not followed by data and nothing else", ErrNotCanonical)
	}
	return data, nil
}

func cutLink[T text](b T) (l rawLink[T], ok bool) {
	// Every CID that is accepted is of this length; the others are cut to be named.
	if len(b) > 2+cidLen && b[0] == keyLinkHash && b[1] == cidLen {
		l.cid, b = b[2:2+cidLen], b[2+cidLen:]
	} else if l.cid, b, ok = cutBytes(b, keyLinkHash); !ok {
		return l, false
	}
	if l.name, b, ok = cutBytes(b, keyLinkName); !ok || len(b) == 0 || b[0] != keyLinkTsize {
		return l, false
	}
	l.size, b, ok = uvarint(b[1:])
	return l, ok && len(b) == 0
}

// unsupportedCID says why bytes are not a CID that CheckCID accepts.
func unsupportedCID(b []byte) error {
	c, err := cid.Cast(b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return CheckCID(c)
}

// decodeNode reads a dag-pb node with UnixFS data and refuses, with
// ErrNotCanonical, bytes that differ from its own encoding of what it read.
func decodeNode(b []byte) (node, error) {
	n := node{total: uint64(len(b)), links: make([]pbLink, 0, len(b)/linkLen(8, cidLen, 1))}
	data, err := scanNode(string(b), func(l rawLink[string]) error {
		if l.size > maxTotal-n.total {
			return fmt.Errorf("%w: the sizes of its links add up to more than 63 bits", ErrNotCanonical)
		}
		n.total += l.size
		n.links = append(n.links, pbLink{Name: l.name, CID: binaryCID(l.cid), Size: l.size})
		return nil
	})
	if err == nil {
		err = n.decodeUnixFS([]byte(data))
	}
	if err != nil {
		return node{}, err
	}
	switch n.typ {
	case typeDirectory, typeFile, typeHAMTShard:
	default:
		return node{}, fmt.Errorf("%w: UnixFS type %d", ErrNotCanonical, n.typ)
	}
	var scratch [64]byte
	if string(n.appendUnixFS(scratch[:0])) != data {
		return node{}, fmt.Errorf("%w: another encoding of the same UnixFS data", ErrNotCanonical)
	}
	return n, nil
}

// decodeUnixFS reads the fields that UnixFS has. That they are in order and of the
// node's type is for its caller to see, who encodes them again.
func (n *node) decodeUnixFS(b []byte) error {
	for len(b) > 0 {
		key, val, ok := b[0], uint64(0), true
		if key == 0x12 {
			n.data, b, ok = cutBytes(b, key)
		} else {
			val, b, ok = uvarint(b[1:])
		}
		if !ok {
			return fmt.Errorf("%w: UnixFS field with key %#x is cut", ErrNotCanonical, key)
		}
		switch key {
		case 0x08:
			n.typ = val
		case 0x12:
		case 0x18:
			n.filesize = val
		case 0x20:
			n.blocksizes = append(n.blocksizes, val)
		case 0x28:
			n.hashType = val
		case 0x30:
			n.fanout = val
		default:
			return fmt.Errorf("%w: UnixFS field with key %#x", ErrNotCanonical, key)
		}
	}
	return nil
}
