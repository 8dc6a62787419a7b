package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// HeadPrefix is what the names begin with under which a [Server] keeps heads.
const HeadPrefix = "witness-"

// Heads keeps what a witness has cosigned, under names of letters, digits and "-".
// Both methods are safe for concurrent use.
type Heads interface {
	// Head returns the bytes last stored under name; nil, nil if there are none.
	Head(ctx context.Context, name string) ([]byte, error)
	// SwapHead durably replaces the bytes under name if they equal old, where nil
	// stands for none.
	SwapHead(ctx context.Context, name string, old, new []byte) error
}

// ServerOptions configures a [Server]. Who asks more often than it says gets 429.
type ServerOptions struct {
	// Rate is how many heads a second that make a log's tree grow are cosigned, for each
	// log, on average; DefaultRate if 0. Its newest head may be shown again as often as
	// anybody likes: it is signed once a second at most.
	Rate float64
	// Burst is how many may come at once; DefaultBurst if 0.
	Burst int
	// AddressRate is how many requests a second are looked at from each address, of IPv6
	// from each /64, on average; DefaultAddressRate if 0. Behind a proxy all come from
	// its address, and the proxy has to be the one that limits.
	AddressRate float64
	// AddressBurst is how many may come from an address at once; DefaultAddressBurst if 0.
	AddressBurst int
}

const (
	DefaultRate         = 10.0   // heads a second for each log
	DefaultBurst        = 100    // heads
	DefaultAddressRate  = 1000.0 // requests a second from each address: a tenth of what a core verifies
	DefaultAddressBurst = 1000   // requests
)

func (o ServerOptions) withDefaults() ServerOptions {
	if o.Rate == 0 {
		o.Rate = DefaultRate
	}
	if o.Burst == 0 {
		o.Burst = DefaultBurst
	}
	if o.AddressRate == 0 {
		o.AddressRate = DefaultAddressRate
	}
	if o.AddressBurst == 0 {
		o.AddressBurst = DefaultAddressBurst
	}
	return o
}

// Server is a witness. It is an http.Handler for
//
//	POST /add-checkpoint
//	GET  /<hex SHA-256 of an origin>/checkpoint
//
// and safe for concurrent use.
type Server struct {
	signer    *torchwood.CosignatureSigner
	heads     Heads
	o         ServerOptions
	logs      map[string]*log // by origin; not changed
	addresses *addresses
	mux       *http.ServeMux
}

// log is a log that is witnessed.
type log struct {
	verifiers note.Verifiers
	name      string // in heads
	growing   bucket // of heads that only the log can make

	mu sync.Mutex // held from the look at what was cosigned last to its replacement
}

// NewServer returns the witness of the logs whose keys are given. Several keys of one
// name are of one log: each of them may sign its heads.
func NewServer(signer *torchwood.CosignatureSigner, heads Heads, keys []note.Verifier, o ServerOptions) *Server {
	s := &Server{
		signer: signer, heads: heads, o: o.withDefaults(),
		logs: map[string]*log{}, addresses: newAddresses(), mux: http.NewServeMux(),
	}
	byOrigin := map[string][]note.Verifier{}
	for _, k := range keys {
		byOrigin[k.Name()] = append(byOrigin[k.Name()], k)
	}
	for origin, keys := range byOrigin {
		s.logs[origin] = &log{verifiers: note.VerifierList(keys...), name: HeadPrefix + originHash(origin)}
	}
	s.mux.HandleFunc("POST /add-checkpoint", s.serveAdd)
	s.mux.HandleFunc("GET /{origin}/checkpoint", s.serveLatest)
	return s
}

func originHash(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(sum[:])
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.addresses.of(r.RemoteAddr).take(time.Now(), s.o.AddressRate, s.o.AddressBurst) {
		http.Error(w, "too many requests from this address", http.StatusTooManyRequests)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// Key is the witness's public key, for the witness lines of trust policies.
func (s *Server) Key() string { return s.signer.Verifier().String() }

// refusal is an answer that is no cosignature.
type refusal struct {
	status int
	err    error
	size   int64 // of 409: what was cosigned last
}

func (r *refusal) Error() string { return r.err.Error() }

func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, err: fmt.Errorf(format, args...)}
}

func (s *Server) serveAdd(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "request cannot be read, or is too long", http.StatusBadRequest)
		return
	}
	lines, err := s.add(r.Context(), body)
	var no *refusal
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write(lines)
	case errors.As(err, &no) && no.status == http.StatusConflict:
		w.Header().Set("Content-Type", sizeType)
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, "%d\n", no.size)
	case errors.As(err, &no):
		http.Error(w, no.Error(), no.status)
	default:
		http.Error(w, "the witness cannot keep its state", http.StatusInternalServerError)
	}
}

