package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

var (
	// ErrPending: a target has taken a DAG on and does not have all of it yet.
	ErrPending = errors.New("not finished yet")
	// ErrNotYet: a target takes files, and of the item there can be none yet.
	ErrNotYet = errors.New("not ready to be replicated")
	// ErrRefused: a target was reached and does not do what it was asked for.
	ErrRefused = errors.New("target refuses")
	// ErrToken: a token file that cannot be used.
	ErrToken = errors.New("token file")
)

// Item is a DAG that is to be replicated.
type Item struct {
	Root cid.Cid
	// Name is for people who look at a target: 1 to 150 of A-Z a-z 0-9 . _ - %.
	Name string
	// Previous is the root of a DAG that resembles it and may be at the target
	// already; cid.Undef if there is none.
	Previous cid.Cid
	// Roots are those of the CAR file that Write writes: the DAG, and
	// whatever else makes the file useful alone. The first one is Root.
	Roots []cid.Cid
	// Without are those of the DAG's IPFS blocks that Write does not write, since they
	// were erased on purpose. A target that keeps whole DAGs only then refuses; one that
	// has more than Write gives keeps it.
	Without []cid.Cid
	Write   func(ctx context.Context, w io.Writer) error
	// NotYet, if not nil, is why there can be no such file yet: Roots and Write are nil.
	// A target that takes the DAG alone does without.
	NotYet error
}

// Target is a place to bring DAGs to. Its methods are safe for concurrent use.
type Target interface {
	Name() string
	// Push brings an item there, and returns nil when the target has it and keeps
	// it. It may be repeated. The error wraps node.ErrUnreachable if another item
	// would fare no better.
	Push(ctx context.Context, item Item) error
	// Places returns who should hold the item, to be asked for its IPFS blocks.
	Places(ctx context.Context, item Item) ([]Place, error)
}

// Host is the node as peers see it, while it listens.
type Host interface {
	// Addresses are its multiaddrs, with peer id.
	Addresses() []string
	// Admit lets the peers at these multiaddrs read until release is called, once.
	Admit(addrs []string) (release func())
	// Connect connects to one of the peers at these multiaddrs.
	Connect(ctx context.Context, addrs []string) error
}

// hosts holds the Host, if the node listens.
type hosts struct {
	mu   sync.Mutex
	host Host
}

func (h *hosts) set(host Host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.host = host
}

func (h *hosts) get() Host {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.host
}

// newTarget makes the target that a table of config.toml describes.
func newTarget(repo *node.Repo, r node.Replica, h *hosts) Target {
	token := tokenFile(inRepo(repo, r.TokenFile))
	switch r.Kind {
	case node.ReplicaFolder:
		return &folder{name: r.Name, dir: inRepo(repo, r.Path)}
	case node.ReplicaKubo:
		return newKubo(r, repo.Blocks, token)
	}
	return newPinningService(repo, r, h, token)
}

// inRepo makes a path of config.toml absolute.
func inRepo(repo *node.Repo, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(repo.Dir(), path)
}

// tokenFile is the path of a file with a bearer token; empty if there is none.
type tokenFile string

// maxToken bounds what is read of a token file.
const maxToken = 8 << 10

// read returns the token, or "" if there is no file. No error holds any of it.
func (t tokenFile) read() (string, error) {
	if t == "" {
		return "", nil
	}
	st, err := os.Stat(string(t)) // to open another kind of file could take for ever
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%w %s: others than its owner may read it, or it is no file (chmod 600 helps)", ErrToken, string(t))
	}
	f, err := os.Open(string(t))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	token := strings.TrimSpace(string(data))
	bad := func(r rune) bool { return r <= ' ' || r > '~' }
	if token == "" || len(data) > maxToken || strings.ContainsFunc(token, bad) {
		return "", fmt.Errorf("%w %s: it does not hold one token", ErrToken, string(t))
	}
	return token, nil
}

// dialTimeout bounds how long a connection may take.
const dialTimeout = 10 * time.Second

// newTransport is that of a client of an API. What an API answers is not followed to
// other places, and a token not shown there.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	t.TLSHandshakeTimeout = dialTimeout
	return t
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// unreachable wraps an error of a request that got no answer.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the URL, which is long and known
	}
	return fmt.Errorf("%w: %w", node.ErrUnreachable, err)
}

// refuseWithout says of an item that is not whole that a target cannot keep it.
func refuseWithout(item Item) error {
	if len(item.Without) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d IPFS blocks of %s were erased on purpose, and only whole DAGs can be pinned", ErrRefused, len(item.Without), item.Root)
}

// asAnswer is the error of an HTTP status other than 200: of the whole target, or of
// what it was asked for.
func asAnswer(status int, text string) error {
	if text == "" {
		text = http.StatusText(status)
	}
	kind := ErrRefused
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		kind = node.ErrUnreachable
	}
	return fmt.Errorf("%w: it answers %d: %s", kind, status, text)
}
