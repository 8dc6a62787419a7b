package anchor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

var errInjected = errors.New("input/output error")

// memStore is a Store in memory. Blocks survive a crash only after Sync.
type memStore struct {
	mu      sync.Mutex
	durable map[cid.Cid][]byte
	pending map[cid.Cid][]byte
	heads   map[string][]byte

	ops    int  // changes so far
	failAt int  // the change that fails, from 1; 0 is none
	late   bool // it fails after its effect, or the half of it, and not before
}

func newMemStore() *memStore {
	return &memStore{durable: map[cid.Cid][]byte{}, pending: map[cid.Cid][]byte{}, heads: map[string][]byte{}}
}

// fault counts a change and tells whether it is the one to fail.
func (s *memStore) fault() bool {
	s.ops++
	return s.ops == s.failAt
}

func (s *memStore) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.pending[c]
	if !ok {
		b, ok = s.durable[c]
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", c, dag.ErrNotFound)
	}
	return b, dag.Block{CID: c, Data: b}.Check()
}

// Put keeps the slices that it gets: a log must not change them later.
func (s *memStore) Put(ctx context.Context, blocks ...dag.Block) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := s.fault()
	for i, b := range blocks {
		if fail && (!s.late || i > len(blocks)/2) {
			break
		}
		s.pending[b.CID] = b.Data
	}
	if fail {
		return errInjected
	}
	return nil
}

func (s *memStore) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := s.fault()
	if !fail || s.late {
		maps.Copy(s.durable, s.pending)
		clear(s.pending)
	}
	if fail {
		return errInjected
	}
	return nil
}

func (s *memStore) Head(_ context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.heads[name]), nil
}

func (s *memStore) SwapHead(ctx context.Context, name string, old, new []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := s.fault()
	if !bytes.Equal(s.heads[name], old) {
		return errors.New("head is another one")
	}
	if !fail || s.late {
		s.heads[name] = bytes.Clone(new)
	}
	if fail {
		return errInjected
	}
	return nil
}

// check fails the test if a block was changed after it was put.
func (s *memStore) check(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, blocks := range []map[cid.Cid][]byte{s.durable, s.pending} {
		for c, b := range blocks {
			must(t, dag.Block{CID: c, Data: b}.Check())
		}
	}
}

// crash forgets what was not synced.
func (s *memStore) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.pending)
	s.ops, s.failAt = 0, 0
}

// clone returns a store that holds the same durable data.
func (s *memStore) clone() *memStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newMemStore()
	for k, v := range s.durable {
		c.durable[k] = bytes.Clone(v)
	}
	for k, v := range s.heads {
		c.heads[k] = bytes.Clone(v)
	}
	return c
}

// key is a log's key in the forms that tests need.
type key struct {
	signer anchor.Signer
	vkey   string
	policy *anchor.Policy
}

func newKey(t testing.TB, origin string) key {
	t.Helper()
	skey, vkey, err := anchor.GenerateKey(origin)
	must(t, err)
	signer, err := anchor.NewSigner(skey)
	must(t, err)
	return key{signer, vkey, parsePolicy(t, string(anchor.FormatPolicy(vkey)))}
}

func parsePolicy(t testing.TB, text string) *anchor.Policy {
	t.Helper()
	p, err := anchor.ParsePolicy([]byte(text))
	must(t, err)
	return p
}

func create(t testing.TB, s anchor.Store, k key) *anchor.Log {
	t.Helper()
	l, err := anchor.Open(context.Background(), s, k.signer, anchor.Options{Create: true})
	must(t, err)
	return l
}

func reopen(t testing.TB, s anchor.Store, k key) *anchor.Log {
	t.Helper()
	l, err := anchor.Open(context.Background(), s, k.signer, anchor.Options{})
	must(t, err)
	return l
}

func view(t testing.TB, s anchor.Store, h anchor.Head, k key) *anchor.View {
	t.Helper()
	v, err := anchor.OpenView(context.Background(), anchor.LocalFetcher(s, h.Root), k.policy)
	must(t, err)
	return v
}

// entries reads a whole log.
func entries(t testing.TB, v *anchor.View) [][]byte {
	t.Helper()
	var out [][]byte
	for e, err := range v.Entries(context.Background(), 0) {
		must(t, err)
		if e.Index != int64(len(out)) {
			t.Fatalf("entry %d comes as number %d", e.Index, len(out))
		}
		out = append(out, e.Record)
	}
	return out
}

// filled returns a log of n records "record 0", "record 1" and so on.
func filled(t testing.TB, s anchor.Store, k key, n int) *anchor.Log {
	t.Helper()
	l := create(t, s, k)
	if n > 0 {
		_, _, err := l.AppendAll(context.Background(), numbered(0, n))
		must(t, err)
	}
	return l
}

func numbered(from, n int) (records [][]byte) {
	for i := from; i < from+n; i++ {
		records = append(records, fmt.Appendf(nil, "record %d", i))
	}
	return records
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want one that is %q", err, want)
	}
}
