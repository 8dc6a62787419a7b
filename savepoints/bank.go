package savepoints

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// Files of the repository that this package keeps.
const (
	logKeyFile   = "log.key"
	trustFile    = "trust.policy"
	trustDir     = "trust.d"
	instanceFile = "instance"
	// policyKeyFile has the key under which the ids of policies are private, in
	// hexadecimal.
	policyKeyFile = "policy.key"
)

// Bank is an open repository as the place where save points go, and the trust
// policies by which it believes logs. It is safe for concurrent use; takes happen
// one after the other.
type Bank struct {
	repo     *node.Repo
	store    logStore
	policies map[string]*anchor.Policy   // by origin; not changed once the bank is open
	earlier  map[string][]*anchor.Policy // by origin: all that were kept here; nor are these
	replicas *replicas                   // shared by all views of the bank
	erasures *erasures                   // likewise
	// following is how followers fare; shared too.
	following *following
	keeping   chan struct{} // holds one token while a receipt and its pin come or go
	copying   *turns        // of who brings the copy of a log up; shared by all views
	seeing    *sync.Mutex   // held while the head seen of a log is compared and replaced; shared too

	// What follows is set only in a bank with a log of its own.
	instance [16]byte
	own      *anchor.Policy
	secret   []byte // of policyKeyFile; nil if there is none
	ledger   *ledger
	taking   chan struct{} // holds one token while a take is in progress
}

// logStore is what a log needs of a repository.
type logStore struct {
	*segments.Store
	repo *node.Repo
}

func (s logStore) Head(ctx context.Context, name string) ([]byte, error) {
	return s.repo.Head(ctx, name)
}

func (s logStore) SwapHead(ctx context.Context, name string, old, new []byte) error {
	return s.repo.SwapHead(ctx, name, old, new)
}

// Open opens the repository in dir.
func Open(ctx context.Context, dir string) (*Bank, error) {
	repo, err := node.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	return open(ctx, repo)
}

// OpenReader opens the repository in dir, or makes one there without a log.
func OpenReader(ctx context.Context, dir string) (*Bank, error) {
	repo, err := node.Open(ctx, dir)
	if errors.Is(err, node.ErrNoRepo) {
		repo, err = node.Create(ctx, dir)
	}
	if err != nil {
		return nil, err
	}
	return open(ctx, repo)
}

func open(ctx context.Context, repo *node.Repo) (*Bank, error) {
	b := &Bank{repo: repo, store: logStore{repo.Blocks, repo}, policies: map[string]*anchor.Policy{}, taking: make(chan struct{}, 1), keeping: make(chan struct{}, 1), copying: newTurns(), seeing: new(sync.Mutex)}
	b.replicas = newReplicas(b)
	b.erasures = newErasures(b)
	repo.Gone, repo.Needed = b.erasures.gone, b.needed
	repo.Keeping = b.beginFetching
	b.following = &following{logs: map[string]followedLog{}}
	if err := b.load(ctx); err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	return b, nil
}

