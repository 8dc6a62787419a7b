package node

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2phttp "github.com/libp2p/go-libp2p/p2p/http"
)

// stranger is a libp2p host that is not one of ours.
func stranger(t *testing.T, options ...libp2p.Option) host.Host {
	t.Helper()
	options = append([]libp2p.Option{libp2p.ListenAddrStrings(anySwarm), libp2p.DisableRelay(), libp2p.DisableMetrics()}, options...)
	h, err := libp2p.New(options...)
	must(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

func addressOf(h host.Host) string { return h.Addrs()[0].String() + "/p2p/" + h.ID().String() }

// impatient dials a source that is given up soon.
func impatient(t *testing.T, r *Repo, source string) *Remote {
	t.Helper()
	src, err := r.Dial(source)
	must(t, err)
	t.Cleanup(func() { must(t, src.Close()) })
	src.patience, src.begin = 300*time.Millisecond, 600*time.Millisecond
	return src
}

// within fails the test if f takes longer than anything may that has a limit.
func within(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(40 * time.Second):
		t.Fatal("it waits without a limit")
		return nil
	}
}

// Peers that take a connection and then say nothing, or stop in the middle, are given
// up, and who is asked beside them goes on.
func TestSilentPeers(t *testing.T) {
	o := newOrigin(t)
	car := o.carOf(t, o.root)
	answer := func(s network.Stream, keep int) {
		http.ReadRequest(bufio.NewReader(s))
		fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.ipld.car\r\nContent-Length: %d\r\n\r\n", len(car))
		s.Write(car[:keep])
	}
	for name, handle := range map[string]network.StreamHandler{
		"no answer":     func(network.Stream) {},
		"half a header": func(s network.Stream) { io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-") },
		"no body":       func(s network.Stream) { answer(s, 0) },
		"half a body":   func(s network.Stream) { answer(s, len(car)/2) },
		"drips": func(s network.Stream) {
			for i := range car {
				if i == 0 {
					answer(s, 0)
				}
				if _, err := s.Write(car[i : i+1]); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := stranger(t)
			h.SetStreamHandler(libp2phttp.ProtocolIDForMultistreamSelect, handle)
			to := newRepo(t)
			src := impatient(t, to, addressOf(h))
			var dropped error
			note := func(p Progress) {
				if p.Dropped != nil && p.Source == src.Name {
					dropped = p.Dropped
				}
			}
			err := within(t, func() error { return to.Fetch(ctx, []*Remote{src}, o.root, note) })
			if !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrIncomplete) || !errors.Is(dropped, ErrUnreachable) {
				t.Errorf("alone: %v; dropped: %v", err, dropped)
			}
			dropped = nil
			must(t, within(t, func() error { return to.Fetch(ctx, []*Remote{src, o.honest(t)}, o.root, note) }))
			checkState(t, to.Blocks, o.root, o.docs)
			c, cancel := context.WithCancelCause(ctx)
			stop := errors.New("stopped")
			cancel(stop)
			if err := within(t, func() error { return newRepo(t).Fetch(c, []*Remote{src}, o.root, nil) }); !errors.Is(err, stop) {
				t.Errorf("cancelled: %v", err)
			}
			if _, err := src.Log("log.example/x").ReadEndpoint(ctx, "checkpoint"); !errors.Is(err, ErrUnreachable) && name != "drips" && name != "half a body" {
				t.Errorf("a log's file: %v", err)
			}
		})
	}
}

// A peer that is connected and has nothing, or does not answer, is given up after a
// few times.
func TestSilentBitswapPeer(t *testing.T) {
	o := newOrigin(t)
	for name, listens := range map[string]bool{"has nothing": true, "does not speak it": false} {
		t.Run(name, func(t *testing.T) {
			h := stranger(t)
			if listens {
				b := bitswap.New(ctx, bsnet.NewFromIpfsHost(h), nil, readOnly{newRepo(t).Blocks})
				t.Cleanup(func() { b.Close() })
			}
			to := newRepo(t)
			src := impatient(t, to, addressOf(h))
			src.begin = 0 // that it has no gateway it says, however long that takes
			err := within(t, func() error { return to.Fetch(ctx, []*Remote{src}, o.root, nil) })
			if !errors.Is(err, ErrIncomplete) || !errors.Is(err, dag.ErrNotFound) {
				t.Errorf("alone: %v", err)
			}
			must(t, within(t, func() error { return to.Fetch(ctx, []*Remote{src, o.honest(t)}, o.root, nil) }))
			checkState(t, to.Blocks, o.root, o.docs)
		})
	}
}

// countingStore counts how much a peer wants at a time.
type countingStore struct {
	readOnly
	wants func()
}

func (s countingStore) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	s.wants()
	return s.readOnly.Get(ctx, c)
}

