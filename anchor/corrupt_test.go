package anchor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// fetcher answers from another one, with some paths replaced.
type fetcher struct {
	anchor.Fetcher
	replace map[string]func([]byte) ([]byte, error)
}

func (f fetcher) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	b, err := f.Fetcher.ReadEndpoint(ctx, path)
	if r, ok := f.replace[path]; ok && err == nil {
		return r(bytes.Clone(b))
	}
	return b, err
}

func flip(at int) func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b[(at+len(b))%len(b)] ^= 1
		return b, nil
	}
}

func replaced(f anchor.Fetcher, path string, by func([]byte) ([]byte, error)) anchor.Fetcher {
	return fetcher{f, map[string]func([]byte) ([]byte, error){path: by}}
}

// readAll opens a view, reads everything and proves the first record.
func readAll(f anchor.Fetcher, p *anchor.Policy) error {
	v, err := anchor.OpenView(ctx, f, p)
	if err != nil {
		return err
	}
	var first []byte
	for e, err := range v.Entries(ctx, 0) {
		if err != nil {
			return err
		}
		if e.Index == 0 {
			first = e.Record
		}
	}
	_, err = v.Prove(ctx, 0, first)
	return err
}

func TestWrongBytesFromFetcher(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/wrong")
	h := filled(t, store, k, 600).Head()
	good := anchor.LocalFetcher(store, h.Root)
	must(t, readAll(good, k.policy))
	unreachable := errors.New("connection refused")
	truncate := func(b []byte) ([]byte, error) { return b[:len(b)-1], nil }
	lengthen := func(b []byte) ([]byte, error) { return append(b, 0), nil }
	huge := func([]byte) ([]byte, error) { return make([]byte, anchor.MaxEndpointSize+1), nil }
	absent := func([]byte) ([]byte, error) { return nil, unreachable }
	for _, path := range []string{"tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/001", "tile/entries/002.p/88", "checkpoint"} {
		_, err := good.ReadEndpoint(ctx, path)
		must(t, err)
		want := anchor.ErrCorrupt
		if path == "checkpoint" {
			want = anchor.ErrUntrusted
		}
		for name, by := range map[string]func([]byte) ([]byte, error){
			"first": flip(0), "middle": flip(40), "last": flip(-1), "truncated": truncate, "longer": lengthen,
		} {
			t.Run(path+"/"+name, func(t *testing.T) {
				wantError(t, readAll(replaced(good, path, by), k.policy), want)
				_, err := anchor.Mirror(ctx, newMemStore(), replaced(good, path, by), k.policy)
				wantError(t, err, want)
			})
		}
		t.Run(path+"/huge", func(t *testing.T) {
			wantError(t, readAll(replaced(good, path, huge), k.policy), anchor.ErrCorrupt)
		})
		t.Run(path+"/absent", func(t *testing.T) {
			err := readAll(replaced(good, path, absent), k.policy)
			wantError(t, err, anchor.ErrUnavailable)
			wantError(t, err, unreachable)
			if errors.Is(err, anchor.ErrCorrupt) || errors.Is(err, anchor.ErrUntrusted) {
				t.Fatalf("%v says that the log is wrong", err)
			}
		})
	}
}

// Every bit of a checkpoint and of a proof counts.
func TestEveryFlippedBit(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/bits")
	h := filled(t, store, k, 5).Head()
	v := view(t, store, h, k)
	proof, err := v.Prove(ctx, 3, []byte("record 3"))
	must(t, err)
	good := anchor.LocalFetcher(store, h.Root)
	for i := range 8 * len(h.Checkpoint) {
		_, err := anchor.OpenView(ctx, replaced(good, "checkpoint", func(b []byte) ([]byte, error) {
			b[i/8] ^= 1 << (i % 8)
			return b, nil
		}), k.policy)
		wantError(t, err, anchor.ErrUntrusted)
	}
	for i := range 8 * len(proof) {
		b := bytes.Clone(proof)
		b[i/8] ^= 1 << (i % 8)
		_, err := anchor.VerifyProof(k.policy, b)
		if !errors.Is(err, anchor.ErrCorrupt) && !errors.Is(err, anchor.ErrUntrusted) {
			t.Fatalf("bit %d of the proof flipped: %v\n%s", i, err, b)
		}
		// Without a policy no signature counts, and never is another record shown.
		index, record, err := anchor.ProofRecord(b)
		if err == nil && (index != 3 || string(record) != "record 3") || err != nil && !errors.Is(err, anchor.ErrCorrupt) {
			t.Fatalf("bit %d of the proof flipped: entry %d, %q, %v", i, index, record, err)
		}
	}
	if index, record, err := anchor.ProofRecord(proof); err != nil || index != 3 || string(record) != "record 3" {
		t.Errorf("entry %d, %q, %v", index, record, err)
	}
}

