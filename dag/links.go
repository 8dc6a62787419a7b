package dag

import (
	"fmt"
	"strconv"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// Links returns the CIDs that an IPFS block links to, in the order of its bytes.
// Documents and chunks link to nothing. It does not decode what links do not
// depend on; see [VerifyState] for whether a state is canonical.
func Links(b Block) ([]cid.Cid, error) {
	var links []cid.Cid
	err := scanLinks(b, func(l rawLink[[]byte]) error {
		links = append(links, mustCast(l.cid))
		return nil
	})
	return links, err
}

// scanLinks calls f for every link of an IPFS block. The name of a link of a
// DAG-CBOR node is its path in the node.
func scanLinks(b Block, f func(rawLink[[]byte]) error) error {
	var err error
	switch codecOf(b.CID) {
	case codecRaw:
		return nil
	case codecPB:
		if _, err = scanNode(b.Data, f); err == nil {
			return nil
		}
	case codecDC:
		var n datamodel.Node
		if n, err = DecodeCBOR(b.Data, MaxManifestSize); err == nil {
			err = scanCBOR(n, "", f)
		}
	default:
		return CheckCID(b.CID)
	}
	if err != nil {
		return fmt.Errorf("links of %s: %w", b.CID, err)
	}
	return nil
}

// scanCBOR calls f for every link of a node and of the nodes in it.
func scanCBOR(n datamodel.Node, path string, f func(rawLink[[]byte]) error) error {
	switch n.Kind() {
	case datamodel.Kind_Link:
		l, err := n.AsLink()
		if err != nil {
			return err
		}
		cl, ok := l.(cidlink.Link)
		if !ok {
			return fmt.Errorf("%w: a link that is not a CID", ErrUnsupported)
		}
		if err := CheckCID(cl.Cid); err != nil {
			return err
		}
		return f(rawLink[[]byte]{cid: cl.Cid.Bytes(), name: []byte(path)})
	case datamodel.Kind_List:
		for it := n.ListIterator(); !it.Done(); {
			i, v, err := it.Next()
			if err != nil {
				return err
			}
			if err := scanCBOR(v, joinPath(path, strconv.FormatInt(i, 10)), f); err != nil {
				return err
			}
		}
	case datamodel.Kind_Map:
		for it := n.MapIterator(); !it.Done(); {
			k, v, err := it.Next()
			if err != nil {
				return err
			}
			key, err := k.AsString()
			if err != nil {
				return err
			}
			if err := scanCBOR(v, joinPath(path, key), f); err != nil {
				return err
			}
		}
	}
	return nil
}

func joinPath(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "/" + name
}