// add answers add-checkpoint: signature lines, or a *refusal, or an error of Heads.
func (s *Server) add(ctx context.Context, body []byte) ([]byte, error) {
	r, err := parseRequest(body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	origin, _, _ := strings.Cut(string(r.checkpoint), "\n")
	l, ok := s.logs[origin]
	if !ok {
		return nil, refuse(http.StatusNotFound, "unknown log")
	}
	n, c, err := l.open(r.checkpoint)
	if err != nil {
		return nil, err
	}
	if r.old > c.N {
		return nil, refuse(http.StatusBadRequest, "old size %d is more than the checkpoint's %d", r.old, c.N)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last, err := s.latest(ctx, l)
	if err != nil {
		return nil, err
	}
	if last.N != r.old {
		return nil, &refusal{http.StatusConflict, errors.New("another size was cosigned last"), last.N}
	}
	if err := consistent(r, last.Tree, c.Tree); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "%w", err)
	}
	now := time.Now()
	switch {
	case last.text == n.Text && last.current(now):
		return signatureLine(last.own), nil
	case last.N != c.N && !l.growing.take(now, s.o.Rate, s.o.Burst):
		return nil, refuse(http.StatusTooManyRequests, "too many heads of this log")
	}
	return s.cosign(ctx, l, n, last.stored)
}

// open verifies that a checkpoint is the log's.
func (l *log) open(checkpoint []byte) (*note.Note, torchwood.Checkpoint, error) {
	var none torchwood.Checkpoint
	n, err := note.Open(checkpoint, l.verifiers)
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified) || errors.As(err, &invalid):
		return nil, none, refuse(http.StatusForbidden, "not signed by a key of this log")
	case err != nil:
		return nil, none, refuse(http.StatusBadRequest, "malformed checkpoint")
	}
	c, err := torchwood.ParseCheckpoint(n.Text)
	if err != nil || c.String() != n.Text || c.N > maxSize {
		return nil, none, refuse(http.StatusBadRequest, "malformed checkpoint")
	}
	return n, c, nil
}

// consistent reports whether the tree extends the one that was cosigned last.
func consistent(r request, last, next tlog.Tree) error {
	switch {
	case next.N == 0 && next.Hash != tlog.Hash(sha256.Sum256(nil)):
		return errors.New("an empty tree of another root than the empty tree's")
	case last.N == 0 && len(r.proof) > 0:
		return errors.New("a proof where none is needed")
	case last.N == 0:
		return nil
	case last.N == next.N && (last.Hash != next.Hash || len(r.proof) > 0):
		return errors.New("another tree of the size that was cosigned last")
	case last.N == next.N:
		return nil
	}
	if err := tlog.CheckTree(r.proof, next.N, next.Hash, last.N, last.Hash); err != nil {
		return errors.New("the checkpoint is not proven to extend the one that was cosigned last")
	}
	return nil
}

// cosigned is what was cosigned last of a log; zero if nothing was.
type cosigned struct {
	stored []byte
	text   string // that was signed
	tlog.Tree
	own note.Signature
}

// current reports whether signing anew would give the same cosignature: they tell seconds.
// If each repetition of a public head were signed and kept, anybody could keep the witness
// busy, and use up what the log itself needs.
func (c cosigned) current(now time.Time) bool {
	at, err := torchwood.CosignatureTimestamp(c.own)
	return err == nil && at == now.Unix()
}

func (s *Server) latest(ctx context.Context, l *log) (cosigned, error) {
	stored, err := s.heads.Head(ctx, l.name)
	if err != nil || stored == nil {
		return cosigned{}, err
	}
	n, err := note.Open(stored, note.VerifierList(s.signer.Verifier()))
	if err != nil {
		return cosigned{}, fmt.Errorf("stored checkpoint %s: %w", l.name, err)
	}
	c, err := torchwood.ParseCheckpoint(n.Text)
	return cosigned{stored, n.Text, c.Tree, n.Sigs[0]}, err
}

// cosign signs a checkpoint, keeps it durably, and returns the signature lines. The
// caller holds the log's mu.
func (s *Server) cosign(ctx context.Context, l *log, n *note.Note, old []byte) ([]byte, error) {
	signed, err := note.Sign(&note.Note{Text: n.Text}, s.signer)
	if err != nil {
		return nil, err
	}
	own := bytes.TrimPrefix(signed, []byte(n.Text+"\n"))
	// Only what was verified is kept: the log's signatures, then ours.
	keep := []byte(n.Text + "\n")
	for _, sig := range n.Sigs {
		keep = append(keep, signatureLine(sig)...)
	}
	if err := s.heads.SwapHead(ctx, l.name, old, append(keep, own...)); err != nil {
		return nil, fmt.Errorf("keep checkpoint %s: %w", l.name, err)
	}
	return own, nil
}

func signatureLine(s note.Signature) []byte {
	return fmt.Appendf(nil, "\u2014 %s %s\n", s.Name, s.Base64)
}

func (s *Server) serveLatest(w http.ResponseWriter, r *http.Request) {
	for origin, l := range s.logs {
		if originHash(origin) != r.PathValue("origin") {
			continue
		}
		last, err := s.latest(r.Context(), l)
		if err != nil {
			http.Error(w, "the witness cannot read its state", http.StatusInternalServerError)
			return
		}
		if last.stored != nil {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-cache")
			w.Write(last.stored)
			return
		}
	}
	http.Error(w, "nothing of this log was cosigned", http.StatusNotFound)
}