// A store whose blocks were damaged or lost does not open, whichever it is of
// the right edge, the last bundle, the checkpoint and the directories.
func TestDamagedStoreDoesNotOpen(t *testing.T) {
	for _, size := range []int{0, 5, 256, 300} {
		base, k := newMemStore(), newKey(t, "log.example/damaged")
		l := filled(t, base, k, size)
		tested := 0
		for c := range base.durable {
			needed := isNeeded(t, base, l.Head(), c)
			for _, damage := range []string{"flipped", "lost"} {
				store := base.clone()
				want := anchor.ErrUnavailable
				if damage == "flipped" {
					store.durable[c][len(store.durable[c])/2] ^= 4
					want = anchor.ErrCorrupt
				} else {
					delete(store.durable, c)
				}
				err := reopenError(store, k)
				if needed {
					tested++
					wantError(t, err, want)
				} else if err != nil {
					t.Fatalf("size %d: block that is not needed, %s: %v", size, damage, err)
				}
			}
		}
		if tested == 0 {
			t.Fatal("nothing tested")
		}
	}
}

// isNeeded reports whether opening the log of head h has to read block c:
// directories, and of the tiles the right edge and the last bundle.
func isNeeded(t *testing.T, s *memStore, h anchor.Head, c cid.Cid) bool {
	t.Helper()
	if c.Type() != cid.Raw {
		lost := false
		for _, err := range dag.Documents(ctx, without{s, c}, h.Root) {
			lost = lost || err != nil
		}
		return lost
	}
	bundle := tlog.Tile{H: 8, L: -1, N: (h.Size - 1) / 256, W: int((h.Size-1)%256) + 1}
	for _, path := range append(partialPaths(h.Size), torchwood.TilePath(bundle)) {
		if h.Size == 0 {
			return false
		}
		b, err := dag.ReadDocument(ctx, s, h.Root, path)
		must(t, err)
		if dag.RawBlock(b).CID == c {
			return true
		}
	}
	// The last full bundle is checked against its level-0 tile.
	if h.Size > 0 && h.Size%256 == 0 {
		b, err := dag.ReadDocument(ctx, s, h.Root, torchwood.TilePath(tlog.Tile{H: 8, L: 0, N: h.Size/256 - 1, W: 256}))
		must(t, err)
		return dag.RawBlock(b).CID == c
	}
	return false
}

// without is a source that lacks one block.
type without struct {
	*memStore
	lost cid.Cid
}

func (s without) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if c == s.lost {
		return nil, fmt.Errorf("%s: %w", c, dag.ErrNotFound)
	}
	return s.memStore.Get(ctx, c)
}

func TestDamagedHeadRecord(t *testing.T) {
	base, k := newMemStore(), newKey(t, "log.example/record")
	filled(t, base, k, 3)
	name := anchor.HeadName("log.example/record")
	for i := range base.heads[name] {
		store := base.clone()
		store.heads[name][i] ^= 1
		err := reopenError(store, k)
		if !errors.Is(err, anchor.ErrCorrupt) && !errors.Is(err, anchor.ErrUntrusted) && !errors.Is(err, anchor.ErrUnavailable) {
			// Only the time of publication is not bound to anything.
			if err != nil || !bytes.Contains(base.heads[name][max(0, i-20):i], []byte(`"time":`)) {
				t.Fatalf("byte %d flipped: %v", i, err)
			}
		}
	}
}

