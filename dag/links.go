package dag

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/traversal"
)

// Links returns the CIDs that an IPFS block links to, in the order of its bytes.
// Documents and chunks link to nothing.
func Links(b Block) ([]cid.Cid, error) {
	switch b.CID.Prefix().Codec {
	case codecRaw:
		return nil, nil
	case codecPB:
		n, err := decodeNode(b.Data)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", b.CID, err)
		}
		links := make([]cid.Cid, len(n.links))
		for i, l := range n.links {
			links[i] = l.CID
		}
		return links, nil
	case codecDC:
		return cborLinks(b)
	}
	return nil, CheckCID(b.CID)
}

func cborLinks(b Block) ([]cid.Cid, error) {
	n, err := DecodeCBOR(b.Data, MaxManifestSize)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", b.CID, err)
	}
	found, err := traversal.SelectLinks(n)
	if err != nil {
		return nil, fmt.Errorf("links of %s: %w", b.CID, err)
	}
	var links []cid.Cid
	for _, l := range found {
		c, err := cid.Cast([]byte(l.Binary()))
		if err != nil {
			return nil, fmt.Errorf("links of %s: %w", b.CID, err)
		}
		if err := CheckCID(c); err != nil {
			return nil, fmt.Errorf("links of %s: %w", b.CID, err)
		}
		links = append(links, c)
	}
	return links, nil
}

// Has tells which IPFS blocks are there without reading them.
type Has interface {
	Has(ctx context.Context, c cid.Cid) (bool, error)
}

// Missing returns the IPFS blocks of the DAG at root that src has not, each
// once, in depth-first order: what is below a missing node is not known yet.
// Raw blocks are asked for, not read.
func Missing(ctx context.Context, src interface {
	Source
	Has
}, root cid.Cid) ([]cid.Cid, error) {
	var missing []cid.Cid
	err := walkDAG(ctx, []cid.Cid{root}, func(c cid.Cid) ([]cid.Cid, error) {
		if c.Prefix().Codec == codecRaw {
			ok, err := src.Has(ctx, c)
			if err == nil && !ok {
				missing = append(missing, c)
			}
			return nil, err
		}
		data, err := src.Get(ctx, c)
		if errors.Is(err, ErrNotFound) {
			missing = append(missing, c)
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return Links(Block{c, data})
	})
	return missing, err
}

// ReadAll reads every IPFS block of the DAG at root once, so that src checks it.
func ReadAll(ctx context.Context, src Source, root cid.Cid) error {
	return walkDAG(ctx, []cid.Cid{root}, func(c cid.Cid) ([]cid.Cid, error) {
		data, err := src.Get(ctx, c)
		if err != nil {
			return nil, err
		}
		return Links(Block{c, data})
	})
}

// walkDAG visits every node of the DAGs at roots once, parents first, depth
// first, in the order of the links. visit returns the links of a node.
func walkDAG(ctx context.Context, roots []cid.Cid, visit func(cid.Cid) ([]cid.Cid, error)) error {
	seen := make(map[cid.Cid]struct{})
	stack := make([]cid.Cid, 0, len(roots))
	push := func(cs []cid.Cid) {
		for i := len(cs) - 1; i >= 0; i-- {
			stack = append(stack, cs[i])
		}
	}
	push(roots)
	for len(stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if _, ok := seen[c]; ok {
			continue
		}
		seen[c] = struct{}{}
		if err := CheckCID(c); err != nil {
			return err
		}
		links, err := visit(c)
		if err != nil {
			return err
		}
		push(links)
	}
	return nil
}
