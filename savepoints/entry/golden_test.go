package entry_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// Records that kubo and JavaScript encoded from their descriptions; bench/peers made them.
func TestGoldenEntries(t *testing.T) {
	data, err := os.ReadFile("../../testdata/golden/entries.json")
	must(t, err)
	var all struct {
		Accepted []struct{ Name, Hex string }
	}
	must(t, json.Unmarshal(data, &all))
	types := map[string]bool{}
	for _, g := range all.Accepted {
		record, err := hex.DecodeString(g.Hex)
		must(t, err)
		e, err := entry.Decode(record)
		if err != nil {
			t.Errorf("%s: %v", g.Name, err)
			continue
		}
		again, err := entry.Encode(e)
		must(t, err)
		if !bytes.Equal(again, record) {
			t.Errorf("%s became %x", g.Name, again)
		}
		types[e.Type()] = true
	}
	if len(types) != 7 {
		t.Errorf("types %v", types)
	}
}
