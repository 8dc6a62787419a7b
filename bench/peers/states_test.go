package peers

import (
	"fmt"
	"strings"
)

// document is the content of one document, in one of three ways.
type document struct {
	Text    *string  `json:"text,omitempty"`
	Base64  []byte   `json:"base64,omitempty"`
	Pattern *pattern `json:"pattern,omitempty"`
}

// pattern is the content that only has a length: the high bytes of a linear
// congruential generator whose first state is the length.
type pattern struct {
	Length int `json:"length"`
}

func (d document) bytes() []byte {
	switch {
	case d.Text != nil:
		return []byte(*d.Text)
	case d.Pattern != nil:
		return d.Pattern.bytes()
	}
	return d.Base64
}

func (p pattern) bytes() []byte {
	b := make([]byte, p.Length)
	x := uint32(p.Length)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func text(s string) document    { return document{Text: &s} }
func generated(n int) document  { return document{Pattern: &pattern{n}} }
func binary(b ...byte) document { return document{Base64: b} }

// state is one golden state.
type state struct {
	Name      string              `json:"name"`
	Documents map[string]document `json:"documents"`
	CID       string              `json:"cid"`
	By        []string            `json:"by"`
	// NotJS says why JavaScript's CID is another one.
	NotJS string `json:"notJS,omitempty"`
}

// The states whose CIDs are golden. A link to a document of less than 128 bytes
// adds 44 bytes and its name to a directory node of otherwise 4 bytes, so that
// names of 31 bytes make 54 documents the last basic directory.
func states() []state {
	threshold := numbered("", 54, 31)
	exact, over := numbered("", 53, 31), numbered("", 53, 31)
	exact[strings.Repeat("x", 31+42)] = text("{}") // 4,096 bytes
	over[strings.Repeat("x", 31+43)] = text("{}")  // 4,097 bytes
	return []state{
		{Name: "no document", Documents: map[string]document{}},
		{Name: "one document", Documents: map[string]document{"a.json": text(`{"id":"a"}`)}},
		{Name: "an empty document", Documents: map[string]document{"empty": text("")}},
		{Name: nested, Documents: map[string]document{
			"policy/config.json":            text(`{"name":"example"}`),
			"policy/roles/auditor.json":     text(`{"role":"auditor"}`),
			"vc_document/0001.json":         text(`{"credential":1}`),
			"vc_document/0002.json":         text(`{"credential":2}`),
			"vc_document/archive/0001.json": text(`{"credential":1,"revoked":true}`),
			"README":                        text("Saved by ipfs-savepoint.\n"),
		}},
		{Name: "equal documents in several collections", Documents: map[string]document{
			"a/x.json": text("{}"), "a/y.json": text("{}"), "b/x.json": text("{}"), "b/y.json": text("{}"),
			"c/a/x.json": text("{}"), "c/a/y.json": text("{}"),
		}},
		{Name: "sixteen names deep", Documents: map[string]document{
			strings.Repeat("d/", 15) + "document": text("deep"),
			"d/d/d/document":                      text("less deep"),
		}},
		{Name: "unusual names", Documents: map[string]document{
			" leading and trailing ":  text("spaces"),
			".hidden":                 text("dotfile"),
			".hidden.d/...":           text("three dots"),
			"-rf":                     text("an option"),
			"%41?b=c#d&e+f":           text("a URL"),
			"quote\"'`$*":             text("a shell"),
			"line\nbreak\ttab":        text("control characters"),
			"übung/Ä.json":            text("NFC"),
			"cafe\u0301":              text("NFD"),
			"日本語/文書.json":             text("CJK"),
			"🙂":                       text("outside the BMP"),
			strings.Repeat("n", 255):  text("255 bytes"),
			"binary":                  binary(0, 0xff, 0xfe, '\r', '\n', 0x80),
			"__proto__/constructor.x": text("JavaScript"),
		}},
		{Name: "a backslash at the end of a name", Documents: map[string]document{`a\/b`: text("x"), "a/b": text("y")},
			NotJS: "ipfs-unixfs-importer takes a slash after a backslash for a part of the name"},
		{Name: "53 documents", Documents: numbered("", 53, 31)},
		{Name: "54 documents, the last basic directory", Documents: threshold},
		{Name: "55 documents, the first HAMT", Documents: numbered("", 55, 31)},
		{Name: "a directory node of exactly 4096 bytes", Documents: exact},
		{Name: "a directory node that would have 4097 bytes", Documents: over},
		{Name: "17 documents with names of 250 bytes", Documents: numbered("", 17, 250)},
		{Name: "300 documents in a collection", Documents: numbered("vc_document/", 300, 29)},
		{Name: "60 collections", Documents: collections(60),
			NotJS: "ipfs-unixfs-importer decides on a HAMT before it knows the sizes of collections, and counts them as nothing"},
		{Name: "around one chunk", Documents: map[string]document{
			"below": generated(1<<20 - 1), "exact": generated(1 << 20), "above": generated(1<<20 + 1),
		}},
	}
}

// nested is the name of the state that the golden manifests link to.
const nested = "nested collections"

// numbered returns n documents below prefix, with names of the given length.
func numbered(prefix string, n, length int) map[string]document {
	documents := map[string]document{}
	for i := range n {
		name := fmt.Sprintf("%0*x.json", length-len(".json"), i*7919)
		documents[prefix+name] = text(fmt.Sprintf(`{"n":%d}`, i))
	}
	return documents
}

func collections(n int) map[string]document {
	documents := map[string]document{}
	for i := range n {
		documents[fmt.Sprintf("collection-%016d/document.json", i)] = text(fmt.Sprintf(`{"n":%d}`, i))
	}
	return documents
}