// A directory that lists anything else than the tiles of the head is refused,
// even if all its nodes are sound.
func TestForeignDirectory(t *testing.T) {
	base, k := newMemStore(), newKey(t, "log.example/directory")
	h := filled(t, base, k, 300).Head()
	other := dag.RawBlock(make([]byte, 256*tlog.HashSize))
	link := dag.Link{CID: other.CID, Size: uint64(len(other.Data))}
	for _, c := range []struct {
		name string
		edit func(map[string]dag.Link)
	}{
		{"one more file", func(m map[string]dag.Link) { m["tile/0/009"] = link }},
		{"one less", func(m map[string]dag.Link) { delete(m, "tile/entries/000") }},
		{"no partial tile", func(m map[string]dag.Link) { delete(m, "tile/0/001.p/44") }},
		{"no checkpoint", func(m map[string]dag.Link) { delete(m, "checkpoint") }},
		{"other checkpoint", func(m map[string]dag.Link) { m["checkpoint"] = link }},
		{"other right edge", func(m map[string]dag.Link) { m["tile/1/000.p/1"] = dag.Link{CID: other.CID, Size: 32} }},
		{"tile of another size", func(m map[string]dag.Link) { m["tile/0/000"] = dag.Link{CID: other.CID, Size: 32} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := base.clone()
			links := map[string]dag.Link{}
			for doc, err := range dag.Documents(ctx, store, h.Root) {
				must(t, err)
				links[doc.Path] = doc.Link
			}
			c.edit(links)
			var tree dag.Editor
			for path, l := range links {
				must(t, tree.Put(path, l))
			}
			root, err := tree.Apply(ctx, nil, store, cid.Undef)
			must(t, err)
			must(t, store.Put(ctx, other))
			name := anchor.HeadName(h.Origin)
			store.heads[name] = bytes.Replace(store.heads[name], []byte(h.Root.String()), []byte(root.CID.String()), 1)
			wantError(t, reopenError(store, k), anchor.ErrCorrupt)
		})
	}
	store := base.clone()
	name := anchor.HeadName(h.Origin)
	store.heads[name] = bytes.Replace(store.heads[name], []byte(`{"size":300,`), []byte(`{"size":299,`), 1)
	_, _, err := anchor.LoadHead(ctx, store, k.policy)
	wantError(t, err, anchor.ErrCorrupt)
}

// Lenient decoders would read these as the head record that they almost are.
func TestHeadRecordEncodings(t *testing.T) {
	base, k := newMemStore(), newKey(t, "log.example/encodings")
	filled(t, base, k, 3)
	name := anchor.HeadName("log.example/encodings")
	good := string(base.heads[name])
	for _, bad := range []string{
		good + " ", " " + good, good + good, good[:len(good)-1], "null", "{}",
		strings.Replace(good, `"v":1`, `"V":1`, 1),
		strings.Replace(good, `"v":1`, `"v":2`, 1),
		strings.Replace(good, `"v":1`, `"v":1,"x":0`, 1),
		strings.Replace(good, `"recent":[`, `"recent":[{"size":9,"time":0},`, 1),
	} {
		store := base.clone()
		store.heads[name] = []byte(bad)
		wantError(t, reopenError(store, k), anchor.ErrCorrupt)
	}
}

func TestWrongKey(t *testing.T) {
	store := newMemStore()
	k, other, elsewhere := newKey(t, "log.example/a"), newKey(t, "log.example/a"), newKey(t, "log.example/b")
	h := filled(t, store, k, 5).Head()
	wantError(t, reopenError(store, other), anchor.ErrUntrusted)
	wantError(t, reopenError(store, elsewhere), anchor.ErrNoLog)
	proof, err := view(t, store, h, k).Prove(ctx, 1, []byte("record 1"))
	must(t, err)
	for _, p := range []*anchor.Policy{other.policy, elsewhere.policy} {
		_, err := anchor.OpenView(ctx, anchor.LocalFetcher(store, h.Root), p)
		wantError(t, err, anchor.ErrUntrusted)
		_, err = anchor.VerifyProof(p, proof)
		wantError(t, err, anchor.ErrUntrusted)
		_, err = anchor.Mirror(ctx, newMemStore(), anchor.LocalFetcher(store, h.Root), p)
		wantError(t, err, anchor.ErrUntrusted)
	}
	_, _, err = anchor.LoadHead(ctx, store, other.policy)
	wantError(t, err, anchor.ErrUntrusted)
	_, ok, err := anchor.LoadHead(ctx, store, elsewhere.policy)
	if ok || err != nil {
		t.Fatalf("head of another log: %v, %v", ok, err)
	}
	for _, p := range []*anchor.Policy{nil, {}} {
		_, err = anchor.VerifyProof(p, proof)
		wantError(t, err, anchor.ErrPolicy)
		_, _, err = anchor.LoadHead(ctx, store, p)
		wantError(t, err, anchor.ErrPolicy)
		_, err = anchor.Mirror(ctx, store, anchor.LocalFetcher(store, h.Root), p)
		wantError(t, err, anchor.ErrPolicy)
	}
}

