package peers

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

// manifests is the content of manifests.json.
type manifests struct {
	Accepted []manifest `json:"accepted"`
	Refused  []refused  `json:"refused,omitempty"`
}

// manifest is one golden manifest.
type manifest struct {
	Name  string          `json:"name"`
	Value json.RawMessage `json:"value"` // DAG-JSON
	Hex   string          `json:"hex"`
	CID   string          `json:"cid"`
	By    []string        `json:"by"`
}

// refused is bytes that no reader may take for a manifest.
type refused struct {
	Name  string `json:"name"`
	Hex   string `json:"hex"`
	Error string `json:"error"` // the name of the error in package dag
}

// The fields that every manifest has, in an order that is not that of the
// encoding. STATE stands for the CID of the state.
const required = `
"version": 1,
"profile": "ipfs-savepoint/v1",
"instance": {"/": {"bytes": "AAECAwQFBgcICQoLDA0ODw"}},
"state": {"/": "STATE"},
"totals": {"documents": 6, "bytes": 124},
"consistency": {"method": "snapshot", "consistent": true},
"provider": {"name": "example", "plugins": ["files"]},
"tool": {"name": "ipfs-savepoint", "version": "1.0.0"}`

const (
	minimal = `{` + required + `,
"policy": {"id": "p"}, "triggers": [{"kind": "manual"}],
"sequence": 1, "epoch": 0, "time": "2026-01-02T03:04:05.000000000Z"}`

	full = `{` + required + `,
"policy": {"id": "65f0c2a1b4e8d9f000000001", "name": "Übung", "version": "1.2.3", "topic": "0.0.4242",
  "config": {"/": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"}},
"triggers": [{"kind": "block", "tag": "save_state"}],
"sequence": 4294967296, "epoch": 255, "height": 9007199254740991,
"time": "2026-12-31T23:59:59.999999999Z",
"parent": {"sequence": 4294967295,
  "savepoint": {"/": {"bytes": "AXESIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"}}},
"resources": {"/": "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua"},
"partial": ["collection token_cache", ""],
"secrets": ["HEDERA_OPERATOR_KEY", "vault"],
"encryption": {"scheme": "age", "keyId": "age1example", "names": false},
"labels": {"b": "2", "aa": "", "a": "1", "ключ": "значение"}}`

	triggers = `{` + required + `,
"policy": {"id": "p", "topic": "t"},
"triggers": [{"kind": "interval", "n": 24}, {"kind": "block", "tag": "a"}, {"kind": "block", "tag": "b"},
  {"kind": "catch-up"}, {"kind": "import"}, {"kind": "manual"}],
"sequence": 23, "epoch": 1, "height": 0, "time": "1970-01-01T00:00:00.000000001Z"}`

	sparse = `{` + required + `,
"policy": {"id": "p", "version": "2"}, "triggers": [{"kind": "import"}],
"sequence": 24, "epoch": 65536, "time": "9999-12-31T23:59:59.000000000Z",
"secrets": ["s"], "labels": {"": ""}}`

	unknown = `{` + required + `,
"policy": {"id": "p"}, "triggers": [{"kind": "manual"}],
"sequence": 1, "epoch": 0, "time": "2026-01-02T03:04:05.000000000Z",
"added": {"bb": [1, -1, null, true, "x"], "a": {"/": {"bytes": ""}}, "c": -256},
"an added field whose name is longer than the others": 0}`

	linking = `{` + required + `,
"policy": {"id": "p"}, "triggers": [{"kind": "manual"}],
"sequence": 1, "epoch": 0, "time": "2026-01-02T03:04:05.000000000Z",
"added": {"/": "STATE"}}`
)

func accepted(stateCID string) []manifest {
	var list []manifest
	for _, m := range []struct{ name, value string }{
		{"only the required fields", minimal},
		{"all fields", full},
		{"several triggers", triggers},
		{"some optional fields", sparse},
		{"unknown fields", unknown},
		{"an unknown field that is a link", linking},
	} {
		value := strings.ReplaceAll(m.value, "STATE", stateCID)
		list = append(list, manifest{Name: m.name, Value: json.RawMessage(value), By: []string{"kubo", "js"}})
	}
	return list
}

