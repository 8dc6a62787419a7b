package dag

import "math/bits"

// The two numbers of the CID profile ipfs-savepoint/v1 that differ from
// unixfs-v1-2025. docs/formats.md has the measurements they were chosen by.
const (
	// Profile names the rules by which a set of documents becomes a CID.
	Profile = "ipfs-savepoint/v1"
	// Fanout is the number of slots of a HAMT shard.
	Fanout = 16
	// DirectoryThreshold is the length in bytes of the longest basic
	// directory node; a directory that would be longer is a HAMT.
	DirectoryThreshold = 4 << 10
)

// layout is the form of directories. Only the tests that measure other numbers
// use another than profile.
type layout struct {
	fanout    int // a power of two, 8 to 256
	threshold int
	// part is the number of entries that one core lays out at a time; partEntries
	// if 0. What comes out does not depend on it.
	part int
}

var profile = layout{fanout: Fanout, threshold: DirectoryThreshold}

// partEntries keeps all cores busy, and the nodes of few parts in memory at once.
const partEntries = 1024

func (p layout) partLen() int {
	if p.part == 0 {
		return partEntries
	}
	return p.part
}

// hashBits is the length of nameHash.
const hashBits = 64

// width is the number of bits of a hash that choose a slot.
func (p layout) width() int { return bits.Len(uint(p.fanout - 1)) }

// slot is the part of a hash that chooses the slot of a shard after `used` bits,
// counted from the most significant one.
func (p layout) slot(hash uint64, used int) int {
	return int(hash << used >> (hashBits - p.width()))
}

// prefix is how the name of a shard's link begins: the slot in upper-case hex,
// as wide as the largest slot.
func (p layout) prefix(slot int) string {
	if p.prefixLen() == 1 {
		return hexDigits[slot : slot+1]
	}
	return string([]byte{hexDigits[slot>>4], hexDigits[slot&15]})
}

func (p layout) prefixLen() int { return (p.width() + 3) / 4 }

const hexDigits = "0123456789ABCDEF"

// slotIndex is the slot with which the name of a shard's link begins.
func (p layout) slotIndex(name string) (slot int, ok bool) {
	if len(name) < p.prefixLen() {
		return 0, false
	}
	for _, c := range []byte(name[:p.prefixLen()]) {
		switch {
		case '0' <= c && c <= '9':
			slot = slot<<4 | int(c-'0')
		case 'A' <= c && c <= 'F':
			slot = slot<<4 | int(c-'A'+10)
		default:
			return 0, false
		}
	}
	return slot, slot < p.fanout
}

// bitfield is the data of a shard that uses these slots: big-endian, slot 0 the
// lowest bit of the last byte, without leading zero bytes.
type bitfield [256 / 8]byte

func (f *bitfield) set(slot int) { f[len(f)-1-slot/8] |= 1 << (slot % 8) }

func (f *bitfield) bytes() []byte {
	i := 0
	for i < len(f) && f[i] == 0 {
		i++
	}
	return f[i:]
}

// bitfieldOf is the bitfield of a shard with these links.
func (p layout) bitfieldOf(links []pbLink) (f bitfield) {
	for _, l := range links {
		if slot, ok := p.slotIndex(l.Slot); ok {
			f.set(slot)
		}
	}
	return f
}

// position is the place of a shard in a HAMT: the bits of the hash that lead to it.
type position struct {
	bits uint64
	used int
}

func (p layout) below(at position, slot int) position {
	return position{at.bits<<p.width() | uint64(slot), at.used + p.width()}
}

// leads reports whether the hash begins with the bits of the position.
func (at position) leads(hash uint64) bool { return hash>>(hashBits-at.used) == at.bits }
