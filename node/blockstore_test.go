package node

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

// readWrite shows a store to boxo as a whole blockstore: readOnly, and what it leaves
// out.
type readWrite struct{ readOnly }

var _ blockstore.Blockstore = readWrite{}

func (r readWrite) Put(ctx context.Context, b blocks.Block) error {
	return r.PutMany(ctx, []blocks.Block{b})
}

func (r readWrite) PutMany(ctx context.Context, many []blocks.Block) error {
	for _, b := range many {
		if err := r.s.Put(ctx, dag.Block{CID: b.Cid(), Data: b.RawData()}); err != nil {
			return err
		}
	}
	return r.s.Sync(ctx)
}

func (r readWrite) DeleteBlock(ctx context.Context, c cid.Cid) error { return r.s.Delete(ctx, c) }

func (r readWrite) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	out := make(chan cid.Cid)
	go func() {
		defer close(out)
		for c, err := range r.s.All(ctx) {
			if err != nil {
				return
			}
			select {
			case out <- c:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func newReadWrite(t *testing.T) readWrite { return readWrite{readOnly{newRepo(t).Blocks}} }

// raw is a block as boxo has it, with a CID of version 1.
func raw(t *testing.T, data []byte) blocks.Block {
	t.Helper()
	b, err := blocks.NewBlockWithCid(data, dag.RawBlock(data).CID)
	must(t, err)
	return b
}

// What boxo expects of a blockstore, as its own tests have it.
func TestAsBlockstore(t *testing.T) {
	t.Run("a key that is not there", func(t *testing.T) {
		bs := newReadWrite(t)
		c := dag.RawBlock([]byte("stuff")).CID
		if b, err := bs.Get(ctx, c); b != nil || !ipld.IsNotFound(err) {
			t.Errorf("get: %v, %v", b, err)
		}
		if n, err := bs.GetSize(ctx, c); !ipld.IsNotFound(err) {
			t.Errorf("size: %d, %v", n, err)
		}
		if has, err := bs.Has(ctx, c); err != nil || has {
			t.Errorf("has: %v, %v", has, err)
		}
		must(t, bs.DeleteBlock(ctx, c))
	})
	t.Run("no key", func(t *testing.T) {
		bs := newReadWrite(t)
		if _, err := bs.Get(ctx, cid.Undef); !ipld.IsNotFound(err) {
			t.Errorf("get: %v", err)
		}
		if has, err := bs.Has(ctx, cid.Undef); err != nil || has {
			t.Errorf("has: %v, %v", has, err)
		}
	})
	t.Run("put, then get, size, has, delete", func(t *testing.T) {
		bs := newReadWrite(t)
		for _, data := range [][]byte{[]byte("some data"), nil, make([]byte, dag.MaxBlockSize)} {
			b := raw(t, data)
			must(t, bs.Put(ctx, b))
			must(t, bs.Put(ctx, b))
			got, err := bs.Get(ctx, b.Cid())
			must(t, err)
			if !bytes.Equal(got.RawData(), data) || got.Cid() != b.Cid() {
				t.Errorf("%d bytes: other ones", len(data))
			}
			if n, err := bs.GetSize(ctx, b.Cid()); err != nil || n != len(data) {
				t.Errorf("size %d, %v", n, err)
			}
			must(t, bs.DeleteBlock(ctx, b.Cid()))
			if has, err := bs.Has(ctx, b.Cid()); err != nil || has {
				t.Errorf("deleted: %v, %v", has, err)
			}
		}
	})
	t.Run("a block is found by its hash, whatever the codec", func(t *testing.T) {
		bs := newReadWrite(t)
		b := raw(t, []byte{0xa0})
		must(t, bs.Put(ctx, b))
		other := cid.NewCidV1(cid.DagCBOR, b.Cid().Hash())
		got, err := bs.Get(ctx, other)
		must(t, err)
		if got.Cid() != other || !bytes.Equal(got.RawData(), b.RawData()) {
			t.Errorf("%s", got.Cid())
		}
	})
	t.Run("what no save point holds", func(t *testing.T) {
		bs := newReadWrite(t)
		data := []byte("x")
		for name, p := range map[string]cid.Prefix{
			"version 0": {Version: 0, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: 32},
			"identity":  {Version: 1, Codec: cid.Raw, MhType: mh.IDENTITY, MhLength: -1},
			"sha2-512":  {Version: 1, Codec: cid.Raw, MhType: mh.SHA2_512, MhLength: -1},
			"dag-json":  {Version: 1, Codec: cid.DagJSON, MhType: mh.SHA2_256, MhLength: -1},
		} {
			c, err := p.Sum(data)
			must(t, err)
			b, err := blocks.NewBlockWithCid(data, c)
			must(t, err)
			// It is refused when it is put, and simply not there when it is asked for.
			if err := bs.Put(ctx, b); !errors.Is(err, dag.ErrUnsupported) {
				t.Errorf("put of %s: %v", name, err)
			}
			if _, err := bs.Get(ctx, c); !ipld.IsNotFound(err) {
				t.Errorf("get of %s: %v", name, err)
			}
			if _, err := bs.GetSize(ctx, c); !ipld.IsNotFound(err) {
				t.Errorf("size of %s: %v", name, err)
			}
			if has, err := bs.Has(ctx, c); err != nil || has {
				t.Errorf("has of %s: %v, %v", name, has, err)
			}
		}
	})
	t.Run("bytes are hashed when they are read", func(t *testing.T) {
		bs := newReadWrite(t)
		wrong, err := blocks.NewBlockWithCid([]byte("wrong"), dag.RawBlock([]byte("right")).CID)
		must(t, err)
		must(t, bs.Put(ctx, wrong)) // it believes who puts
		if _, err := bs.Get(ctx, wrong.Cid()); err == nil {
			t.Error("wrong bytes were given back")
		}
		must(t, bs.Put(ctx, raw(t, []byte("right"))))
		if _, err := bs.Get(ctx, wrong.Cid()); err != nil {
			t.Errorf("not healed: %v", err)
		}
	})
	t.Run("all keys", func(t *testing.T) { allKeys(t, newReadWrite(t)) })
	t.Run("identity CIDs through boxo", func(t *testing.T) {
		bs := blockstore.NewIdStore(newReadWrite(t))
		c, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.IDENTITY, MhLength: -1}.Sum([]byte("within"))
		must(t, err)
		b, err := bs.Get(ctx, c)
		must(t, err)
		if string(b.RawData()) != "within" {
			t.Errorf("%q", b.RawData())
		}
	})
}

func allKeys(t *testing.T, bs readWrite) {
	var want, got []string
	var many []blocks.Block
	for i := range 100 {
		b := raw(t, []byte{byte(i), 1})
		many = append(many, b)
		want = append(want, b.Cid().String())
	}
	must(t, bs.PutMany(ctx, many))
	keys, err := bs.AllKeysChan(ctx)
	must(t, err)
	for c := range keys {
		got = append(got, c.String())
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("%d keys of %d", len(got), len(want))
	}
	ended, cancel := context.WithCancel(ctx)
	keys, err = bs.AllKeysChan(ended)
	must(t, err)
	<-keys
	cancel()
	n := 0
	for range keys {
		n++
	}
	if n > 2 {
		t.Errorf("%d keys after the end", n)
	}
}

// Nothing that serves can write.
func TestServingNeverWrites(t *testing.T) {
	bs := readOnly{newRepo(t).Blocks}
	b := raw(t, []byte("x"))
	for name, err := range map[string]error{
		"put": bs.Put(ctx, b), "put many": bs.PutMany(ctx, []blocks.Block{b}), "delete": bs.DeleteBlock(ctx, b.Cid()),
	} {
		if err == nil {
			t.Errorf("%s is done", name)
		}
	}
	if bs.s.Len() != 0 {
		t.Error("something was written")
	}
}