// refusals damages the manifest with only the required fields. Its map has less
// than 24 fields, so that its first byte is 0xa0 and their number, and its first
// field in the order of the encoding is "time", then "tool", then "epoch".
func refusals(t *testing.T, minimal []byte) []refused {
	t.Helper()
	at := func(key string) int {
		i := bytes.Index(minimal, append([]byte{0x60 + byte(len(key))}, key...))
		if i < 0 {
			t.Fatalf("no %q in %x", key, minimal)
		}
		return i
	}
	body := minimal[1:]
	first, second := minimal[at("time"):at("tool")], minimal[at("tool"):at("epoch")]
	rest := minimal[at("epoch"):]
	// withNote has one more field, before all others.
	withNote := func(value ...byte) []byte {
		return join([]byte{minimal[0] + 1, 0x64}, []byte("note"), value, body)
	}
	// withOptional has one more field, where the order of the encoding has it.
	withOptional := func(key string, value byte, before string) []byte {
		i := at(before)
		return join([]byte{minimal[0] + 1}, minimal[1:i], []byte{0x60 + byte(len(key))}, []byte(key), []byte{value}, minimal[i:])
	}
	replace := func(old, by string) []byte {
		if bytes.Count(minimal, []byte(old)) != 1 {
			t.Fatalf("%q is not once in %x", old, minimal)
		}
		return bytes.Replace(minimal, []byte(old), []byte(by), 1)
	}
	var list []refused
	for _, r := range []struct {
		name string
		data []byte
		err  string
	}{
		{"keys in another order", join(minimal[:1], second, first, rest), "ErrNotCanonical"},
		{"a key twice", join([]byte{minimal[0] + 1}, first, first, second, rest), "ErrNotCanonical"},
		{"a map of indefinite length", join([]byte{0xbf}, body, []byte{0xff}), "ErrNotCanonical"},
		{"the length of a map in two bytes", join([]byte{0xb8, minimal[0] - 0xa0}, body), "ErrNotCanonical"},
		{"an integer in more bytes than it needs", replace("epoch\x00", "epoch\x18\x00"), "ErrNotCanonical"},
		{"a text in pieces", replace("id\x61p", "id\x7f\x61p\xff"), "ErrNotCanonical"},
		{"a float of 16 bits", withNote(0xf9, 0x3c, 0x00), "ErrNotCanonical"},
		{"a float of 32 bits", withNote(0xfa, 0x3f, 0x80, 0, 0), "ErrNotCanonical"},
		{"not a number", withNote(0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0), "ErrNotCanonical"},
		{"the value undefined", withNote(0xf7), "ErrNotCanonical"},
		{"another tag than that of links", withNote(0xc1, 0x00), "ErrNotCanonical"},
		{"an integer below those of 64 bits", withNote(0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "ErrNotCanonical"},
		{"a map with an integer for a key", withNote(0xa1, 0x01, 0x01), "ErrNotCanonical"},
		{"a text that is not UTF-8", withNote(0x61, 0xff), "ErrNotCanonical"},
		{"a byte too many", join(minimal, []byte{0}), "ErrNotCanonical"},
		{"a byte too few", minimal[:len(minimal)-1], "ErrNotCanonical"},
		{"nothing", nil, "ErrNotCanonical"},
		{"version 2", replace("version\x01", "version\x02"), "ErrVersion"},
		{"version 0", replace("version\x01", "version\x00"), "ErrVersion"},
		{"a required field is missing", join([]byte{minimal[0] - 1}, first, rest), "ErrManifest"},
		{"a required field has another type", replace("epoch\x00", "epoch\x60"), "ErrManifest"},
		{"an optional list is present and empty", withOptional("partial", 0x80, "profile"), "ErrManifest"},
		{"an optional map is present and empty", withOptional("labels", 0xa0, "policy"), "ErrManifest"},
		{"an optional text is present and empty", replace("\xa1\x62id\x61p", "\xa2\x62id\x61p\x64name\x60"), "ErrManifest"},
		{"a field too many in an inner map", replace("\xa1\x62id\x61p", "\xa2\x61a\x00\x62id\x61p"), "ErrManifest"},
	} {
		list = append(list, refused{r.name, hex.EncodeToString(r.data), r.err})
	}
	return list
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
