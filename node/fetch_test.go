package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/go-cid"
)

// origin is a repository with a state, and its gateway.
type origin struct {
	repo    *Repo
	gateway http.Handler
	root    cid.Cid
	docs    map[string][]byte
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{repo: newRepo(t)}
	o.root, o.docs = putState(t, o.repo.Blocks, 1)
	var err error
	o.gateway, err = o.repo.Gateway(nil)
	must(t, err)
	return o
}

// through is a source whose answers pass through h.
func through(t *testing.T, h http.HandlerFunc) *Remote {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return dial(t, srv.URL)
}

func (o *origin) honest(t *testing.T) *Remote { return through(t, o.gateway.ServeHTTP) }

// carOf is what the gateway answers, as bytes.
func (o *origin) carOf(t *testing.T, c cid.Cid) []byte {
	t.Helper()
	var buf bytes.Buffer
	must(t, dag.WriteCAR(ctx, &buf, o.repo.Blocks, c))
	return buf.Bytes()
}

func requested(r *http.Request) cid.Cid {
	c, _ := cid.Decode(strings.TrimPrefix(r.URL.Path, "/ipfs/"))
	return c
}

func TestFetch(t *testing.T) {
	o := newOrigin(t)
	n := serve(t, o.repo, nil)
	for name, source := range map[string]string{"HTTP": n.GatewayURL(), "libp2p": n.Addresses()[0]} {
		t.Run(name, func(t *testing.T) {
			to := newRepo(t)
			var last Progress
			must(t, to.Fetch(ctx, []*Remote{dial(t, source)}, o.root, func(p Progress) {
				if p.Blocks <= last.Blocks || p.Bytes < last.Bytes {
					t.Errorf("progress from %+v to %+v", last, p)
				}
				last = p
			}))
			checkState(t, to.Blocks, o.root, o.docs)
			if last.Source != source || last.Blocks != uint64(to.Blocks.Len()) {
				t.Errorf("progress %+v, %d IPFS blocks", last, to.Blocks.Len())
			}
			must(t, to.Close()) // it is on disk
			to, err := Open(ctx, to.Dir())
			must(t, err)
			defer to.Close()
			checkState(t, to.Blocks, o.root, o.docs)
			must(t, to.Fetch(ctx, nil, o.root, nil)) // nothing to ask for
		})
	}
	t.Run("local", func(t *testing.T) {
		src, err := Local("here", o.repo, nil)
		must(t, err)
		defer src.Close()
		to := newRepo(t)
		must(t, to.Fetch(ctx, []*Remote{src}, o.root, nil))
		checkState(t, to.Blocks, o.root, o.docs)
	})
}

func TestFetchWithoutSource(t *testing.T) {
	o := newOrigin(t)
	if err := newRepo(t).Fetch(ctx, nil, o.root, nil); !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
}

// A source that cuts every answer is asked until all is there.
func TestFetchFromSourceThatCuts(t *testing.T) {
	o := newOrigin(t)
	for name, cut := range map[string]func(http.ResponseWriter){
		"cleanly":   func(http.ResponseWriter) {},
		"in chunks": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			src := through(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				car := o.carOf(t, requested(r))
				keep := max(len(car)/3, min(len(car), 3000))
				w.Write(car[:keep])
				w.(http.Flusher).Flush()
				cut(w)
			})
			to := newRepo(t)
			err := to.Fetch(ctx, []*Remote{src}, o.root, nil)
			// One document is one IPFS block of 1 MiB: of that a third is nothing.
			if !errors.Is(err, ErrIncomplete) || !errors.Is(err, ErrUnreachable) {
				t.Fatal(err)
			}
			if asked.Load() < 2 {
				t.Errorf("asked %d times", asked.Load())
			}
			var again uint64
			must(t, to.Fetch(ctx, []*Remote{o.honest(t)}, o.root, func(p Progress) { again = p.Blocks }))
			if again == 0 || again >= uint64(to.Blocks.Len()) {
				t.Errorf("%d of %d IPFS blocks were fetched again", again, to.Blocks.Len())
			}
			checkState(t, to.Blocks, o.root, o.docs)
		})
	}
}

// What is damaged on disk is fetched again, documents and directories alike.
func TestFetchHealsDamage(t *testing.T) {
	o := newOrigin(t)
	to := newRepo(t)
	must(t, to.Fetch(ctx, []*Remote{o.honest(t)}, o.root, nil))
	hit := 0
	for c, err := range dag.Walk(ctx, o.repo.Blocks, dag.Limits{}, o.root) {
		must(t, err)
		if data, err := o.repo.Blocks.Get(ctx, c); c.Prefix().Codec != cid.Raw && hit%2 == 0 {
			must(t, err)
			damage(t, to, dag.Block{CID: c, Data: data})
		}
		hit++
	}
	must(t, to.Fetch(ctx, []*Remote{o.honest(t)}, o.root, nil))
	checkState(t, to.Blocks, o.root, o.docs)
	raw := dag.RawBlock(o.docs["credentials/003.json"])
	damage(t, to, raw)
	if _, err := to.Blocks.Get(ctx, raw.CID); !errors.Is(err, dag.ErrHash) {
		t.Fatal(err)
	}
	var got uint64
	must(t, to.Fetch(ctx, []*Remote{o.honest(t)}, o.root, func(p Progress) { got = p.Blocks }))
	if got != 1 {
		t.Errorf("fetched %d IPFS blocks for one damaged", got)
	}
	checkState(t, to.Blocks, o.root, o.docs)
}

