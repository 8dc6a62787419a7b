package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

const (
	// importStall is how long a kubo node may take less than minRate of a CAR.
	importStall = time.Minute
	// importFinish is how long it may take to walk and pin what it has received.
	importFinish = 30 * time.Minute
	// rpcTimeout bounds a command that does no work.
	rpcTimeout = 30 * time.Second
)

// kubo is a kubo node, over its HTTP RPC (/api/v0).
type kubo struct {
	name, url string
	blocks    dag.Source
	token     tokenFile
	client    *http.Client
	// stall and finish are importStall and importFinish.
	stall, finish time.Duration
}

func newKubo(r node.Replica, blocks dag.Source, token tokenFile) *kubo {
	return &kubo{
		name: r.Name, url: placeURL(r.Endpoint), blocks: blocks, token: token,
		client: &http.Client{Transport: newTransport(), CheckRedirect: noRedirect},
		stall:  importStall, finish: importFinish,
	}
}

func (k *kubo) Name() string { return k.name }

// Push imports an item and has it pinned. Of one that resembles a DAG which is
// pinned there only what differs is sent.
func (k *kubo) Push(ctx context.Context, item Item) error {
	there, err := k.pinned(ctx, item.Root)
	if err != nil || there {
		return err
	}
	if err := refuseWithout(item); err != nil {
		return err
	}
	done, err := k.update(ctx, item)
	if err != nil {
		return err
	}
	if !done {
		err := k.importCAR(ctx, item.Root, true, func(ctx context.Context, w io.Writer) error {
			return dag.WriteCAR(ctx, w, k.blocks, item.Root)
		})
		if err != nil {
			return err
		}
	}
	there, err = k.pinned(ctx, item.Root)
	if err == nil && !there {
		err = fmt.Errorf("%w: %s is not pinned after it was imported", ErrRefused, item.Root)
	}
	return err
}

// update sends what an item has beyond the one before it, and pins it by what differs.
// It returns false where that cannot be done: the earlier one is not pinned there, or
// not here any more, or the node lacks something all the same.
func (k *kubo) update(ctx context.Context, item Item) (bool, error) {
	if !item.Previous.Defined() {
		return false, nil
	}
	there, err := k.pinned(ctx, item.Previous)
	if err != nil || !there {
		return false, err
	}
	err = k.importCAR(ctx, item.Root, false, func(ctx context.Context, w io.Writer) error {
		return dag.WritePartialCAR(ctx, w, k.blocks, []cid.Cid{item.Previous}, item.Root)
	})
	if err == nil {
		err = k.pinUpdate(ctx, item.Previous, item.Root)
	}
	if errors.Is(err, ErrRefused) || errors.Is(err, dag.ErrNotFound) || errors.Is(err, dag.ErrHash) {
		return false, nil // the whole of it may still do
	}
	return err == nil, err
}

// importCAR sends a CAR (dag/import). pin: its root is pinned, which checks that
// nothing is missing.
func (k *kubo) importCAR(ctx context.Context, root cid.Cid, pin bool, write func(context.Context, io.Writer) error) error {
	ctx, watch := watched(ctx, k.stall)
	defer watch.stop()
	body, in := io.Pipe()
	form := multipart.NewWriter(in)
	written := make(chan error, 1)
	go func() {
		part, err := form.CreateFormFile("file", root.String()+".car")
		if err == nil {
			err = write(ctx, &movingWriter{Writer: part, watch: watch, patience: k.stall})
		}
		if err == nil {
			err = form.Close()
		}
		watch.moved(k.finish)
		in.CloseWithError(err)
		written <- err
	}()
	// Without its statistics kubo answers nothing at all when it does not pin.
	args := url.Values{"pin-roots": {fmt.Sprint(pin)}, "stats": {"true"}}
	err := k.command(ctx, "dag/import", args, body, form.FormDataContentType(), func(r io.Reader) error {
		return readImport(r, root, pin)
	})
	body.Close() // ends a write that nobody reads
	switch writeErr := <-written; {
	case writeErr != nil && !errors.Is(writeErr, io.ErrClosedPipe) && ctx.Err() == nil:
		return writeErr // of this side: the IPFS blocks could not be read
	case err == nil && writeErr != nil:
		return fmt.Errorf("%w: dag/import answered before it had read the CAR", ErrRefused)
	}
	return err
}

