package dag

import (
	"encoding/binary"
	"math/bits"
	"testing"
	"unicode/utf8"
)

const (
	murmurC1 = 0x87c37b91114253d5
	murmurC2 = 0x4cf5ad432745937f
)

// collidingNames returns two names of 32 bytes with equal murmur3-x64-128: for
// any first block of 16 bytes there is a second block that leads to the same
// state, since each round can be run backwards. Both must be usable names, so it
// tries first blocks until they are.
func collidingNames(t testing.TB) (string, string) {
	t.Helper()
	target := murmurRound([2]uint64{}, []byte("aaaaaaaaaaaaaaaa"))
	target = murmurRound(target, []byte("bbbbbbbbbbbbbbbb"))
	const a = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb"
	first := []byte("cccccccc00000000")
	for i := uint64(0); i < 1<<26; i++ {
		for j := range 8 { // base 64 of printable bytes
			first[8+j] = byte('0' + (i>>(6*j))&63)
		}
		second := unround(murmurRound([2]uint64{}, first), target)
		b := append(first[:16:16], second...)
		if utf8.Valid(second) && CheckName(string(b)) == nil {
			if nameHash(a) != nameHash(string(b)) {
				t.Fatalf("%q and %q should collide", a, b)
			}
			return a, string(b)
		}
	}
	t.Fatal("no colliding names found")
	return "", ""
}

// murmurRound takes one block of 16 bytes into the state.
func murmurRound(h [2]uint64, block []byte) [2]uint64 {
	k1, k2 := binary.LittleEndian.Uint64(block), binary.LittleEndian.Uint64(block[8:])
	h[0] ^= bits.RotateLeft64(k1*murmurC1, 31) * murmurC2
	h[0] = (bits.RotateLeft64(h[0], 27)+h[1])*5 + 0x52dce729
	h[1] ^= bits.RotateLeft64(k2*murmurC2, 33) * murmurC1
	h[1] = (bits.RotateLeft64(h[1], 31)+h[0])*5 + 0x38495ab5
	return h
}

// unround returns the block that leads from one state to another.
func unround(from, to [2]uint64) []byte {
	inv5, inv1, inv2 := inverse(5), inverse(murmurC1), inverse(murmurC2)
	h2 := bits.RotateLeft64((to[1]-0x38495ab5)*inv5-to[0], -31)
	h1 := bits.RotateLeft64((to[0]-0x52dce729)*inv5-from[1], -27)
	k1 := bits.RotateLeft64((h1^from[0])*inv2, -31) * inv1
	k2 := bits.RotateLeft64((h2^from[1])*inv1, -33) * inv2
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, k1), k2)
}

// inverse of an odd number modulo 2^64, by Newton's iteration.
func inverse(x uint64) uint64 {
	y := x
	for range 6 {
		y *= 2 - x*y
	}
	return y
}
