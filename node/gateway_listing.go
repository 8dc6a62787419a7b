package node

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/ipld/unixfs"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
)

// maxListing is how many entries of a directory are listed. A page of so many takes 80
// MB to make; boxo would make one of any length.
const maxListing = 20_000

// list answers for a directory, and reports whether p is one.
func (b backend) list(ctx context.Context, p path.ImmutablePath) (gateway.ContentPathMetadata, *gateway.GetResponse, bool) {
	md, err := b.ResolvePath(ctx, p)
	if err != nil || md.LastSegment.RootCid().Prefix().Codec != cid.DagProtobuf {
		return md, nil, false
	}
	root, err := b.dag.Get(ctx, md.LastSegment.RootCid())
	if err != nil {
		return md, nil, false
	}
	dir, err := uio.NewDirectoryFromNode(b.dag, root)
	if err != nil { // a file
		return md, nil, false
	}
	size, err := root.Size()
	if err != nil {
		return md, nil, false
	}
	return md, gateway.NewGetResponseFromDirectoryListing(size, limited(ctx, dir.EnumLinksAsync(ctx)), nil), true
}

// limited passes on entries until there are too many, which is 410 for the client: what
// is there and not given. It ends with ctx.
func limited(ctx context.Context, entries <-chan unixfs.LinkResult) <-chan unixfs.LinkResult {
	out := make(chan unixfs.LinkResult)
	go func() {
		defer close(out)
		n := 0
		for e := range entries {
			if n++; n > maxListing {
				err := fmt.Errorf("more than %d entries are not listed here; each can be had by its path, and all with ?format=car", maxListing)
				e = unixfs.LinkResult{Err: gateway.NewErrorStatusCode(err, http.StatusGone)}
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
			if n > maxListing {
				return
			}
		}
	}()
	return out
}
