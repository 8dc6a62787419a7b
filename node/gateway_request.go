package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// gatewayRequest is what handler and backend have to tell each other about a request,
// which boxo has no words for.
type gatewayRequest struct {
	// head: nobody wants the body. To write a CAR that nobody gets would be to read
	// the whole DAG.
	head bool
	// cut: a CAR could not be written to its end.
	cut bool
	// from is where the part of a document begins that the answer's header announces.
	from int64
}

type gatewayRequestKey struct{}

// requestOf returns the request that ctx belongs to.
func requestOf(ctx context.Context) *gatewayRequest {
	if r, ok := ctx.Value(gatewayRequestKey{}).(*gatewayRequest); ok {
		return r
	}
	return &gatewayRequest{}
}

// prepared wraps boxo's handler. An answer that could not be finished ends with the
// connection, which every client and proxy takes for what it is; boxo would end it as
// if it were whole, with a text in it, which readers of CARs take for a forgery. A
// range of another unit than bytes, or for another method than GET, is no range (RFC
// 9110, section 14.2).
func prepared(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := &gatewayRequest{head: r.Method == http.MethodHead}
		r = r.Clone(context.WithValue(r.Context(), gatewayRequestKey{}, req))
		if req.head || !strings.HasPrefix(r.Header.Get("Range"), "bytes=") {
			r.Header.Del("Range")
		}
		out := &cutWriter{ResponseWriter: w, req: req}
		next.ServeHTTP(out, r)
		if req.cut {
			if out.wrote { // what was read is good
				http.NewResponseController(w).Flush()
			}
			panic(http.ErrAbortHandler) // net/http closes the connection
		}
	})
}

// cutWriter takes nothing more once an answer is cut.
type cutWriter struct {
	http.ResponseWriter
	req   *gatewayRequest
	wrote bool
}

func (w *cutWriter) WriteHeader(code int) {
	if code == http.StatusPartialContent {
		fmt.Sscanf(w.Header().Get("Content-Range"), "bytes %d-", &w.req.from)
	}
	if code >= http.StatusBadRequest && strings.Contains(w.Header().Get("Cache-Control"), "max-age") {
		// What failed today need not be kept for as long as what succeeds.
		w.Header().Del("Cache-Control")
		w.Header().Del("Etag")
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.req.cut {
		return 0, io.ErrClosedPipe
	}
	if w.req.head { // else net/http would take what is written for all there is
		return len(p), nil
	}
	w.wrote = w.wrote || len(p) > 0
	return w.ResponseWriter.Write(p)
}

func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
