package logs

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// trial is a repository to which faults are done, and what it must hold all the same.
// It is safe for concurrent use, but for judge.
type trial struct {
	t                    testing.TB
	program, dir, source string
	vkey                 string
	witness              *ourWitness   // nil without a quorum
	pace                 time.Duration // of a take

	mu           sync.Mutex
	rand         *rand.Rand
	acknowledged map[string]int64  // the log entry of each save point that a take printed
	heads        map[uint64]string // the root hash of each head that was printed, published or cosigned
}

// newTrial makes a repository with a save point, and a folder of ten documents.
func newTrial(t testing.TB, group int, witnessed bool) *trial {
	t.Helper()
	dir := t.TempDir()
	r := &trial{
		t: t, program: ours(t), dir: filepath.Join(dir, "repo"), source: filepath.Join(dir, "source"),
		rand:         rand.New(rand.NewPCG(*seed, uint64(group))),
		acknowledged: map[string]int64{}, heads: map[uint64]string{},
	}
	for i := range 10 {
		folder := filepath.Join(r.source, fmt.Sprint("collection-", i%3))
		must(t, os.MkdirAll(folder, 0o777))
		must(t, os.WriteFile(filepath.Join(folder, fmt.Sprint(i, ".json")), fmt.Appendf(nil, `{"document":%d}`, i), 0o666))
	}
	args := []string{"init", "--repo", r.dir, "--quiet"}
	if witnessed {
		r.witness = newOurWitness(t)
		args = append(args, "--witness", "w "+r.witness.key+" "+r.witness.url)
	}
	if e, err := execute(r.program, args...); err != nil || e.status != 0 {
		t.Fatalf("init: %d %v\n%s", e.status, err, e.err)
	}
	policy := filepath.Join(r.dir, "trust.policy")
	text, err := os.ReadFile(policy)
	must(t, err)
	r.vkey = keyIn(text)
	if witnessed {
		before := r.witness.url
		r.witness.watch(t, policy)
		must(t, os.WriteFile(policy, bytes.ReplaceAll(text, []byte(before), []byte(r.witness.url)), 0o600))
	}
	began := time.Now()
	out, err := r.run(r.changed()...)
	must(t, err)
	r.pace = time.Since(began)
	r.printed(out)
	return r
}

// origin is the name of the log.
func (r *trial) origin() string { return r.vkey[:strings.Index(r.vkey, "+")] }

// changed is the arguments of a take after a change of a document. Sometimes there is
// no change: then a manifest may be there that a take before could not anchor.
func (r *trial) changed() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.rand.IntN(12); i < 10 {
		path := filepath.Join(r.source, fmt.Sprint("collection-", i%3), fmt.Sprint(i, ".json"))
		must(r.t, os.WriteFile(path, fmt.Appendf(nil, `{"document":%d,"value":%d}`, i, r.rand.Uint64()), 0o666))
	}
	args := []string{"take", r.source, "--repo", r.dir, "--json", "--policy", fmt.Sprint("policy-", r.rand.IntN(2))}
	if r.witness != nil {
		args = append(args, "--wait", "witnessed=20s")
	}
	return args
}

// printed remembers the save points in what takes have printed.
func (r *trial) printed(out string) (cids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(out) {
		var s struct {
			Savepoint string
			LogIndex  int64
		}
		if json.Unmarshal([]byte(line), &s) == nil && s.Savepoint != "" {
			r.acknowledged[s.Savepoint] = s.LogIndex
			cids = append(cids, s.Savepoint)
		}
	}
	return cids
}

