package replication

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

func newFolder(t *testing.T) (*folder, Item) {
	t.Helper()
	repo := newRepo(t)
	root := putDAG(t, repo.Blocks, "one")
	return &folder{name: "f", dir: t.TempDir()}, itemOf(repo.Blocks, root)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestFolderPush: the file is the archive, also where there was a damaged one, or one
// that is cut, longer, or of something else; a sound one is not written again.
func TestFolderPush(t *testing.T) {
	f, item := newFolder(t)
	car := carOf(t, item)
	must(t, f.Push(ctx, item))
	path := filepath.Join(f.dir, "policy-1-"+item.Root.String()+".car")
	if got := names(t, f.dir); !slices.Equal(got, []string{filepath.Base(path)}) {
		t.Fatalf("the folder holds %v", got)
	}
	sound, err := os.Stat(path)
	must(t, err)
	must(t, f.Push(ctx, item))
	again, err := os.Stat(path)
	must(t, err)
	if !os.SameFile(sound, again) {
		t.Error("a sound file was replaced")
	}
	flipped := slices.Clone(car)
	flipped[rand.IntN(len(car))] ^= 1 << rand.IntN(8)
	for what, data := range map[string][]byte{
		"flipped": flipped, "cut": car[:rand.IntN(len(car))], "longer": append(slices.Clone(car), 1),
		"empty": {}, "zeros": make([]byte, len(car)),
	} {
		must(t, os.WriteFile(path, data, 0o600))
		must(t, f.Push(ctx, item))
		got, err := os.ReadFile(path)
		must(t, err)
		if !slices.Equal(got, car) {
			t.Errorf("a file that is %s was not replaced", what)
		}
	}
}

// TestFolderKeepsOthers: what a crash left of this item goes, all else stays, and a
// failure leaves nothing.
func TestFolderKeepsOthers(t *testing.T) {
	f, item := newFolder(t)
	left := "." + filepath.Base(f.path(item)) + ".123"
	others := []string{".tmp-1", "policy-1-bafkother.car", ".policy-1-bafkother.car.7", "notes"}
	for _, name := range append(others, left) {
		must(t, os.WriteFile(filepath.Join(f.dir, name), []byte("x"), 0o600))
	}
	full := errors.New("disk full")
	item.Write = func(_ context.Context, w io.Writer) error {
		_, err := w.Write([]byte("some of it"))
		return errors.Join(err, full)
	}
	mustBe(t, f.Push(ctx, item), full)
	slices.Sort(others)
	if got := names(t, f.dir); !slices.Equal(got, others) {
		t.Errorf("the folder holds %v", got)
	}
}

// TestFolderWrongArchive: what does not read back as the item is not given its name.
func TestFolderWrongArchive(t *testing.T) {
	f, item := newFolder(t)
	car := carOf(t, item)
	item.Write = func(_ context.Context, w io.Writer) error {
		_, err := w.Write(car[:len(car)-1])
		return err
	}
	mustBe(t, f.Push(ctx, item), dag.ErrTruncated)
	if got := names(t, f.dir); len(got) > 0 {
		t.Errorf("the folder holds %v", got)
	}
}

// TestFolderNotYet: of what can be no file yet there is none.
func TestFolderNotYet(t *testing.T) {
	f, item := newFolder(t)
	item.NotYet, item.Roots, item.Write = errors.New("no quorum"), nil, nil
	mustBe(t, f.Push(ctx, item), ErrNotYet)
	if got := names(t, f.dir); len(got) > 0 {
		t.Errorf("the folder holds %v", got)
	}
}

func TestFolderAbsent(t *testing.T) {
	f, item := newFolder(t)
	f.dir = filepath.Join(f.dir, "unmounted")
	mustBe(t, f.Push(ctx, item), node.ErrUnreachable)
	_, err := f.Places(ctx, item)
	mustBe(t, err, node.ErrUnreachable)
	must(t, os.WriteFile(f.dir, nil, 0o600))
	mustBe(t, f.Push(ctx, item), node.ErrUnreachable)
}

func TestFolderEnds(t *testing.T) {
	f, item := newFolder(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	mustBe(t, f.Push(ended, item), context.Canceled)
	if got := names(t, f.dir); len(got) > 0 {
		t.Errorf("the folder holds %v", got)
	}
}

// TestFolderServes: every IPFS block is found in the file, and a flipped bit anywhere
// is seen by who asks for all of them.
func TestFolderServes(t *testing.T) {
	f, item := newFolder(t)
	car := carOf(t, item)
	path := filepath.Join(f.dir, "renamed-"+item.Root.String()+".car")
	must(t, os.WriteFile(path, car, 0o600))
	places, err := f.Places(ctx, Item{Root: item.Root})
	must(t, err)
	if len(places) != 1 || places[0].ID() != f.dir || places[0].Name() != "f" {
		t.Fatalf("places %v", places)
	}
	read, err := dag.ReadCAR(mustOpen(t, path))
	must(t, err)
	var all []cid.Cid
	for {
		b, err := read.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		all = append(all, b.CID)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	must(t, Serves(ctx, places[0], item, all))
	must(t, Serves(ctx, places[0], item, all[:1]))
	mustBe(t, Serves(ctx, places[0], item, append(all, dag.RawBlock([]byte("else")).CID)), dag.ErrNotFound)
	for range 50 {
		bad := slices.Clone(car)
		at := rand.IntN(len(bad))
		bad[at] ^= 1 << rand.IntN(8)
		must(t, os.WriteFile(path, bad, 0o600))
		if err := Serves(ctx, places[0], item, all); err == nil && at > 120 { // the header is not asked for
			t.Fatalf("byte %d is flipped and nobody noticed", at)
		} else if IsDown(err) {
			t.Fatalf("damage is taken for silence: %v", err)
		}
	}
	must(t, os.Remove(path))
	mustBe(t, Serves(ctx, places[0], item, all[:1]), dag.ErrNotFound)
}

func mustOpen(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// FuzzFindInCAR: whatever a file holds, what is found and passes the check is what was
// asked for, and nothing panics or allocates without bound.
func FuzzFindInCAR(f *testing.F) {
	sink := memory{}
	link, _, err := dag.WriteDocument(ctx, sink, strings.NewReader("x"))
	must(f, err)
	var tree dag.Editor
	must(f, tree.Put("a/b", link))
	dir, err := tree.Apply(ctx, nil, sink, cid.Undef)
	must(f, err)
	root := dir.CID
	item := itemOf(sink, root)
	car := carOf(f, item)
	f.Add(car[:len(car)/2])
	f.Add(car)
	f.Add([]byte{})
	cids := slices.Collect(maps.Keys(blocksOf(f, sink, root)))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x-"+root.String()+".car")
		must(t, os.WriteFile(path, data, 0o600))
		place := folderPlace{&folder{name: "f", dir: filepath.Dir(path)}, filepath.Dir(path)}
		blocks, err := place.Blocks(ctx, item, cids[:3])
		if err == nil && len(blocks) != 3 {
			t.Errorf("%d blocks", len(blocks))
		}
		if Serves(ctx, place, item, cids[:3]) == nil {
			for _, b := range blocks {
				must(t, b.Check())
			}
		}
	})
}

// memory is a store in memory.
type memory map[cid.Cid][]byte

func (m memory) Put(_ context.Context, blocks ...dag.Block) error {
	for _, b := range blocks {
		m[b.CID] = b.Data
	}
	return nil
}

func (m memory) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	data, ok := m[c]
	if !ok {
		return nil, dag.ErrNotFound
	}
	return data, nil
}

// TestWithout: an item of which IPFS blocks were erased is an archive that lacks as many,
// and no more. What pins whole DAGs refuses it, before anything is sent.
func TestWithout(t *testing.T) {
	f, item := newFolder(t)
	whole := item.Write
	lacking := dag.RawBlock([]byte("document 7")).CID
	blocks := memory(blocksOf(t, carSource(t, item), item.Roots...))
	item.Write = func(ctx context.Context, w io.Writer) error {
		return dag.WritePartialCAR(ctx, w, blocks, []cid.Cid{lacking}, item.Roots...)
	}
	mustBe(t, f.Push(ctx, item), dag.ErrTruncated)
	item.Without = []cid.Cid{dag.RawBlock([]byte("document 8")).CID}
	mustBe(t, f.Push(ctx, item), dag.ErrTruncated)
	item.Without = []cid.Cid{lacking}
	must(t, f.Push(ctx, item))
	if got := names(t, f.dir); len(got) != 1 {
		t.Errorf("the folder holds %v", got)
	}
	read := func() []byte {
		data, err := os.ReadFile(f.path(item))
		must(t, err)
		return data
	}
	gap := read()
	withGap := item.Write
	item.Write = whole
	must(t, f.Push(ctx, item)) // it is whole as it is
	if !bytes.Equal(read(), gap) {
		t.Error("it was written again")
	}

	// One that has everything stays, also if a further root says why the new one has not;
	// one that is damaged does not.
	must(t, os.WriteFile(f.path(item), carOf(t, item), 0o600))
	item.Write = withGap
	must(t, f.Push(ctx, item))
	if bytes.Equal(read(), gap) {
		t.Error("the last good copy was replaced")
	}
	must(t, os.WriteFile(f.path(item), read()[:len(gap)], 0o600))
	must(t, f.Push(ctx, item))
	if !bytes.Equal(read(), gap) {
		t.Error("a damaged file was left")
	}

	s, k := newStandIn(t, blocks)
	mustBe(t, k.Push(ctx, item), ErrRefused)
	if len(s.blocks) > 0 {
		t.Errorf("%d IPFS blocks were sent", len(s.blocks))
	}
	service, p := newStandInService(t, "pinned")
	mustBe(t, p.Push(ctx, item), ErrRefused)
	if service.posted > 0 {
		t.Errorf("%d requests", service.posted)
	}
}

// carSource is what is in an item's archive.
func carSource(t *testing.T, item Item) dag.Source {
	t.Helper()
	car, err := dag.ReadProof(ctx, bytes.NewReader(carOf(t, item)))
	must(t, err)
	return car
}
