package pinning

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// Owner is the owner of the pins that requests make.
const Owner = "pinning"

// ErrToken: the digest of a token is not 64 hexadecimal digits.
var ErrToken = errors.New("not the SHA-256 of a token")

// Options says who may ask a Server, and what it does.
type Options struct {
	// Tokens are the SHA-256 digests, in hexadecimal, of the tokens that clients
	// send. Whoever has one sees and deletes the requests of all.
	Tokens []string
	// Peers are sources for every request: multiaddrs that end in /p2p/<peer id>, or
	// URLs of gateways.
	Peers []string
	// Workers is how many DAGs are fetched at a time; 4 if 0.
	Workers int
	// Pauses are those before a request that could not be fulfilled is tried again;
	// 5 s, 30 s and 2 min if nil.
	Pauses []time.Duration
}

// Server answers requests and fulfills them. Close ends it.
type Server struct {
	repo    *node.Repo
	network *node.Network
	tokens  [][sha256.Size]byte
	options Options
	mux     *http.ServeMux

	ctx    context.Context // of all fetches
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond // there may be something to do
	requests []*request // oldest first

	unreadable []error // since Start
}

// Start takes up the requests that the repository keeps, and returns a handler for
// /pins and /pins/<id>. It is closed before the network.
func Start(repo *node.Repo, network *node.Network, o Options) (*Server, error) {
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Pauses == nil {
		o.Pauses = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute}
	}
	s := &Server{repo: repo, network: network, options: o}
	s.changed = sync.NewCond(&s.mu)
	for _, text := range o.Tokens {
		digest, err := hex.DecodeString(text)
		if err != nil || len(digest) != sha256.Size {
			return nil, fmt.Errorf("%w: %.100q", ErrToken, text)
		}
		s.tokens = append(s.tokens, [sha256.Size]byte(digest))
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("pinning: %w", err)
	}
	s.mux = s.routes()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	context.AfterFunc(s.ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})
	for range o.Workers {
		s.wg.Go(s.work)
	}
	return s, nil
}

// Unreadable returns what is wrong with requests that the repository keeps and that could
// not be read at the Start. As long as there are any, no pin is removed.
func (s *Server) Unreadable() []error { return s.unreadable }

// Close ends all fetches and waits for them. They begin anew at the next Start.
func (s *Server) Close() error {
	s.cancel()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.retry != nil {
			r.retry.Stop()
		}
	}
	return nil
}

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pins", s.servePins)
	mux.HandleFunc("POST /pins", s.serveAdd)
	mux.HandleFunc("GET /pins/{id}", func(w http.ResponseWriter, r *http.Request) {
		status, err := s.get(r.PathValue("id"))
		answer(w, http.StatusOK, status, err)
	})
	mux.HandleFunc("POST /pins/{id}", s.serveAdd)
	mux.HandleFunc("DELETE /pins/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusAccepted, nil, s.delete(r.PathValue("id")))
	})
	notAllowed := func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", r.Method+" is not for this")
	}
	mux.HandleFunc("/pins", notAllowed)
	mux.HandleFunc("/pins/{id}", notAllowed)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "NOT_FOUND", "there are /pins and /pins/{requestid}")
	})
	return mux
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(r) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "access token is missing or invalid")
		return
	}
	s.mux.ServeHTTP(w, r)
}

// authorized compares the token with all, in a time that says nothing of them.
func (s *Server) authorized(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, ok := sha256.Sum256([]byte(strings.TrimSpace(token))), 0
	for _, want := range s.tokens {
		ok |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return ok == 1 && strings.EqualFold(scheme, "Bearer")
}

func (s *Server) servePins(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r.URL.Query())
	if err != nil {
		answer(w, 0, nil, err)
		return
	}
	results, count := s.list(f)
	answer(w, http.StatusOK, map[string]any{"count": count, "results": results}, nil)
}

func (s *Server) serveAdd(w http.ResponseWriter, r *http.Request) {
	p, c, err := decodePin(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		answer(w, 0, nil, err)
		return
	}
	status, err := s.add(p, c, r.PathValue("id"))
	answer(w, http.StatusAccepted, status, err)
}

// answer writes a value with its status, or what an error means to a client.
func answer(w http.ResponseWriter, code int, value any, err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
	case errors.As(err, &tooLarge):
		fail(w, http.StatusRequestEntityTooLarge, "REQUEST_TOO_LARGE", err.Error())
		return
	case errors.Is(err, errBad):
		fail(w, http.StatusBadRequest, "BAD_REQUEST", err.Error())
		return
	case errors.Is(err, errNotFound):
		fail(w, http.StatusNotFound, "NOT_FOUND", err.Error())
		return
	case errors.Is(err, errWaiting):
		w.Header().Set("Retry-After", "60")
		fail(w, http.StatusTooManyRequests, "TOO_MANY_REQUESTS", err.Error())
		return
	case errors.Is(err, errFull):
		fail(w, http.StatusConflict, "TOO_MANY_PINS", err.Error())
		return
	case errors.Is(err, errClosed):
		fail(w, http.StatusServiceUnavailable, "STOPPING", err.Error())
		return
	default: // of the repository: what it says is not for strangers
		fail(w, http.StatusInternalServerError, "INTERNAL_SERVER_ERROR", "the repository could not be read or written")
		return
	}
	if value == nil {
		w.WriteHeader(code)
		return
	}
	writeJSON(w, code, value)
}

// fail writes the specification's Failure object.
func fail(w http.ResponseWriter, code int, reason, details string) {
	writeJSON(w, code, map[string]any{"error": map[string]string{"reason": reason, "details": cut(details)}})
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(value) // a client that is gone needs no answer
}
