package dag

import (
	"encoding/binary"
	"errors"
	"fmt"

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

// pbLink is a link of a dag-pb node.
type pbLink struct {
	Name string
	Link
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
}

// encode returns the canonical bytes: dag-pb with links before data, the fields
// of UnixFS in the order of their numbers, absent ones left out.
func (n node) encode() []byte {
	fs := n.encodeUnixFS()
	size := 1 + uvarintLen(uint64(len(fs))) + len(fs)
	for _, l := range n.links {
		size += linkLen(l)
	}
	out := make([]byte, 0, size)
	for _, l := range n.links {
		out = append(out, 0x12) // PBNode.Links
		out = binary.AppendUvarint(out, uint64(linkBodyLen(l)))
		out = append(out, 0x0a) // PBLink.Hash
		out = binary.AppendUvarint(out, uint64(l.CID.ByteLen()))
		out = append(out, l.CID.Bytes()...)
		out = append(out, 0x12) // PBLink.Name
		out = binary.AppendUvarint(out, uint64(len(l.Name)))
		out = append(out, l.Name...)
		out = append(out, 0x18) // PBLink.Tsize
		out = binary.AppendUvarint(out, l.Size)
	}
	out = append(out, 0x0a) // PBNode.Data
	out = binary.AppendUvarint(out, uint64(len(fs)))
	return append(out, fs...)
}

func (n node) encodeUnixFS() []byte {
	out := binary.AppendUvarint([]byte{0x08}, n.typ)
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

// block encodes the node; the Size of the link to it is its own length and the
// sizes of all that it links.
func (n node) block() (Block, Link) {
	b := newBlock(codecPB, n.encode())
	l := b.link()
	for _, child := range n.links {
		l.Size += child.Size
	}
	return b, l
}

func linkBodyLen(l pbLink) int {
	c := l.CID.ByteLen()
	return 1 + uvarintLen(uint64(c)) + c + 1 + uvarintLen(uint64(len(l.Name))) + len(l.Name) + 1 + uvarintLen(l.Size)
}

// linkLen is the number of bytes that a link adds to its node.
func linkLen(l pbLink) int {
	body := linkBodyLen(l)
	return 1 + uvarintLen(uint64(body)) + body
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

var errPB = errors.New("malformed dag-pb")

// field is one field of a protobuf message.
type field struct {
	num   uint64
	val   uint64 // wire type 0
	bytes []byte // wire type 2
}

// eachField calls f for every field of a protobuf message that has only the
// wire types that dag-pb and UnixFS use.
func eachField(b []byte, f func(field) error) error {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return fmt.Errorf("%w: bad field key", errPB)
		}
		b = b[n:]
		val, n := binary.Uvarint(b)
		if n <= 0 {
			return fmt.Errorf("%w: bad value of field %d", errPB, key>>3)
		}
		b = b[n:]
		fd := field{num: key >> 3, val: val}
		switch key & 7 {
		case 0:
		case 2:
			if val > uint64(len(b)) {
				return fmt.Errorf("%w: field %d is cut", errPB, fd.num)
			}
			fd.bytes, b = b[:val], b[val:]
		default:
			return fmt.Errorf("%w: wire type %d", errPB, key&7)
		}
		if err := f(fd); err != nil {
			return err
		}
	}
	return nil
}

// decodeNode reads a dag-pb node with UnixFS data and refuses, with
// ErrNotCanonical, bytes that differ from its own encoding of what it read.
func decodeNode(data []byte) (node, error) {
	var n node
	err := eachField(data, func(f field) error {
		switch {
		case f.num == 2 && f.bytes != nil:
			l, err := decodeLink(f.bytes)
			n.links = append(n.links, l)
			return err
		case f.num == 1 && f.bytes != nil:
			return n.decodeUnixFS(f.bytes)
		}
		return fmt.Errorf("%w: unknown field %d", errPB, f.num)
	})
	if err != nil {
		return node{}, fmt.Errorf("%w: %w", ErrNotCanonical, err)
	}
	switch n.typ {
	case typeDirectory, typeFile, typeHAMTShard:
	default:
		return node{}, fmt.Errorf("%w: UnixFS type %d", ErrNotCanonical, n.typ)
	}
	if string(n.encode()) != string(data) {
		return node{}, fmt.Errorf("%w: another encoding of the same node", ErrNotCanonical)
	}
	return n, nil
}

func decodeLink(b []byte) (pbLink, error) {
	var l pbLink
	err := eachField(b, func(f field) error {
		switch f.num {
		case 1:
			c, err := cid.Cast(f.bytes)
			if err != nil {
				return err
			}
			l.CID = c
			return CheckCID(c)
		case 2:
			l.Name = string(f.bytes)
		case 3:
			l.Size = f.val
		default:
			return fmt.Errorf("%w: unknown link field %d", errPB, f.num)
		}
		return nil
	})
	if err == nil && !l.CID.Defined() {
		err = fmt.Errorf("%w: a link without a CID", errPB)
	}
	return l, err
}

func (n *node) decodeUnixFS(b []byte) error {
	return eachField(b, func(f field) error {
		switch f.num {
		case 1:
			n.typ = f.val
		case 2:
			n.data = f.bytes
		case 3:
			n.filesize = f.val
		case 4:
			n.blocksizes = append(n.blocksizes, f.val)
		case 5:
			n.hashType = f.val
		case 6:
			n.fanout = f.val
		default:
			return fmt.Errorf("%w: UnixFS field %d", errPB, f.num)
		}
		return nil
	})
}