// A source that lies is found out, said to lie in the way that it does, and
// dropped: another one is asked. Nothing that it made up is kept.
func TestLyingSources(t *testing.T) {
	o := newOrigin(t)
	foreign := dag.RawBlock([]byte("nobody asked for this"))
	var foreignCAR bytes.Buffer
	must(t, dag.WriteCAR(ctx, &foreignCAR, one{foreign}, foreign.CID))
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", code) }
	}
	section := func(car []byte) []byte { // the first one after the header
		rest := car[1+int(car[0]):]
		n, k := binary.Uvarint(rest)
		return rest[:k+int(n)]
	}
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want []error
	}{
		"flips in a block": {func(w http.ResponseWriter, r *http.Request) {
			car := o.carOf(t, requested(r))
			car[len(car)/2] ^= 1
			w.Write(car)
		}, []error{dag.ErrHash}},
		"flips in the first block": {func(w http.ResponseWriter, r *http.Request) {
			car := o.carOf(t, requested(r))
			car[1+int(car[0])+60] ^= 1
			w.Write(car)
		}, []error{dag.ErrHash}},
		"sends another DAG": {func(w http.ResponseWriter, _ *http.Request) { w.Write(foreignCAR.Bytes()) }, []error{dag.ErrForeignBlock}},
		"adds a block": {func(w http.ResponseWriter, r *http.Request) {
			w.Write(o.carOf(t, requested(r)))
			w.Write(section(foreignCAR.Bytes()))
		}, []error{dag.ErrForeignBlock}},
		"repeats the root for ever": {func(w http.ResponseWriter, r *http.Request) {
			car := o.carOf(t, o.root)
			if _, err := w.Write(car[:1+int(car[0])]); err != nil {
				return
			}
			again := bytes.Repeat(section(car), 1000)
			for {
				if _, err := w.Write(again); err != nil {
					return
				}
			}
		}, []error{dag.ErrForeignBlock}},
		"endless header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte{0xff, 0xff, 0xff, 0x7f})
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, []error{dag.ErrMalformed}},
		"endless section": {func(w http.ResponseWriter, r *http.Request) {
			car := o.carOf(t, requested(r))
			w.Write(append(car[:1+int(car[0])], 0xff, 0xff, 0xff, 0xff, 0x0f))
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, []error{dag.ErrMalformed}},
		"header only": {func(w http.ResponseWriter, r *http.Request) {
			car := o.carOf(t, requested(r))
			w.Write(car[:1+int(car[0])])
		}, []error{ErrUnreachable, dag.ErrTruncated}},
		"nothing":     {func(http.ResponseWriter, *http.Request) {}, []error{ErrUnreachable, dag.ErrTruncated}},
		"a page":      {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>welcome</html>") }, []error{nil}},
		"404":         {status(404), []error{ErrUnreachable, dag.ErrNotFound}},
		"410":         {status(410), []error{ErrUnreachable}},
		"429":         {status(429), []error{ErrUnreachable}},
		"500":         {status(500), []error{ErrUnreachable}},
		"206":         {status(206), []error{ErrUnreachable}},
		"redirects":   {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) }, []error{ErrUnreachable}},
		"resets":      {reset, []error{ErrUnreachable}},
		"resets late": {func(w http.ResponseWriter, r *http.Request) { o.resetLate(t, w, r) }, []error{ErrUnreachable}},
	} {
		t.Run(name, func(t *testing.T) {
			to := newRepo(t)
			err := to.Fetch(ctx, []*Remote{through(t, c.h)}, o.root, nil)
			for _, want := range append(c.want, ErrIncomplete) {
				if want != nil && !errors.Is(err, want) {
					t.Errorf("error is not %q: %v", want, err)
				}
			}
			if err == nil {
				t.Fatal("believed")
			}
			for _, known := range kept(to) {
				if has, err := o.repo.Blocks.Has(ctx, known); err != nil || !has {
					t.Errorf("%s is kept", known)
				}
			}
			must(t, to.Fetch(ctx, []*Remote{through(t, c.h), o.honest(t)}, o.root, nil))
			checkState(t, to.Blocks, o.root, o.docs)
		})
	}
}

func reset(w http.ResponseWriter, _ *http.Request) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	c.(interface{ SetLinger(int) error }).SetLinger(0)
	c.Close()
}

// resetLate breaks the connection in the middle of the CAR.
func (o *origin) resetLate(t *testing.T, w http.ResponseWriter, r *http.Request) {
	car := o.carOf(t, requested(r))
	w.Header().Set("Content-Length", "1000000000")
	w.Write(car[:len(car)/2])
	w.(http.Flusher).Flush()
	reset(w, r)
}

// one is a source of a single IPFS block.
type one struct{ b dag.Block }

