package dag

import (
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// reader takes the fields of a map one by one and remembers the first error, so
// that a decoder reads like the schema.
type reader struct {
	parent *reader
	path   string
	n      datamodel.Node
	keys   []string // not taken yet, in the order of the encoding
	err    error
}

func newReader(n datamodel.Node, path string) *reader {
	r := &reader{path: path, n: n}
	if n == nil || n.Kind() != datamodel.Kind_Map {
		r.err = fmt.Errorf("%w: %s is not a map", ErrManifest, orRoot(path))
		return r
	}
	for it := n.MapIterator(); !it.Done(); {
		k, _, err := it.Next()
		if err != nil {
			r.err = fmt.Errorf("%w: %w", ErrManifest, err)
			return r
		}
		key, err := k.AsString()
		if err != nil {
			r.err = fmt.Errorf("%w: %w", ErrManifest, err)
			return r
		}
		r.keys = append(r.keys, key)
	}
	return r
}

func orRoot(path string) string {
	if path == "" {
		return "the node"
	}
	return path
}

func (r *reader) fail(key, why string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s%s %s", ErrManifest, r.path, key, why)
	}
}

func (r *reader) has(key string) bool { return r.err == nil && slices.Contains(r.keys, key) }

// take returns the value of a field that must be there, or nil after an error.
func (r *reader) take(key string) datamodel.Node {
	if r.err != nil {
		return nil
	}
	i := slices.Index(r.keys, key)
	if i < 0 {
		r.fail(key, "is missing")
		return nil
	}
	r.keys = slices.Delete(r.keys, i, i+1)
	v, err := r.n.LookupByString(key)
	if err != nil {
		r.fail(key, err.Error())
		return nil
	}
	return v
}

// as converts a field by one of the data model's As methods.
func as[T any](r *reader, key string, convert func(datamodel.Node) (T, error)) T {
	var zero T
	n := r.take(key)
	if n == nil {
		return zero
	}
	v, err := convert(n)
	if err != nil {
		r.fail(key, "is of kind "+n.Kind().String())
		return zero
	}
	return v
}

func (r *reader) text(key string) string  { return as(r, key, datamodel.Node.AsString) }
func (r *reader) bytes(key string) []byte { return as(r, key, datamodel.Node.AsBytes) }
func (r *reader) bool(key string) bool    { return as(r, key, datamodel.Node.AsBool) }

func (r *reader) uint(key string) uint64 {
	v := as(r, key, datamodel.Node.AsInt)
	if v < 0 {
		r.fail(key, "is negative")
	}
	return uint64(v)
}

// optText reads an optional text. An empty one is refused: absent is the only
// way to say nothing.
func (r *reader) optText(key string) string {
	if !r.has(key) {
		return ""
	}
	s := r.text(key)
	if s == "" {
		r.fail(key, "is present and empty")
	}
	return s
}

func (r *reader) optUint(key string) uint64 {
	if !r.has(key) {
		return 0
	}
	v := r.uint(key)
	if v == 0 {
		r.fail(key, "is present and 0")
	}
	return v
}

func (r *reader) link(key string) cid.Cid {
	l := as(r, key, datamodel.Node.AsLink)
	cl, ok := l.(cidlink.Link)
	if !ok {
		r.fail(key, "is not a CID")
		return cid.Undef
	}
	if err := CheckCID(cl.Cid); err != nil {
		r.fail(key, err.Error())
	}
	return cl.Cid
}

// binaryCID reads a CID that is a byte string, not a link.
func (r *reader) binaryCID(key string) cid.Cid {
	c, err := cid.Cast(r.bytes(key))
	if err == nil {
		err = CheckCID(c)
	}
	if err != nil {
		r.fail(key, "is not a CID in binary")
	}
	return c
}

func (r *reader) texts(key string) []string {
	n := r.take(key)
	if n == nil {
		return nil
	}
	if n.Kind() != datamodel.Kind_List {
		r.fail(key, "is not a list")
		return nil
	}
	list := []string{}
	for it := n.ListIterator(); !it.Done(); {
		_, v, err := it.Next()
		if err == nil {
			var s string
			s, err = v.AsString()
			list = append(list, s)
		}
		if err != nil {
			r.fail(key, "is not a list of texts")
			return nil
		}
	}
	return list
}

// someTexts reads the list of an optional field. An empty one is refused, as an
// empty text is.
func (r *reader) someTexts(key string) []string {
	list := r.texts(key)
	if r.err == nil && len(list) == 0 {
		r.fail(key, "is present and empty")
	}
	return list
}

func (r *reader) sub(key string) *reader {
	n := r.take(key)
	s := newReader(n, r.path+key+".")
	s.parent = r
	if r.err != nil {
		s.err = r.err
	}
	return s
}

func (r *reader) list(key string) []*reader {
	n := r.take(key)
	if n == nil || n.Kind() != datamodel.Kind_List {
		r.fail(key, "is not a list")
		return nil
	}
	var list []*reader
	for it := n.ListIterator(); !it.Done(); {
		i, v, err := it.Next()
		if err != nil {
			r.fail(key, err.Error())
			return nil
		}
		list = append(list, newReader(v, fmt.Sprintf("%s%s[%d].", r.path, key, i)))
	}
	return list
}

// close takes over the errors of the readers of inner maps. A field that is not
// known there is refused: minor versions add fields only at the top.
func (r *reader) close(subs ...*reader) {
	for _, s := range subs {
		if s.err == nil && len(s.keys) > 0 {
			s.fail(s.keys[0], "is not known")
		}
		if r.err == nil {
			r.err = s.err
		}
	}
}

// rest returns the fields that were not taken.
func (r *reader) rest() []extraField {
	var out []extraField
	for _, k := range slices.Clone(r.keys) {
		out = append(out, extraField{k, r.take(k)})
	}
	return out
}