// readImport reads the objects that dag/import answers with, one for each root.
func readImport(r io.Reader, root cid.Cid, pin bool) error {
	pinned := false
	err := readObjects(r, func(o importObject) error {
		if o.Root == nil {
			return nil
		}
		if o.Root.PinErrorMsg != "" {
			return fmt.Errorf("%w: dag/import did not pin: %s", ErrRefused, o.Root.PinErrorMsg)
		}
		c, err := cid.Decode(o.Root.Cid.Text)
		pinned = pinned || err == nil && c == root
		return nil
	})
	if err == nil && pin && !pinned {
		err = fmt.Errorf("%w: dag/import does not say that it pinned %s", ErrRefused, root)
	}
	return err
}

// importObject is one of the objects that dag/import answers with.
type importObject struct {
	Root *struct {
		Cid struct {
			Text string `json:"/"`
		}
		PinErrorMsg string
	}
}

// pinned asks whether a DAG has a recursive pin of its own.
func (k *kubo) pinned(ctx context.Context, c cid.Cid) (bool, error) {
	ctx, cancel := limited(ctx, rpcTimeout)
	defer cancel()
	there := false
	args := url.Values{"arg": {c.String()}, "type": {"recursive"}}
	err := k.command(ctx, "pin/ls", args, nil, "", func(r io.Reader) error {
		return readObjects(r, func(o struct {
			Keys map[string]struct{ Type string }
		}) error {
			for text, pin := range o.Keys {
				found, err := cid.Decode(text)
				there = there || err == nil && found == c && pin.Type == "recursive"
			}
			return nil
		})
	})
	if errors.Is(err, ErrRefused) && strings.Contains(err.Error(), "is not pinned") {
		return false, nil // there is no other sign of it
	}
	return there, err
}

// pinUpdate pins a DAG by its difference to another, which stays pinned. What is
// missing is not looked for elsewhere.
func (k *kubo) pinUpdate(ctx context.Context, from, to cid.Cid) error {
	ctx, watch := watched(ctx, k.finish)
	defer watch.stop()
	args := url.Values{"arg": {from.String(), to.String()}, "unpin": {"false"}, "offline": {"true"}}
	return k.command(ctx, "pin/update", args, nil, "", func(r io.Reader) error {
		return readObjects(r, func(struct{}) error { return nil })
	})
}

// Places is the node itself, under its peer id.
func (k *kubo) Places(ctx context.Context, _ Item) ([]Place, error) {
	ctx, cancel := limited(ctx, rpcTimeout)
	defer cancel()
	id := ""
	err := k.command(ctx, "id", nil, nil, "", func(r io.Reader) error {
		return readObjects(r, func(o struct{ ID string }) error {
			id = o.ID
			return nil
		})
	})
	if err == nil && id == "" {
		err = fmt.Errorf("%w: it has no peer id", ErrRefused)
	}
	if err != nil {
		return nil, err
	}
	return []Place{kuboPlace{k, peerID(id)}}, nil
}

// kuboPlace is a kubo node as somewhere to ask: what it has itself.
type kuboPlace struct {
	*kubo
	id string
}

func (p kuboPlace) ID() string { return p.id }

func (p kuboPlace) Identity(context.Context) Identity {
	return Identity{Peer: strings.TrimPrefix(p.id, "/p2p/")}
}

func (p kuboPlace) Blocks(ctx context.Context, _ Item, cids []cid.Cid) ([]dag.Block, error) {
	blocks := make([]dag.Block, 0, len(cids))
	for _, c := range cids {
		var data []byte
		args := url.Values{"arg": {c.String()}, "offline": {"true"}}
		err := p.command(ctx, "block/get", args, nil, "", func(r io.Reader) (err error) {
			data, err = io.ReadAll(io.LimitReader(r, dag.MaxBlockSize+1))
			return err
		})
		if errors.Is(err, ErrRefused) {
			err = fmt.Errorf("%w: %s: %w", dag.ErrNotFound, c, err)
		}
		if err != nil {
			return nil, err
		}
		b := dag.Block{CID: c, Data: data}
		if err := b.Check(); err != nil {
			return nil, err // one wrong answer is enough
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func (p kuboPlace) Close() error {
	p.client.CloseIdleConnections()
	return nil
}
