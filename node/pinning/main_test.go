package pinning

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	client "github.com/ipfs/boxo/pinning/remote/client"
	"github.com/ipfs/go-cid"
)

const token = "open sesame"

var ctx = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await waits until ok says so, at most a minute.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// peer is a node that serves, with the API if it was started.
type peer struct {
	t    *testing.T
	repo *node.Repo
	net  *node.Network
	api  *Server
}

func open(t *testing.T, dir, swarm string) *peer {
	t.Helper()
	openRepo := node.Open
	if !node.Exists(dir) {
		openRepo = node.Create
	}
	repo, err := openRepo(ctx, dir)
	must(t, err)
	net, err := repo.Serve(ctx, node.ServeOptions{Gateway: "127.0.0.1:0", Swarm: []string{swarm}})
	must(t, err)
	p := &peer{t: t, repo: repo, net: net}
	t.Cleanup(p.close)
	return p
}

func newPeer(t *testing.T) *peer {
	return open(t, filepath.Join(t.TempDir(), "repo"), "/ip4/127.0.0.1/tcp/0")
}

// start offers the API, which tries again quickly if nothing else is said.
func (p *peer) start(o Options) *peer {
	p.t.Helper()
	if o.Pauses == nil {
		o.Pauses = []time.Duration{10 * time.Millisecond, 20 * time.Millisecond}
	}
	digest := sha256.Sum256([]byte(token))
	o.Tokens = append(o.Tokens, hex.EncodeToString(digest[:]))
	var err error
	p.api, err = Start(p.repo, p.net, o)
	must(p.t, err)
	p.net.Handle("/pinning/", http.StripPrefix("/pinning", p.api))
	return p
}

func (p *peer) close() {
	if p.repo == nil {
		return
	}
	if p.api != nil {
		must(p.t, p.api.Close())
	}
	must(p.t, p.net.Close())
	must(p.t, p.repo.Close())
	p.repo = nil
}

func (p *peer) endpoint() string { return p.net.GatewayURL() + "/pinning" }

func (p *peer) client() *client.Client { return client.NewClient(p.endpoint(), token) }

func (p *peer) address() string { return p.net.Addresses()[0] }

// holds reports whether all of a DAG is there.
func (p *peer) holds(root cid.Cid) bool {
	missing, err := dag.Missing(ctx, p.repo.Blocks, root)
	must(p.t, err)
	return len(missing) == 0
}

// pinsOf are the CIDs that an owner has pinned.
func (p *peer) pinsOf(owner string) []cid.Cid {
	pins, err := p.repo.Pins()
	must(p.t, err)
	var out []cid.Cid
	for _, pin := range pins {
		if pin.Owner == owner {
			out = append(out, pin.CID)
		}
	}
	return out
}

func (p *peer) pinned(c cid.Cid) bool { return slices.Contains(p.pinsOf(Owner), c) }

// putDAG puts a DAG of some nodes.
func (p *peer) putDAG(seed string) cid.Cid {
	p.t.Helper()
	var tree dag.Editor
	for i := range 120 {
		l, _, err := dag.WriteDocument(ctx, p.repo.Blocks, strings.NewReader(fmt.Sprint(seed, i)))
		must(p.t, err)
		must(p.t, tree.Put(fmt.Sprintf("c/%d.json", i), l))
	}
	root, err := tree.Apply(ctx, nil, p.repo.Blocks, cid.Undef)
	must(p.t, err)
	must(p.t, p.repo.Blocks.Sync(ctx))
	return root.CID
}

// call sends a request with the token, and decodes the answer into out.
func (p *peer) call(method, path, body string, out any) *http.Response {
	p.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, p.endpoint()+path, strings.NewReader(body))
	must(p.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	must(p.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(p.t, err)
	if out != nil {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(out); err != nil {
			p.t.Fatalf("%s %s: %s, %v: %s", method, path, resp.Status, err, data)
		}
	}
	return resp
}

// add asks for a pin and returns the id of the request.
func (p *peer) add(c cid.Cid, origins ...string) string {
	p.t.Helper()
	body, err := json.Marshal(pin{CID: c.String(), Origins: origins})
	must(p.t, err)
	var status pinStatus
	if resp := p.call("POST", "/pins", string(body), &status); resp.StatusCode != http.StatusAccepted {
		p.t.Fatalf("POST /pins: %s", resp.Status)
	}
	return status.RequestID
}

// awaitStatus waits until a request is so far, and returns what is said of it.
func (p *peer) awaitStatus(id string, want status) pinStatus {
	p.t.Helper()
	var got pinStatus
	await(p.t, fmt.Sprintf("%s to be %s", id, want), func() bool {
		got = pinStatus{}
		if resp := p.call("GET", "/pins/"+id, "", &got); resp.StatusCode != http.StatusOK {
			p.t.Fatalf("GET /pins/%s: %s", id, resp.Status)
		}
		if got.Status != want && !got.Status.open() {
			p.t.Fatalf("%s is %s: %s", id, got.Status, got.Info)
		}
		return got.Status == want
	})
	return got
}
