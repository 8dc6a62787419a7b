package node

import (
	"net/http"
	"time"
)

const (
	// requestLimit bounds a request, however much it asks for.
	requestLimit = time.Hour
	// writeLimit is how long a client may take nothing of an answer. It must take
	// writePiece in that time.
	writeLimit = 30 * time.Second
	writePiece = 64 << 10
	// bodyLimit is how long a client may take to send the body of a request.
	bodyLimit = 10 * time.Second
)

// places are those for requests that are served at a time.
type places chan struct{}

// limit refuses requests that find no place, before anything is done for them.
func (p places) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case p <- struct{}{}:
			defer func() { <-p }()
			next.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "60")
			http.Error(w, "too many requests at a time", http.StatusTooManyRequests)
		}
	})
}

// unhurried ends the answers to clients that do not read them, or that announce a body
// and do not send it: net/http would wait for them for as long as they like.
func unhurried(next http.Handler, limit time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &timedWriter{ResponseWriter: w, conn: http.NewResponseController(w), limit: limit, end: time.Now().Add(requestLimit)}
		t.extend()
		if r.ContentLength != 0 {
			// An error is of a connection that knows no deadlines, as in a test.
			t.conn.SetReadDeadline(time.Now().Add(min(bodyLimit, limit)))
		}
		next.ServeHTTP(t, r)
		t.extend() // for what is still buffered
	})
}

// timedWriter gives each piece of an answer a time to be sent.
type timedWriter struct {
	http.ResponseWriter
	conn  *http.ResponseController
	limit time.Duration
	end   time.Time
	last  time.Time // when the deadline was set
}

// extend moves the deadline, not more often than is worth its cost.
func (w *timedWriter) extend() {
	now := time.Now()
	if now.Sub(w.last) < w.limit/16 {
		return
	}
	w.last = now
	deadline := now.Add(w.limit)
	if deadline.After(w.end) {
		deadline = w.end
	}
	w.conn.SetWriteDeadline(deadline)
}

func (w *timedWriter) Write(p []byte) (int, error) {
	written := 0
	for {
		w.extend()
		n, err := w.ResponseWriter.Write(p[:min(len(p), writePiece)])
		written += n
		p = p[n:]
		if err != nil || len(p) == 0 {
			return written, err
		}
	}
}

func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
