package savepoints

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

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
	policies map[string]*anchor.Policy // by origin; not changed once the bank is open
	replicas *replicas                 // shared by all views of the bank
	keeping  chan struct{}             // holds one token while a receipt and its pin come or go

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

// InitOptions describes the log of a new repository.
type InitOptions struct {
	// Origin names the log; if empty, a name is made from the random id of the
	// instance.
	Origin string
	// Witnesses are those of the trust policy, each as NAME VKEY [URL].
	Witnesses []string
	// Quorum is how many of them must have cosigned a head that counts; more than
	// half of them if 0.
	Quorum int
	// PrivateIDs: the log names policies by a keyed hash of their ids, so that who
	// sees only the log cannot guess them. The key is made with the repository.
	PrivateIDs bool
}

// Init makes a repository with a log of its own in dir, which must be empty or
// absent, or hold a repository that has no log yet: one that was made by restoring
// or following, or whose init was interrupted.
func Init(ctx context.Context, dir string, o InitOptions) (*Bank, error) {
	var instance [16]byte
	if _, err := rand.Read(instance[:]); err != nil {
		return nil, err
	}
	if o.Origin == "" {
		o.Origin = "ipfs-savepoint.invalid/" + hex.EncodeToString(instance[:])
	}
	if err := anchor.CheckOrigin(o.Origin); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	skey, vkey, err := anchor.GenerateKey(o.Origin)
	if err != nil {
		return nil, err
	}
	nameKey, err := node.NewNameKey()
	if err != nil {
		return nil, err
	}
	name, err := node.NameOf(nameKey)
	if err != nil {
		return nil, err
	}
	policy, err := o.policy(vkey, nameScheme+name)
	if err != nil {
		return nil, err
	}
	repo, err := openWithoutLog(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	if err := initLog(ctx, repo, instance, skey, nameKey, policy); err != nil {
		return nil, errors.Join(fmt.Errorf("init %s: %w", dir, err), repo.Close())
	}
	if err := repo.Close(); err != nil {
		return nil, err
	}
	return Open(ctx, dir)
}

// policy is the trust policy of the new log.
func (o InitOptions) policy(vkey, url string) ([]byte, error) {
	text, err := o.trust(vkey, url)
	if err == nil && o.PrivateIDs {
		text = append(text, anchor.PrivateIDsLine...)
	}
	return text, err
}

func (o InitOptions) trust(vkey, url string) ([]byte, error) {
	if len(o.Witnesses) == 0 {
		if o.Quorum != 0 {
			return nil, fmt.Errorf("%w: a quorum of %d, and no witnesses", ErrUsage, o.Quorum)
		}
		return anchor.FormatPolicy(vkey, url), nil
	}
	if o.Quorum == 0 {
		o.Quorum = len(o.Witnesses)/2 + 1
	}
	policy, err := anchor.FormatWitnessedPolicy(vkey, o.Witnesses, o.Quorum, url)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrUsage, err) // not of a policy that somebody gave
	}
	return policy, nil
}

// openWithoutLog makes or opens a repository, and refuses one that has a log, or
// had one: a log whose key is lost must not be forgotten by mistake.
func openWithoutLog(ctx context.Context, dir string) (*node.Repo, error) {
	repo, err := node.Open(ctx, dir)
	if errors.Is(err, node.ErrNoRepo) {
		return node.Create(ctx, dir)
	}
	if err != nil {
		return nil, err
	}
	if err := checkNoLog(ctx, repo); err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	return repo, nil
}