// Checkpoints that are well signed and still not acceptable.
func TestImpossibleCheckpoints(t *testing.T) {
	k := newKey(t, "log.example/odd")
	empty := tlog.Hash(merkle(nil))
	for _, c := range []struct {
		name string
		text torchwood.Checkpoint
	}{
		{"extension line", torchwood.Checkpoint{Origin: "log.example/odd", Tree: tlog.Tree{N: 0, Hash: empty}, Extension: "more\n"}},
		{"other origin", torchwood.Checkpoint{Origin: "log.example/other", Tree: tlog.Tree{N: 0, Hash: empty}}},
		{"empty tree with a root", torchwood.Checkpoint{Origin: "log.example/odd", Tree: tlog.Tree{N: 0, Hash: tlog.Hash{1}}}},
		{"too large", torchwood.Checkpoint{Origin: "log.example/odd", Tree: tlog.Tree{N: 1 << 62, Hash: empty}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			signed, err := note.Sign(&note.Note{Text: c.text.String()}, k.signer)
			must(t, err)
			_, err = anchor.OpenView(ctx, files{"checkpoint": signed}, k.policy)
			wantError(t, err, anchor.ErrUntrusted)
		})
	}
	largest := torchwood.Checkpoint{Origin: "log.example/odd", Tree: tlog.Tree{N: 1<<62 - 1, Hash: empty}}
	signed, err := note.Sign(&note.Note{Text: largest.String()}, k.signer)
	must(t, err)
	wantError(t, readAll(files{"checkpoint": signed}, k.policy), anchor.ErrUnavailable)
	v, err := anchor.OpenView(ctx, files{"checkpoint": signed}, k.policy)
	must(t, err)
	_, err = v.Entry(ctx, 1<<61)
	wantError(t, err, anchor.ErrUnavailable)
	_, err = v.Prove(ctx, 1<<62-2, nil)
	wantError(t, err, anchor.ErrUnavailable)
}

// A log root that somebody made to cost memory is given up on.
func TestHugeFileInLogRoot(t *testing.T) {
	store := newMemStore()
	link, _, err := dag.WriteDocument(ctx, store, bytes.NewReader(make([]byte, 20<<20)))
	must(t, err)
	var tree dag.Editor
	must(t, tree.Put("checkpoint", link))
	root, err := tree.Apply(ctx, nil, store, cid.Undef)
	must(t, err)
	_, err = anchor.OpenView(ctx, anchor.LocalFetcher(store, root.CID), newKey(t, "log.example/huge").policy)
	wantError(t, err, anchor.ErrCorrupt)
	if !strings.Contains(err.Error(), "for one file") {
		t.Fatal(err)
	}
}

// files is a Fetcher with a few files.
type files map[string][]byte

func (f files) ReadEndpoint(_ context.Context, path string) ([]byte, error) {
	b, ok := f[path]
	if !ok {
		return nil, errors.New("404")
	}
	return b, nil
}

func TestProveWrongRecord(t *testing.T) {
	store, k := newMemStore(), newKey(t, "log.example/prove")
	v := view(t, store, filled(t, store, k, 5).Head(), k)
	for _, c := range []struct {
		index  int64
		record string
	}{{1, "record 2"}, {-1, "record 0"}, {5, "record 5"}} {
		_, err := v.Prove(ctx, c.index, []byte(c.record))
		wantError(t, err, anchor.ErrNotIncluded)
	}
	for _, index := range []int64{-1, 5} {
		_, err := v.Entry(ctx, index)
		wantError(t, err, anchor.ErrNotIncluded)
	}
	for _, err := range v.Entries(ctx, 6) {
		wantError(t, err, anchor.ErrNotIncluded)
	}
	for range v.Entries(ctx, 5) {
		t.Fatal("an entry after the last")
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range v.Entries(stopped, 0) {
		wantError(t, err, context.Canceled)
	}
	// A proof without the record in it, as other programs may make them.
	p, err := tlog.ProveRecord(1, 0, nil)
	must(t, err)
	_, err = anchor.VerifyProof(k.policy, torchwood.FormatProof(0, p, v.Head().Checkpoint))
	wantError(t, err, anchor.ErrCorrupt)
	_, err = anchor.VerifyProof(k.policy, make([]byte, anchor.MaxProofSize+1))
	wantError(t, err, anchor.ErrCorrupt)
}
