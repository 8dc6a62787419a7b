package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

// liar stands between a reader and a gateway, and does not always pass on what the
// gateway says.
type liar struct {
	target string
	lie    string
	told   atomic.Int64 // how often it has lied
	// stalled is a file that it makes when it falls silent.
	stalled string
}

// cmdProxy starts a liar and puts its URL into an environment variable. LIE is
//
//	flip           flips a bit in the middle of every CAR
//	short          ends every CAR in the middle, as if that were all
//	cut, cut-once  breaks the connection in the middle of every, or the first, CAR
//	500            has an internal error whenever a CAR is asked for
//	stall          falls silent in the middle of a CAR, and makes the file stalled
//	log=URL        shows the log, and its name, of another gateway
func cmdProxy(ts *testscript.TestScript, _ bool, args []string) {
	l := &liar{target: args[1], lie: args[2], stalled: ts.MkAbs("stalled")}
	srv := httptest.NewServer(l)
	ts.Defer(srv.Close)
	ts.Setenv(args[0], srv.URL)
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target, isCAR := l.target, r.URL.Query().Get("format") == "car"
	if other, ok := strings.CutPrefix(l.lie, "log="); ok && (strings.HasPrefix(r.URL.Path, "/tlog/") || strings.HasPrefix(r.URL.Path, "/ipns/")) {
		target = other
	}
	body, err := fetchBody(r.Context(), target+r.URL.RequestURI(), w)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if isCAR {
		l.answerCAR(w, r, body)
		return
	}
	w.Write(body) // the reader may have gone
}

func (l *liar) answerCAR(w http.ResponseWriter, r *http.Request, body []byte) {
	half := len(body) / 2
	first := l.told.Add(1) == 1
	switch {
	case l.lie == "flip":
		body[half] ^= 1
	case l.lie == "short":
		body = body[:half]
	case l.lie == "cut" || l.lie == "cut-once" && first:
		w.Write(body[:half])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case l.lie == "500":
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	case l.lie == "stall":
		w.Write(body[:half])
		http.NewResponseController(w).Flush()
		os.WriteFile(l.stalled, nil, 0o600)
		<-r.Context().Done()
		return
	}
	w.Write(body)
}

// fetchBody gets a URL and copies what matters of its header.
func fetchBody(ctx context.Context, url string, w http.ResponseWriter) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	for _, key := range []string{"Content-Type", "X-Ipfs-Roots", "Cache-Control"} {
		if v := resp.Header.Get(key); v != "" {
			w.Header().Set(key, v)
		}
	}
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		w.WriteHeader(resp.StatusCode)
	}
	return body, err
}