func (b *Bank) load(ctx context.Context) error {
	names, err := b.repo.Glob(trustDir + "/*.policy")
	if err != nil {
		return err
	}
	if err := b.loadPolicies(names); err != nil {
		return err
	}
	if b.earlier, err = b.keptPolicies(names); err != nil {
		return err
	}
	skey, err := b.repo.ReadFile(logKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if b.own, _, err = b.loadPolicy(trustFile); err != nil {
		return err
	}
	return b.openLog(ctx, strings.TrimSpace(string(skey)))
}

func (b *Bank) openLog(ctx context.Context, skey string) error {
	signer, err := anchor.NewSigner(skey)
	if err != nil {
		return fmt.Errorf("%s: %w", logKeyFile, err)
	}
	if signer.Name() != b.own.Origin {
		return fmt.Errorf("%w: %s is of log %q, %s of %q", anchor.ErrPolicy, logKeyFile, signer.Name(), trustFile, b.own.Origin)
	}
	id, err := readHex(b.repo, instanceFile, len(b.instance))
	if err != nil {
		return err
	}
	copy(b.instance[:], id)
	b.secret, err = readHex(b.repo, policyKeyFile, entry.SecretSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.ledger = newLedger(b, signer)
	if b.ledger.more, err = nextSigner(b.repo, signer); err != nil {
		return err
	}
	if !b.ledger.signs(b.own.Key()) {
		return fmt.Errorf("%w: neither %s nor %s is the key that %s names", anchor.ErrPolicy, logKeyFile, nextKeyFile, trustFile)
	}
	// A damaged log must not keep anybody from reading the save points, which
	// their receipts prove: take and verify say what is wrong.
	err = b.ledger.open(ctx)
	if err == nil {
		// What cannot be finished now is for Erase and Collect to tell of.
		b.ledger.resumeErasing(ctx)
	}
	return ctx.Err()
}

// LogError says why the bank's own log could not be opened, or must be opened again; nil
// if neither, or if the bank has none. Save points can be read all the same. It waits for
// nothing.
func (b *Bank) LogError() error {
	if b.ledger == nil {
		return nil
	}
	return b.ledger.err()
}

// Close releases the repository.
func (b *Bank) Close() error { return b.repo.Close() }

// Repo is the bank's repository.
func (b *Bank) Repo() *node.Repo { return b.repo }

// Origin is the name of the bank's own log; empty if it has none.
func (b *Bank) Origin() string {
	if b.own == nil {
		return ""
	}
	return b.own.Origin
}

// TrustPolicy returns the bytes of the policy by which others believe the bank's
// own log.
func (b *Bank) TrustPolicy() ([]byte, error) {
	if b.own == nil {
		return nil, ErrNoLogKey
	}
	return b.repo.ReadFile(trustFile)
}

// LogID is the name of a log in URLs: the SHA-256 of its origin in hexadecimal.
func LogID(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(sum[:])
}

// Policies returns the trust policies in force, sorted by origin.
func (b *Bank) Policies() []*anchor.Policy {
	var out []*anchor.Policy
	for _, p := range b.policies {
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y *anchor.Policy) int { return strings.Compare(x.Origin, y.Origin) })
	return out
}

// receiptPolicy is the policy by which the bank believes its own receipts: those of
// its own log are there before witnesses have seen the entry.
func (b *Bank) receiptPolicy(origin string) (*anchor.Policy, error) {
	p, err := b.policy(origin)
	if err == nil && origin == b.Origin() {
		p = p.KeyOnly()
	}
	return p, err
}

// naming says how a log names policies.
func (b *Bank) naming(origin string) entry.Naming {
	p, ok := b.policies[origin]
	n := entry.Naming{Private: ok && p.PrivateIDs}
	if origin == b.Origin() {
		n.Secret = b.secret
	}
	return n
}

func (b *Bank) policy(origin string) (*anchor.Policy, error) {
	p, ok := b.policies[origin]
	if !ok {
		return nil, fmt.Errorf("%w for log %q", ErrNoTrust, origin)
	}
	return p, nil
}

// Head returns the newest verified head of a log that the bank knows; the bank's
// own if origin is empty. Its Root is undefined if the bank has no copy of the log.
func (b *Bank) Head(ctx context.Context, origin string) (anchor.Head, error) {
	if origin == "" {
		if b.own == nil {
			return anchor.Head{}, fmt.Errorf("%w: say which log", ErrNoLogKey)
		}
		origin = b.own.Origin
	}
	p, err := b.policy(origin)
	if err != nil {
		return anchor.Head{}, err
	}
	h, err := b.copyHead(ctx, p)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return h, err
	}
	before, seenErr := b.seen(p)
	seen := before.largest()
	switch {
	case seen.Checkpoint != nil && (err != nil || seen.Size > h.Size):
		return seen, nil
	case err != nil && seenErr != nil:
		return h, seenErr
	}
	return h, err
}

// copyHead returns the newest verified head of a log of which the bank holds a copy.
func (b *Bank) copyHead(ctx context.Context, p *anchor.Policy) (anchor.Head, error) {
	h, ok, err := anchor.LoadHead(ctx, b.store, p, b.earlier[p.Origin]...)
	if err == nil && !ok {
		err = fmt.Errorf("%w: nothing of log %q", ErrNotFound, p.Origin)
	}
	return h, err
}

// LogRoot finds the newest verified root of a log by its LogID.
func (b *Bank) LogRoot(ctx context.Context, id string) (cid.Cid, bool) {
	for _, p := range b.Policies() {
		if LogID(p.Origin) == id {
			h, err := b.copyHead(ctx, p)
			return h.Root, err == nil
		}
	}
	return cid.Undef, false
}

// view opens the bank's verified copy of a log; of its own log all that is signed,
// whether witnesses have seen it or not.
func (b *Bank) view(ctx context.Context, p *anchor.Policy) (*anchor.View, error) {
	if p.Origin == b.Origin() {
		if h, ok := b.ledger.head(); ok {
			return anchor.OpenView(ctx, anchor.LocalFetcher(b.store, h.Root), p.KeyOnly())
		}
	}
	h, err := b.copyHead(ctx, p)
	if err != nil {
		return nil, err
	}
	return anchor.OpenView(ctx, anchor.LocalFetcher(b.store, h.Root), b.accepting(p, h))
}
