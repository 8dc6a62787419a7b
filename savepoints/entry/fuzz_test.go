package entry_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// Whatever the bytes are: an error of a known kind, or an entry that is written
// in the same bytes if it has no field that this version does not know.
func FuzzDecode(f *testing.F) {
	record, err := hex.DecodeString(golden)
	must(f, err)
	f.Add(record)
	f.Add([]byte{0xa0})
	f.Add(append([]byte{0xab, 0x61, 'u', 0x01}, record[1:]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := entry.Decode(data)
		if err != nil {
			if !errors.Is(err, entry.ErrInvalid) && !errors.Is(err, entry.ErrUnknownType) {
				t.Fatalf("unknown kind of error: %v", err)
			}
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("decoded and not encoded: %v", err)
		}
		if len(again) > len(data) || len(again) == len(data) && !bytes.Equal(again, data) {
			t.Fatalf("%x became %x", data, again)
		}
		if got, err := entry.Decode(again); err != nil || !equal(got, s) {
			t.Fatalf("%+v became %+v, %v", s, got, err)
		}
	})
}
