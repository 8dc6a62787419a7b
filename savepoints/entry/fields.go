package entry

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// fields is a record that is read, or one that is written: the methods move a field
// between it and a variable. So each type of entry names its fields once. It remembers
// the first error.
type fields struct {
	in    datamodel.Node // nil when writing
	names []string       // of the fields that were moved
	out   []datamodel.Node
	err   error
}

func (f *fields) fail(key string, err error) {
	if f.err == nil {
		f.err = fmt.Errorf("%w: %s: %w", ErrInvalid, key, err)
	}
}

// record returns what was written.
func (f *fields) record() ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	n, err := qp.BuildMap(basicnode.Prototype.Any, int64(len(f.out)), func(ma datamodel.MapAssembler) {
		for i, n := range f.out {
			qp.MapEntry(ma, f.names[i], qp.Node(n))
		}
	})
	var record []byte
	if err == nil {
		record, err = dag.EncodeCBOR(n)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return record, nil
}

// noMore refuses fields that were not read: a reader that overlooked one would believe
// less than was signed.
func (f *fields) noMore() {
	if f.err != nil || f.in.Length() == int64(len(f.names)) {
		return
	}
	for it := f.in.MapIterator(); !it.Done(); {
		k, _, err := it.Next()
		key := ""
		if err == nil {
			key, err = k.AsString()
		}
		if err != nil {
			f.fail("a key", err)
		} else if !slices.Contains(f.names, key) {
			f.fail(key, errors.New("is not a field of it"))
		}
	}
}

// has reports whether an optional field is there, in the record or in the variable.
func (f *fields) has(key string, set bool) bool {
	if f.in == nil {
		return set
	}
	n, err := f.in.LookupByString(key)
	return err == nil && n != nil
}

// move moves one field.
func move[T any](f *fields, key string, v *T, as func(datamodel.Node) (T, error), from func(T) datamodel.Node) {
	f.names = append(f.names, key)
	if f.in == nil {
		f.out = append(f.out, from(*v))
		return
	}
	n, err := f.in.LookupByString(key)
	if err == nil {
		*v, err = as(n)
	}
	if err != nil {
		f.fail(key, err)
	}
}

func (f *fields) text(key string, v *string) {
	move(f, key, v, datamodel.Node.AsString, basicnode.NewString)
}

func (f *fields) bytes(key string, v *[]byte) {
	move(f, key, v, datamodel.Node.AsBytes, basicnode.NewBytes)
}

func (f *fields) integer(key string, v *uint64) {
	as := func(n datamodel.Node) (uint64, error) {
		i, err := n.AsInt()
		if err == nil && i < 0 {
			err = errors.New("is negative")
		}
		return uint64(i), err
	}
	// What does not fit becomes negative, and is refused when it is read again.
	move(f, key, v, as, func(v uint64) datamodel.Node { return basicnode.NewInt(int64(v)) })
}

func (f *fields) positive(key string, v *uint64) {
	f.integer(key, v)
	if *v == 0 {
		f.fail(key, errors.New("is 0"))
	}
}

func (f *fields) optional(key string, v **uint64) {
	if !f.has(key, *v != nil) {
		return
	}
	if *v == nil {
		*v = new(uint64)
	}
	f.integer(key, *v)
}

// exact moves a byte string that has the length of v.
func (f *fields) exact(key string, v []byte) {
	b := v
	f.bytes(key, &b)
	if len(b) != len(v) {
		f.fail(key, fmt.Errorf("has %d bytes, not %d", len(b), len(v)))
		return
	}
	copy(v, b)
}

func (f *fields) time(key string, v *time.Time) {
	text := v.UTC().Format(dag.TimeFormat)
	f.text(key, &text)
	t, err := time.Parse(dag.TimeFormat, text)
	if err != nil || t.Format(dag.TimeFormat) != text {
		f.fail(key, errors.New("is not RFC 3339 in UTC with nanoseconds"))
		return
	}
	*v = t.UTC()
}

func (f *fields) cid(key string, v *cid.Cid, codecs ...uint64) {
	move(f, key, v, func(n datamodel.Node) (cid.Cid, error) { return asCID(n, codecs) }, fromCID)
}

// manifest moves the CID of a manifest.
func (f *fields) manifest(key string, v *cid.Cid) { f.cid(key, v, cid.DagCBOR) }

func (f *fields) cids(key string, v *[]cid.Cid, codecs ...uint64) {
	as := func(n datamodel.Node) ([]cid.Cid, error) {
		if n.Kind() != datamodel.Kind_List {
			return nil, errors.New("is not a list")
		}
		var out []cid.Cid
		for it := n.ListIterator(); !it.Done(); {
			_, item, err := it.Next()
			if err != nil {
				return nil, err
			}
			c, err := asCID(item, codecs)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
		return out, nil
	}
	move(f, key, v, as, func(list []cid.Cid) datamodel.Node {
		n, err := qp.BuildList(basicnode.Prototype.Any, int64(len(list)), func(la datamodel.ListAssembler) {
			for _, c := range list {
				qp.ListEntry(la, qp.Node(fromCID(c)))
			}
		})
		if err != nil {
			f.fail(key, err)
		}
		return n
	})
}

func asCID(n datamodel.Node, codecs []uint64) (cid.Cid, error) {
	b, err := n.AsBytes()
	if err != nil {
		return cid.Undef, err
	}
	c, err := cid.Cast(b)
	if err == nil {
		err = dag.CheckCID(c)
	}
	if err == nil && !slices.Contains(codecs, c.Type()) {
		err = fmt.Errorf("is a CID of codec %#x", c.Type())
	}
	return c, err
}

func fromCID(c cid.Cid) datamodel.Node { return basicnode.NewBytes(c.Bytes()) }

// common moves what every entry has.
func (f *fields) common(e Entry) {
	c := e.common()
	f.text("origin", &c.Origin)
	f.exact("instance", c.Instance[:])
	f.integer("epoch", &c.Epoch)
	f.time("time", &c.Time)
}
