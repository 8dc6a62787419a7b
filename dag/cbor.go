package dag

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// EncodeCBOR returns the canonical DAG-CBOR of n: map keys sorted by length and
// then bytewise, shortest forms, 64-bit floats (DAG-CBOR specification,
// "Strictness"). It refuses texts that are not UTF-8: readers disagree on them.
func EncodeCBOR(n datamodel.Node) ([]byte, error) {
	if err := checkTexts(n); err != nil {
		return nil, fmt.Errorf("encode DAG-CBOR: %w", err)
	}
	var buf bytes.Buffer
	if err := dagcbor.Encode(n, &buf); err != nil {
		return nil, fmt.Errorf("encode DAG-CBOR: %w", err)
	}
	return buf.Bytes(), nil
}

// DecodeCBOR reads DAG-CBOR of at most limit bytes. Whatever the decoder lets
// pass, bytes that differ from the canonical encoding of what was read are
// refused with ErrNotCanonical.
func DecodeCBOR(data []byte, limit int) (datamodel.Node, error) {
	if len(data) > limit {
		return nil, fmt.Errorf("%w: DAG-CBOR of %d bytes, more than %d", ErrUnsupported, len(data), limit)
	}
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(nb, bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("%w: DAG-CBOR: %w", ErrNotCanonical, err)
	}
	n := nb.Build()
	again, err := EncodeCBOR(n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotCanonical, err)
	}
	if !bytes.Equal(again, data) {
		return nil, fmt.Errorf("%w: another DAG-CBOR encoding of the same node", ErrNotCanonical)
	}
	return n, nil
}

// checkTexts looks for texts and map keys that are not UTF-8.
func checkTexts(n datamodel.Node) error {
	switch n.Kind() {
	case datamodel.Kind_String:
		if s, err := n.AsString(); err != nil || !utf8.ValidString(s) {
			return fmt.Errorf("text %.40q is not UTF-8", s)
		}
	case datamodel.Kind_List:
		for it := n.ListIterator(); !it.Done(); {
			_, v, err := it.Next()
			if err != nil {
				return err
			}
			if err := checkTexts(v); err != nil {
				return err
			}
		}
	case datamodel.Kind_Map:
		for it := n.MapIterator(); !it.Done(); {
			k, v, err := it.Next()
			if err != nil {
				return err
			}
			if err := errors.Join(checkTexts(k), checkTexts(v)); err != nil {
				return err
			}
		}
	}
	return nil
}
