package node

import (
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/go-cid"
)

const (
	// gatewayTimeout bounds how long the gateway looks for an IPFS block.
	gatewayTimeout = 30 * time.Second
	// gatewayRequests is how many requests the gateway serves at a time; others
	// get 429.
	gatewayRequests = 256
)

// LogRoot returns the newest verified root of the log that the hexadecimal
// SHA-256 of its origin names, and false if the node holds no such log. A nil
// LogRoot knows none.
type LogRoot func(hex string) (cid.Cid, bool)

// Gateway returns the HTTP handler of the IPFS gateway over the repository:
//
//	/ipfs/<cid>[/path]        path and trustless gateway (raw, CAR)
//	/tlog/<hex>/<path>        a live tlog-tiles prefix (C2SP tlog-tiles) of a log;
//	                          its root CID is in X-Ipfs-Roots
//
// It is offline: a request never causes a fetch from the network.
func (r *Repo) Gateway(logs LogRoot) (http.Handler, error) {
	bs := readOnly{r.Blocks}
	backend, err := gateway.NewBlocksBackend(blockservice.New(bs, offline.Exchange(bs)))
	if err != nil {
		return nil, err
	}
	ipfs := gateway.NewHandler(gateway.Config{
		DeserializedResponses: true,
		NoDNSLink:             true,
		DisableHTMLErrors:     true,
		RetrievalTimeout:      gatewayTimeout,
		MaxConcurrentRequests: gatewayRequests,
	}, carBackend{backend, r.Blocks})
	mux := http.NewServeMux()
	mux.Handle("/ipfs/", ipfs)
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
		root, ok = logs(hex)
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
