package dag

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// Links returns the CIDs that an IPFS block links to, in the order of its bytes.
// Documents and chunks link to nothing. Nothing is decoded for it; that a state is
// canonical is for [VerifyState] to say. The error wraps ErrNotCanonical or
// ErrUnsupported.
func Links(b Block) ([]cid.Cid, error) {
	var links []cid.Cid
	err := scanLinks(b, func(l rawLink[[]byte]) error {
		links = append(links, mustCast(l.cid))
		return nil
	})
	return links, err
}

// LinkList returns a DAG-CBOR node that is a list of links: many roots as one. The error
// wraps ErrUnsupported if there are too many for an IPFS block.
func LinkList(links []cid.Cid) (Block, error) {
	n, err := qp.BuildList(basicnode.Prototype.Any, int64(len(links)), func(la datamodel.ListAssembler) {
		for _, c := range links {
			qp.ListEntry(la, link(c))
		}
	})
	if err != nil {
		return Block{}, err
	}
	data, err := EncodeCBOR(n)
	if err == nil && len(data) > MaxBlockSize {
		err = fmt.Errorf("%w: a list of %d links is too long", ErrUnsupported, len(links))
	}
	return newBlock(codecDC, data), err
}

// scanLinks calls f for every link of an IPFS block. The name of a link of a
// DAG-CBOR node is its path in the node. What f gets is valid until it returns.
func scanLinks(b Block, f func(rawLink[[]byte]) error) error {
	var err error
	switch codecOf(b.CID) {
	case codecRaw:
		return nil
	case codecPB:
		_, err = scanNode(b.Data, f)
	case codecDC:
		err = scanCBOR(b.Data, f)
	default:
		return CheckCID(b.CID)
	}
	if err != nil {
		return fmt.Errorf("links of %s: %w", b.CID, err)
	}
	return nil
}

func joinPath(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "/" + name
}
