package entry_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// Whatever the bytes are: an error of a known kind, or an entry that is written
// in the same bytes.
func FuzzDecode(f *testing.F) {
	record, err := hex.DecodeString(golden)
	must(f, err)
	f.Add(record)
	f.Add([]byte{0xa0})
	f.Add(append([]byte{0xab, 0x61, 'u', 0x01}, record[1:]...))
	for _, e := range samples() {
		record, err := entry.Encode(e)
		must(f, err)
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := entry.Decode(data)
		if err != nil {
			if e != nil || !errors.Is(err, entry.ErrInvalid) && !errors.Is(err, entry.ErrUnknownType) {
				t.Fatalf("unknown kind of error: %v", err)
			}
			return
		}
		again, err := entry.Encode(e)
		if err != nil {
			t.Fatalf("decoded and not encoded: %v", err)
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("%x became %x", data, again)
		}
		// Nothing that can be read upsets the rules.
		h := entry.NewHistory(e.Base().Origin)
		if err := h.Add(0, e); err != nil && !errors.Is(err, entry.ErrRule) {
			t.Fatalf("as the first entry: %v", err)
		}
	})
}
