package publish

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs/go-cid"
)

// prefix is the tlog-tiles prefix of a log on a gateway: an anchor.Fetcher.
type prefix struct {
	url    string
	client *http.Client

	mu   sync.Mutex
	root cid.Cid // of which the checkpoint was read
}

// ReadEndpoint implements anchor.Fetcher.
func (p *prefix) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(p.url, "/")+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %s", path, res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, anchor.MaxEndpointSize+1))
	if err == nil && len(body) > anchor.MaxEndpointSize {
		err = fmt.Errorf("%s: more than %d bytes", path, anchor.MaxEndpointSize)
	}
	if err == nil && path == "checkpoint" {
		p.setRoot(res.Header.Get("X-Ipfs-Roots"))
	}
	return body, err
}

// setRoot takes the root from a list of the CIDs on a path. Nobody signed it: it is a
// place to look, for readers who check what they find.
func (p *prefix) setRoot(roots string) {
	first, _, _ := strings.Cut(roots, ",")
	root, err := cid.Decode(first)
	if err != nil {
		root = cid.Undef
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.root = root
}

func (p *prefix) logRoot() cid.Cid {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.root
}