func checkNoLog(ctx context.Context, repo *node.Repo) error {
	_, err := repo.ReadFile(logKeyFile)
	if err == nil {
		return fmt.Errorf("%w: the repository in %s has a log already", node.ErrRepoExists, repo.Dir())
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := repo.ReadFile(trustFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := anchor.ParsePolicy(data)
	if err != nil {
		return nil // cut short by a crash
	}
	h, ok, err := anchor.LoadHead(ctx, logStore{repo.Blocks, repo}, p)
	if err == nil && ok && h.Size > 0 {
		err = fmt.Errorf("%w: the repository in %s had the log %s, whose key is missing", node.ErrRepoExists, repo.Dir(), p.Origin)
	}
	return err
}

func initLog(ctx context.Context, repo *node.Repo, instance [16]byte, skey string, nameKey, policy []byte) error {
	signer, err := anchor.NewSigner(skey)
	if err != nil {
		return err
	}
	p, err := anchor.ParsePolicy(policy)
	if err != nil {
		return err
	}
	if err := repo.WriteFile(instanceFile, []byte(hex.EncodeToString(instance[:])+"\n")); err != nil {
		return err
	}
	if err := repo.WriteFile(nameKeyFile, nameKey); err != nil {
		return err
	}
	if err := repo.WriteFile(trustFile, policy); err != nil {
		return err
	}
	if p.PrivateIDs {
		if err := newPolicyKey(repo); err != nil {
			return err
		}
	}
	if _, err := anchor.Open(ctx, logStore{repo.Blocks, repo}, signer, anchor.Options{Create: true, Policy: p}); err != nil {
		return err
	}
	// The key comes last: without it the repository is a reader's, not a
	// writer's with half a log.
	return repo.WriteFile(logKeyFile, []byte(skey+"\n"))
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
	b := &Bank{repo: repo, store: logStore{repo.Blocks, repo}, policies: map[string]*anchor.Policy{}, taking: make(chan struct{}, 1), keeping: make(chan struct{}, 1)}
	b.replicas = newReplicas(b)
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
	for _, name := range names {
		if _, err := b.loadPolicy(name); err != nil {
			return err
		}
	}
	skey, err := b.repo.ReadFile(logKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if b.own, err = b.loadPolicy(trustFile); err != nil {
		return err
	}
	return b.openLog(ctx, strings.TrimSpace(string(skey)))
}

func (b *Bank) loadPolicy(name string) (*anchor.Policy, error) {
	data, err := b.repo.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("trust policy: %w", err)
	}
	p, err := anchor.ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b.policies[p.Origin] = p
	return p, nil
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
	// A damaged log must not keep anybody from reading the save points, which
	// their receipts prove: take and verify say what is wrong.
	if err := b.ledger.open(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// LogError says why the bank's own log could not be opened; nil if it was, or if the
// bank has none. Save points can be read all the same.
func (b *Bank) LogError() error {
	if b.ledger == nil {
		return nil
	}
	b.taking <- struct{}{}
	defer func() { <-b.taking }()
	return b.ledger.err
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

// Trust returns the bank with one more trust policy in force; b itself is as before.
// Both are one open repository, closed once. Keep makes the policy last. The error
// wraps anchor.ErrPolicy, or ErrTrustConflict if the repository keeps another
// policy for the same log: that is for a person to change.
func (b *Bank) Trust(policy []byte) (*Bank, *anchor.Policy, error) {
	p, err := anchor.ParsePolicy(policy)
	if err != nil {
		return nil, nil, err
	}
	kept, err := b.keptPolicy(p.Origin)
	if err != nil {
		return nil, nil, err
	}
	if kept != nil && string(kept) != string(policy) {
		return nil, nil, fmt.Errorf("%w: %s; the one kept in the repository differs", ErrTrustConflict, p.Origin)
	}
	return b.with(p), p, nil
}

// clone returns another view of the same bank, whose policies can be changed.
func (b *Bank) clone() *Bank {
	c := *b
	c.policies = maps.Clone(b.policies)
	return &c
}

// with returns the bank with a policy in force in place of any other for its log.
func (b *Bank) with(p *anchor.Policy) *Bank {
	c := b.clone()
	c.policies[p.Origin] = p
	return c
}

func (b *Bank) keptPolicy(origin string) ([]byte, error) {
	name := policyName(origin)
	if origin == b.Origin() {
		name = trustFile
	}
	data, err := b.repo.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Keep makes a trust policy part of the repository, for a log that it follows.
func (b *Bank) Keep(policy []byte) error {
	_, p, err := b.Trust(policy)
	if err != nil || p.Origin == b.Origin() {
		return err
	}
	return b.repo.WriteFile(policyName(p.Origin), policy)
}

func policyName(origin string) string { return trustDir + "/" + LogID(origin)[:16] + ".policy" }

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
	seen, ok, seenErr := b.seen(p)
	switch {
	case ok && (err != nil || seen.Size > h.Size):
		return seen, nil
	case err != nil && seenErr != nil:
		return h, seenErr
	}
	return h, err
}

// copyHead returns the newest verified head of a log of which the bank holds a copy.
func (b *Bank) copyHead(ctx context.Context, p *anchor.Policy) (anchor.Head, error) {
	h, ok, err := anchor.LoadHead(ctx, b.store, p)
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
	return anchor.OpenView(ctx, anchor.LocalFetcher(b.store, h.Root), p)
}
