package dag

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// MaxBlockSize is the largest IPFS block, in bytes, that is written or accepted.
// It is the limit of the bitswap protocol and of other implementations' stores.
const MaxBlockSize = 2 << 20

// The codecs of the multicodec table that a save point consists of.
const (
	codecRaw = cid.Raw         // documents and chunks of documents
	codecPB  = cid.DagProtobuf // UnixFS directories and large documents
	codecDC  = cid.DagCBOR     // manifests
)

// Errors that a caller decides by. All wrap the place where they were found.
var (
	// ErrNotFound: an IPFS block, or a path in a directory, is not there.
	ErrNotFound = errors.New("not found")
	// ErrHash: bytes do not have the hash that their CID names.
	ErrHash = errors.New("bytes do not match their CID")
	// ErrUnsupported: a CID of another version, hash function or codec than a
	// save point has, or an IPFS block over MaxBlockSize.
	ErrUnsupported = errors.New("unsupported IPFS block")
	// ErrNotCanonical: a node says something that the one correct encoding of
	// the same content would say in other bytes.
	ErrNotCanonical = errors.New("not canonical")
)

// Block is an IPFS block: bytes and the CID that names them.
type Block struct {
	CID  cid.Cid
	Data []byte
}

// Link points to a DAG.
type Link struct {
	CID cid.Cid
	// Size is the Tsize of dag-pb: the bytes of all nodes of the DAG, each
	// counted as often as it is linked.
	Size uint64
}

// Source reads IPFS blocks. Get returns bytes already checked against c, which
// the caller must not change, or an error that wraps ErrNotFound. Safe for
// concurrent use.
type Source interface {
	Get(ctx context.Context, c cid.Cid) ([]byte, error)
}

// Sink takes IPFS blocks. It may keep the slices. When they are durable is for
// the owner of the sink to say.
type Sink interface {
	Put(ctx context.Context, blocks ...Block) error
}

// Discard is a Sink that keeps nothing: to compute a CID without storing.
var Discard Sink = discard{}

type discard struct{}

func (discard) Put(context.Context, ...Block) error { return nil }

// RawBlock returns the IPFS block of codec raw that holds data.
func RawBlock(data []byte) Block { return newBlock(codecRaw, data) }

func newBlock(codec uint64, data []byte) Block {
	sum := sha256.Sum256(data)
	var c [cidLen]byte
	copy(c[:], []byte{1, byte(codec), mh.SHA2_256, sha256.Size})
	copy(c[cidLen-sha256.Size:], sum[:])
	return Block{CID: mustCast(c[:]), Data: data}
}

// mustCast returns the CID of which b are the bytes, as isSupportedCID says.
func mustCast(b []byte) cid.Cid {
	c, err := cid.Cast(b)
	if err != nil {
		panic(err) // isSupportedCID and go-cid disagree
	}
	return c
}

// cidLen is the length of a CID that CheckCID accepts: version, codec, hash
// function and length of the digest, one byte each, and the digest.
const cidLen = 4 + sha256.Size

// isSupportedCID reports whether b is a CID that CheckCID accepts.
func isSupportedCID[T text](b T) bool {
	return len(b) == cidLen && b[0] == 1 && (b[1] == codecRaw || b[1] == codecPB || b[1] == codecDC) &&
		b[2] == mh.SHA2_256 && b[3] == sha256.Size
}

// codecOf is the codec of a CID that CheckCID accepts; of any other, 0.
func codecOf(c cid.Cid) uint64 {
	if b := c.KeyString(); isSupportedCID(b) {
		return uint64(b[1])
	}
	return 0
}

func (b Block) link() Link { return Link{CID: b.CID, Size: uint64(len(b.Data))} }

// CheckCID reports whether c can name a part of a save point: CIDv1, sha2-256,
// raw, dag-pb or dag-cbor. The error wraps ErrUnsupported.
func CheckCID(c cid.Cid) error {
	if !c.Defined() {
		return fmt.Errorf("%w: no CID", ErrUnsupported)
	}
	p := c.Prefix()
	if p.Version != 1 || p.MhType != mh.SHA2_256 || p.MhLength != sha256.Size {
		return fmt.Errorf("%w: %s is not CIDv1 with sha2-256", ErrUnsupported, c)
	}
	switch p.Codec {
	case codecRaw, codecPB, codecDC:
		return nil
	}
	return fmt.Errorf("%w: codec 0x%x of %s", ErrUnsupported, p.Codec, c)
}

// Check reports whether the block's bytes have the hash that its CID names. The
// error wraps ErrHash or ErrUnsupported.
func (b Block) Check() error {
	if err := CheckCID(b.CID); err != nil {
		return err
	}
	if len(b.Data) > MaxBlockSize {
		return fmt.Errorf("%w: %s has %d bytes, more than %d", ErrUnsupported, b.CID, len(b.Data), MaxBlockSize)
	}
	sum := sha256.Sum256(b.Data)
	digest := b.CID.Hash()[2:] // after function and length, one byte each for sha2-256
	if !bytes.Equal(digest, sum[:]) {
		return fmt.Errorf("%w: %s", ErrHash, b.CID)
	}
	return nil
}