// published remembers a head that the repository's log has signed.
func (r *trial) published(checkpoint []byte) error {
	v, err := note.NewVerifier(r.vkey)
	if err != nil {
		return err
	}
	c, _, _, err := log.ParseCheckpoint(checkpoint, r.origin(), v)
	if err != nil {
		return fmt.Errorf("checkpoint %q: %w", checkpoint, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	root := hex.EncodeToString(c.Hash)
	if before, ok := r.heads[c.Size]; ok && before != root {
		return fmt.Errorf("a fork: two heads of size %d, %s and %s", c.Size, before, root)
	}
	r.heads[c.Size] = root
	return nil
}

// run runs a command on the repository that must succeed.
func (r *trial) run(args ...string) (string, error) {
	e, err := execute(r.program, args...)
	if err == nil && e.status != 0 {
		err = fmt.Errorf("%s: status %d: %s%s", strings.Join(args, " "), e.status, e.out, e.err)
	}
	return e.out, err
}

// judge opens the repository and says what is not as it must be: everything that was
// acknowledged is there and whole, the log extends all of its heads, and save points
// can be taken.
func (r *trial) judge() error {
	if err := r.held("after the fault"); err != nil {
		return err
	}
	if err := r.headNow(); err != nil {
		return err
	}
	out, err := r.run(r.changed()...)
	if err != nil {
		return fmt.Errorf("the next take: %w", err)
	}
	if len(r.printed(out)) != 1 {
		return fmt.Errorf("the next take prints %q", out)
	}
	return r.history()
}

// held checks that all is whole and that what was acknowledged is part of it.
func (r *trial) held(when string) error {
	out, err := r.run("verify", "--all", "--json", "--repo", r.dir)
	if err != nil {
		return fmt.Errorf("%s: %w", when, err)
	}
	verified := map[string]bool{}
	for line := range strings.Lines(out) {
		var v struct {
			Savepoint string
			Verified  bool
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			return err
		}
		verified[v.Savepoint] = v.Verified
	}
	for c := range r.acknowledged {
		if !verified[c] {
			return fmt.Errorf("%s: %s was acknowledged and is lost", when, c)
		}
	}
	if _, err := r.run("log", "audit", "--restart", "--repo", r.dir); err != nil {
		return fmt.Errorf("%s: %w", when, err)
	}
	return nil
}

// headNow remembers the head that is printed, and the one that the witness has cosigned.
func (r *trial) headNow() error {
	out, err := r.run("log", "head", "--json", "--repo", r.dir)
	if err != nil {
		return err
	}
	var h struct {
		Checkpoint, RootHash string
		Size                 uint64
	}
	if err := json.Unmarshal([]byte(out), &h); err != nil {
		return err
	}
	if err := r.published([]byte(h.Checkpoint)); err != nil {
		return err
	}
	if root, err := base64.StdEncoding.DecodeString(h.RootHash); err != nil || hex.EncodeToString(root) != r.heads[h.Size] {
		return fmt.Errorf("log head prints %s", out)
	}
	if r.witness == nil {
		return nil
	}
	status, _, checkpoint := get(r.witness.url + "/" + savepoints.LogID(r.origin()) + "/checkpoint")
	if status != 200 {
		return nil // it has not seen the log yet
	}
	return r.published([]byte(checkpoint))
}

// history checks the order of the save points, and all heads ever seen against the
// tree that somebody else's library computes of the entries.
func (r *trial) history() (err error) {
	b, err := savepoints.Open(ctx, r.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	list, err := b.List(ctx, "")
	if err != nil {
		return err
	}
	for c, index := range r.acknowledged {
		if !slices.ContainsFunc(list, func(s savepoints.Savepoint) bool { return s.CID.String() == c && s.LogIndex == index }) {
			return fmt.Errorf("%s is not entry %d any more", c, index)
		}
	}
	if _, err := b.Verify(ctx, list[len(list)-1]); err != nil {
		return fmt.Errorf("the save point just taken: %w", err)
	}
	return r.extends(b)
}

// extends checks that the log's newest head extends all that were seen.
func (r *trial) extends(b *savepoints.Bank) error {
	text, err := b.TrustPolicy()
	if err != nil {
		return err
	}
	p, err := anchor.ParsePolicy(text)
	if err != nil {
		return err
	}
	h, err := b.Head(ctx, "")
	if err != nil {
		return err
	}
	v, err := anchor.OpenView(ctx, anchor.LocalFetcher(b.Repo().Blocks, h.Root), p)
	if err != nil {
		return err
	}
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	roots := map[uint64]string{0: hex.EncodeToString(rfc6962.DefaultHasher.EmptyRoot())}
	for e, err := range v.Entries(ctx, 0) {
		if err == nil {
			err = tree.Append(rfc6962.DefaultHasher.HashLeaf(e.Record), nil)
		}
		if err != nil {
			return err
		}
		root, err := tree.GetRootHash(nil)
		if err != nil {
			return err
		}
		roots[tree.End()] = hex.EncodeToString(root)
	}
	if got := hex.EncodeToString(h.RootHash[:]); uint64(h.Size) != tree.End() || got != roots[tree.End()] {
		return fmt.Errorf("the head of size %d has root %s, its %d entries have %s", h.Size, got, tree.End(), roots[tree.End()])
	}
	for size, root := range r.heads {
		if roots[size] != root {
			return fmt.Errorf("the log of %d entries does not extend the head of size %d with root %s", h.Size, size, root)
		}
	}
	return nil
}

// tally counts outcomes.
type tally struct {
	mu    sync.Mutex
	count map[string]int
}

func (y *tally) add(outcome string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.count == nil {
		y.count = map[string]int{}
	}
	y.count[outcome]++
}

// of is how often an outcome was counted.
func (y *tally) of(outcome string) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.count[outcome]
}

// bad marks the outcomes that may not be.
const bad = "BAD"

// print logs how many runs were bad, and the counts, sorted by outcome.
func (y *tally) print(t testing.TB) {
	t.Helper()
	all, wrong := 0, 0
	for name, n := range y.count {
		if all += n; strings.HasSuffix(name, bad) {
			wrong += n
		}
	}
	t.Logf("%d runs, %d bad", all, wrong)
	y.list(t)
}

// list logs the counts, sorted.
func (y *tally) list(t testing.TB) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(y.count)) {
		t.Logf("%5d  %s", y.count[name], name)
	}
}

// groups runs f for groups of at most 10 of all runs, each with a repository of its own,
// every fourth one with a witness. At the end of each group fsck reads the log.
func groups(t *testing.T, f func(t *testing.T, r *trial, runs int)) {
	const size = 10
	t.Run("groups", func(t *testing.T) {
		for g := 0; g*size < *runs; g++ {
			t.Run(fmt.Sprint(g), func(t *testing.T) {
				t.Parallel()
				r := newTrial(t, g, g%4 == 3)
				f(t, r, min(size, *runs-g*size))
				if t.Failed() {
					return
				}
				b, err := savepoints.Open(ctx, r.dir)
				must(t, err)
				defer b.Close()
				if ok, out := fsck(t, b, serve(t, b), "/tlog/"+savepoints.LogID(b.Origin())+"/"); !ok {
					t.Errorf("fsck: %s", out)
				}
			})
		}
	})
}
