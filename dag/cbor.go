package dag

import (
	"bytes"
	"fmt"

	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// EncodeCBOR returns the canonical DAG-CBOR of n: map keys sorted by length and
// then bytewise, shortest forms, 64-bit floats (DAG-CBOR specification,
// "Strictness").
func EncodeCBOR(n datamodel.Node) ([]byte, error) {
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