// Of thousands of IPFS blocks that are missing, a peer is never asked for more at a time
// than it remembers.
func TestBitswapWants(t *testing.T) {
	if maxWants > 1000 {
		t.Fatalf("%d wants", maxWants)
	}
	from := newRepo(t)
	var edit dag.Editor
	for i := range 3000 {
		link, _, err := dag.WriteDocument(ctx, from.Blocks, strings.NewReader(fmt.Sprint("document ", i)))
		must(t, err)
		must(t, edit.Put(fmt.Sprintf("c/%04d", i), link))
	}
	root, err := edit.Apply(ctx, nil, from.Blocks, cid.Undef)
	must(t, err)
	to := newRepo(t)
	key, err := to.identity()
	must(t, err)
	id, err := peer.IDFromPrivateKey(key)
	must(t, err)
	h := stranger(t)
	var b *bitswap.Bitswap
	var mu sync.Mutex
	most := 0
	b = bitswap.New(ctx, bsnet.NewFromIpfsHost(h), nil, countingStore{readOnly{from.Blocks}, func() {
		mu.Lock()
		defer mu.Unlock()
		most = max(most, len(b.WantlistForPeer(id)))
	}})
	t.Cleanup(func() { b.Close() })
	src, err := to.Dial(addressOf(h))
	must(t, err)
	defer src.Close()
	must(t, to.Fetch(ctx, []*Remote{src}, root.CID, nil))
	mu.Lock()
	defer mu.Unlock()
	if most == 0 || most > 1000 {
		t.Errorf("%d wants at a time", most)
	}
	t.Logf("%d IPFS blocks, at most %d wants at a time", to.Blocks.Len(), most)
	for d, err := range dag.Documents(ctx, to.Blocks, root.CID) {
		must(t, err)
		_ = d
	}
}

// section is one section of a CAR, whether its hash is right or not.
func section(c cid.Cid, data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(c.ByteLen()+len(data)))
	return append(append(b, c.Bytes()...), data...)
}

// What is compressed to be harmless and is endless when it is not, what is larger than
// an IPFS block may be, and what is of a codec that no save point has.
func TestBombs(t *testing.T) {
	o := newOrigin(t)
	car := o.carOf(t, o.root)
	header := car[:1+int(car[0])]
	large := make([]byte, dag.MaxBlockSize+1)
	gzipped := func(w http.ResponseWriter, write func(io.Writer) error) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		for write(z) == nil {
		}
	}
	root, err := o.repo.Blocks.Get(ctx, o.root)
	must(t, err)
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want error
	}{
		"gzip of zeros": {func(w http.ResponseWriter, r *http.Request) {
			gzipped(w, func(z io.Writer) error { _, err := z.Write(make([]byte, 1<<20)); return err })
		}, dag.ErrMalformed},
		"gzip of one block again and again": {func(w http.ResponseWriter, r *http.Request) {
			first := true
			again := bytes.Repeat(section(o.root, root), 200)
			gzipped(w, func(z io.Writer) error {
				if first {
					first = false
					_, err := z.Write(header)
					return err
				}
				_, err := z.Write(again)
				return err
			})
		}, dag.ErrForeignBlock},
		"gzip that is none": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(car)
		}, ErrUnreachable},
		"zstd that nobody asked for": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "zstd")
			w.Write(append([]byte{0x28, 0xb5, 0x2f, 0xfd}, make([]byte, 1000)...))
		}, dag.ErrMalformed},
		"a block over 2 MiB": {func(w http.ResponseWriter, r *http.Request) {
			w.Write(header)
			w.Write(section(dag.RawBlock(large).CID, large))
		}, dag.ErrUnsupported},
		"endless headers": {func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}, ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			to := newRepo(t)
			src := through(t, c.h)
			err := within(t, func() error { return to.Fetch(ctx, []*Remote{src}, o.root, nil) })
			if !errors.Is(err, ErrIncomplete) || !errors.Is(err, c.want) {
				t.Errorf("error %v", err)
			}
			must(t, to.Fetch(ctx, []*Remote{through(t, c.h), o.honest(t)}, o.root, nil))
			checkState(t, to.Blocks, o.root, o.docs)
		})
	}
}

