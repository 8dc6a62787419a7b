package node

import (
	"context"
	"net/http"
	"strings"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
)

// gatewayRequests is how many requests the gateway serves at a time, of whatever it has
// over HTTP and over libp2p; others get 429.
const gatewayRequests = 256

// LogRoot returns the newest verified root of the log that the hexadecimal
// SHA-256 of its origin names, and false if the node holds no such log. A nil
// LogRoot knows none.
type LogRoot func(ctx context.Context, hex string) (cid.Cid, bool)

// Gateway returns the HTTP handler of the IPFS gateway over the repository:
//
//	/ipfs/<cid>[/path]        path and trustless gateway (specs.ipfs.tech/http-gateways)
//	/ipns/<name>[/path]       what the record of the name says that the repository
//	                          holds, and the record itself; domains are not resolved
//	/tlog/<hex>/<path>        a live tlog-tiles prefix (C2SP tlog-tiles) of a log;
//	                          its root CID is in X-Ipfs-Roots
//
// It is offline: a request never causes a fetch from the network. What is not here is
// 404, and 410 if it was erased (see [Repo.Gone]). Web pages from elsewhere may read /ipfs/ and /ipns/, as the specification
// wants it, and so need to know a CID or name; they may not read /tlog/.
func (r *Repo) Gateway(logs LogRoot) (http.Handler, error) {
	bs := blockstore.NewIdStore(withGone{readOnly{r.Blocks}, r})
	service := blockservice.New(bs, offline.Exchange(bs))
	boxo, err := gateway.NewBlocksBackend(service)
	if err != nil {
		return nil, err
	}
	ipfs := prepared(gateway.NewHandler(gateway.Config{
		DeserializedResponses: true,
		NoDNSLink:             true,
		DisableHTMLErrors:     true,
		DeprecatedXIpfsPath:   true, // the specification still has it
		MaxRequestDuration:    requestLimit,
	}, backend{boxo, bs, merkledag.NewDAGService(service), r}))
	open := gateway.NewHeaders(nil).WithDeprecatedXIpfsPath().ApplyCors().Wrap(ipfs)
	mux := http.NewServeMux()
	mux.Handle("/ipfs/", open)
	mux.Handle("/ipns/", quoteEtags(open))
	mux.HandleFunc("/tlog/", func(w http.ResponseWriter, req *http.Request) {
		serveLog(w, req, ipfs, logs)
	})
	return mux, nil
}

// serveLog answers for a log under its newest root: one request sees one root.
func serveLog(w http.ResponseWriter, req *http.Request, ipfs http.Handler, logs LogRoot) {
	hex, path, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/tlog/"), "/")
	var root cid.Cid
	ok := logs != nil
	if ok {
		root, ok = logs(req.Context(), hex)
	}
	if !ok {
		http.Error(w, "this node holds no such log", http.StatusNotFound)
		return
	}
	inner := req.Clone(req.Context())
	inner.URL.Path, inner.URL.RawPath = "/ipfs/"+root.String()+"/"+path, ""
	inner.RequestURI = inner.URL.RequestURI()
	// The root changes with the log, so what lies under the prefix may be kept
	// only where tlog-tiles says so: full tiles.
	if !strings.HasPrefix(path, "tile/") || strings.Contains(path, ".p/") {
		w = &noCache{ResponseWriter: w}
		inner.Header.Del("If-None-Match")
	}
	ipfs.ServeHTTP(w, inner)
}

// noCache keeps the answer out of caches.
type noCache struct {
	http.ResponseWriter
	done bool
}

func (w *noCache) WriteHeader(code int) {
	if !w.done {
		w.done = true
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Del("Etag")
		w.Header().Del("Last-Modified")
		w.Header().Del("Ipfs-Uri")
		w.Header().Del("X-Ipfs-Path")
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *noCache) Write(b []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

func (w *noCache) Unwrap() http.ResponseWriter { return w.ResponseWriter }