func (o one) Get(context.Context, cid.Cid) ([]byte, error) { return o.b.Data, nil }

// kept are the CIDs, as of raw blocks or directories, that a repository holds.
func kept(r *Repo) []cid.Cid {
	var out []cid.Cid
	for c := range r.Blocks.All(ctx) {
		out = append(out, c)
	}
	return out
}

// What a source flips is never handed out, whatever is asked for.
func TestBlockFromLyingSource(t *testing.T) {
	o := newOrigin(t)
	for name, answer := range map[string][]byte{"other": []byte("x"), "empty": nil, "too long": make([]byte, 3<<20)} {
		src := through(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(answer) })
		if _, err := src.Block(ctx, o.root); !errors.Is(err, dag.ErrHash) && !errors.Is(err, dag.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	src := through(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Write([]byte("short"))
	})
	if _, err := src.Block(ctx, o.root); !errors.Is(err, ErrUnreachable) {
		t.Errorf("cut: %v", err)
	}
	endless := through(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	if _, err := endless.Log("x").ReadEndpoint(ctx, "checkpoint"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("endless file of a log: %v", err)
	}
}

func TestFetchFromNowhere(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close() // nobody listens there any more
	o := newOrigin(t)
	peer := "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGRUVh5V9pZ8xW6GdQWkVbFq1TPTUbDoDKRYZ3FQLHwXr"
	for _, source := range []string{srv.URL, peer} {
		src, err := newRepo(t).Dial(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		err = newRepo(t).Fetch(ctx, []*Remote{src}, o.root, nil)
		if !errors.Is(err, ErrIncomplete) || !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), source) {
			t.Errorf("%s: %v", source, err)
		}
		must(t, src.Close())
	}
}

// A fetch that is ended keeps what came and the next one goes on from there.
func TestFetchIsCancelled(t *testing.T) {
	o := newOrigin(t)
	stop := errors.New("somebody pressed a key")
	for name, h := range map[string]http.HandlerFunc{
		"while it sends": o.gateway.ServeHTTP,
		"while it is silent": func(w http.ResponseWriter, r *http.Request) {
			car := o.carOf(t, requested(r))
			w.Write(car[:len(car)-5])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			to := newRepo(t)
			c, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			done := make(chan error, 1)
			go func() {
				done <- to.Fetch(c, []*Remote{through(t, h)}, o.root, func(p Progress) {
					if p.Blocks >= 20 {
						cancel(stop)
					}
				})
			}()
			var err error
			ended := false
			await(t, "the fetch to end", func() bool {
				select {
				case err = <-done:
					ended = true
				default:
				}
				return ended
			})
			if !errors.Is(err, stop) {
				t.Errorf("error %v", err)
			}
			must(t, to.Close())
			to, err = Open(ctx, to.Dir())
			must(t, err)
			defer to.Close()
			if to.Blocks.Len() < 20 {
				t.Errorf("%d IPFS blocks were kept", to.Blocks.Len())
			}
			had := to.Blocks.Len()
			var got uint64
			must(t, to.Fetch(ctx, []*Remote{o.honest(t)}, o.root, func(p Progress) { got = p.Blocks }))
			if int(got)+had != to.Blocks.Len() {
				t.Errorf("%d were there, %d came, %d are there", had, got, to.Blocks.Len())
			}
			checkState(t, to.Blocks, o.root, o.docs)
		})
	}
}

// foreign is the gateway of another IPFS node, which is boxo's, over a repository.
func foreign(t *testing.T, r *Repo) *Remote {
	t.Helper()
	bs := blockstore.NewIdStore(readOnly{r.Blocks})
	backend, err := gateway.NewBlocksBackend(blockservice.New(bs, offline.Exchange(bs)))
	must(t, err)
	h := gateway.NewHandler(gateway.Config{NoDNSLink: true}, backend)
	return through(t, h.ServeHTTP)
}

// Another IPFS node's gateway answers 200 for what it does not have, and says so in the
// CAR. That is no forgery: it is asked for other things, and others for this.
func TestFetchFromForeignGateway(t *testing.T) {
	o := newOrigin(t)
	without, part := newRepo(t), newRepo(t)
	root, err := o.repo.Blocks.Get(ctx, o.root)
	must(t, err)
	must(t, part.Blocks.Put(ctx, dag.Block{CID: o.root, Data: root}))
	for name, src := range map[string]*Remote{"nothing": foreign(t, without), "the root alone": foreign(t, part)} {
		err := newRepo(t).Fetch(ctx, []*Remote{src}, o.root, nil)
		if !errors.Is(err, ErrIncomplete) || !errors.Is(err, dag.ErrNotFound) || errors.Is(err, dag.ErrMalformed) || errors.Is(err, dag.ErrTruncated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	to := newRepo(t)
	err = to.Fetch(ctx, []*Remote{foreign(t, part), o.honest(t)}, o.root, func(p Progress) {
		if p.Dropped != nil {
			t.Errorf("%s is dropped: %v", p.Source, p.Dropped)
		}
	})
	must(t, err)
	checkState(t, to.Blocks, o.root, o.docs)
}