// A DAG that links to what no save point may hold is refused, by whatever way it comes.
func TestFetchOfUnknownCodec(t *testing.T) {
	foreign := cid.NewCidV1(cid.DagJSON, dag.RawBlock([]byte("{}")).CID.Hash())
	// {"l": link} in DAG-CBOR
	data := append([]byte{0xa1, 0x61, 'l', 0xd8, 0x2a, 0x58, byte(1 + foreign.ByteLen()), 0x00}, foreign.Bytes()...)
	root := dag.Block{CID: cid.NewCidV1(cid.DagCBOR, dag.RawBlock(data).CID.Hash()), Data: data}
	from := newRepo(t)
	must(t, from.Blocks.Put(ctx, root))
	var car bytes.Buffer
	must(t, dag.WriteCAR(ctx, &car, one{dag.RawBlock(nil)}, dag.RawBlock(nil).CID))
	head := bytes.Replace(car.Bytes()[:1+int(car.Bytes()[0])], dag.RawBlock(nil).CID.Bytes(), root.CID.Bytes(), 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(append(bytes.Clone(head), section(root.CID, data)...))
	}))
	t.Cleanup(srv.Close)
	h := stranger(t)
	b := bitswap.New(ctx, bsnet.NewFromIpfsHost(h), nil, readOnly{from.Blocks})
	t.Cleanup(func() { b.Close() })
	for name, source := range map[string]string{"CAR": srv.URL, "bitswap": addressOf(h)} {
		to := newRepo(t)
		src, err := to.Dial(source)
		must(t, err)
		t.Cleanup(func() { must(t, src.Close()) })
		err = within(t, func() error { return to.Fetch(ctx, []*Remote{src}, root.CID, nil) })
		if !errors.Is(err, ErrIncomplete) || !errors.Is(err, dag.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// While a node is missing that is to be kept, nothing is collected: what hangs below
// it is not known. Once it is back, garbage is.
func TestCollectNeedsAllNodes(t *testing.T) {
	r := newRepo(t)
	root, docs := putState(t, r.Blocks, 1)
	must(t, r.Pin(ctx, root, "p"))
	garbage := dag.RawBlock([]byte("garbage"))
	must(t, r.Blocks.Put(ctx, garbage))
	must(t, r.Blocks.Sync(ctx))
	data, err := r.Blocks.Get(ctx, root)
	must(t, err)
	node := dag.Block{CID: root, Data: data}
	damage(t, r, node)
	none := func(context.Context) ([]cid.Cid, error) { return nil, nil }
	all := segments.CollectOptions{All: true}
	before := r.Blocks.Len()
	for _, again := range []bool{false, true} {
		got, err := r.Collect(ctx, none, all)
		if !errors.Is(err, ErrDamaged) || len(got.Missing) != 1 || got.Missing[0] != root || r.Blocks.Len() != before {
			t.Fatalf("again %v: %+v, %v, %d blocks", again, got, err, r.Blocks.Len())
		}
	}
	if _, err := r.Collect(ctx, none, segments.CollectOptions{All: true, DryRun: true}); err != nil {
		t.Error(err)
	}
	must(t, r.Blocks.Put(ctx, node))
	_, err = r.Collect(ctx, none, all)
	must(t, err)
	checkState(t, r.Blocks, root, docs)
	if has, err := r.Blocks.Has(ctx, garbage.CID); err != nil || has {
		t.Errorf("garbage is kept: %v", err)
	}
	// A document has nothing below it.
	leaf := dag.RawBlock(docs["credentials/001.json"])
	must(t, r.Blocks.Delete(ctx, leaf.CID))
	got, err := r.Collect(ctx, none, all)
	if err != nil || len(got.Missing) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}
