package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// carNodes are the CIDs of the nodes of a CAR, in order.
func carNodes(t *testing.T, car []byte) []cid.Cid {
	t.Helper()
	r, err := dag.ReadCAR(bytes.NewReader(car))
	must(t, err)
	var nodes []cid.Cid
	for {
		b, err := r.Next()
		if err == io.EOF {
			return nodes
		}
		must(t, err)
		nodes = append(nodes, b.CID)
	}
}

// A proof of a document is what a trustless gateway gives for it, node by node and
// in the same order, and either is accepted for the other.
func TestProofEqualsGatewayCAR(t *testing.T) {
	r := newRepo(t)
	documents := map[string][]byte{
		"top": []byte("top"), "empty": {}, "a/b/c/d": []byte("deep"), "ünï/côde é": []byte("ü"),
		"large": bytesOf(3, 2*dag.ChunkSize+7),
	}
	for i := range 300 {
		documents[fmt.Sprintf("hamt/%030d", i)] = bytesOf(uint64(i)+9, i)
	}
	var state dag.Editor
	for path, data := range documents {
		l, _, err := dag.WriteDocument(ctx, r.Blocks, bytes.NewReader(data))
		must(t, err)
		must(t, state.Put(path, l))
	}
	root, err := state.Apply(ctx, nil, r.Blocks, cid.Undef)
	must(t, err)
	m := dag.Manifest{
		Version: dag.ManifestVersion, Profile: dag.Profile, Policy: dag.Policy{ID: "p"}, Sequence: 1, Time: time.Unix(0, 0).UTC(),
		Triggers: []dag.Trigger{{Kind: dag.TriggerManual}}, State: root.CID,
		Consistency: dag.Consistency{Method: "test", Consistent: true},
		Provider:    dag.Provider{Name: "test", Plugins: []string{}}, Tool: dag.Tool{Name: "test", Version: "0"},
	}
	manifest, err := m.Block()
	must(t, err)
	must(t, r.Blocks.Put(ctx, manifest))
	gateway := testGateway(t, r, nil)

	for top, prefix := range map[cid.Cid]string{root.CID: "", manifest.CID: "/state"} {
		get := func(path string) (*http.Response, []byte) {
			names := strings.Split(path, "/")
			for i := range names {
				names[i] = url.PathEscape(names[i])
			}
			resp, body := request(t, "GET", gateway+"/ipfs/"+top.String()+prefix+"/"+strings.Join(names, "/")+"?format=car&dag-scope=entity")
			return resp, []byte(body)
		}
		for path, want := range documents {
			resp, theirs := get(path)
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%q: %s", path, resp.Status)
			}
			var ours, got bytes.Buffer
			must(t, dag.WriteProof(ctx, &ours, r.Blocks, top, path))
			if a, b := carNodes(t, ours.Bytes()), carNodes(t, theirs); !slices.Equal(a, b) {
				t.Errorf("%q: our nodes are %v, the gateway's %v", path, a, b)
			}
			if _, err := dag.VerifyProof(ctx, bytes.NewReader(theirs), top, path, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%q: the gateway's CAR: %v", path, err)
			}
		}
		for _, path := range []string{"none", "a/none", "hamt/none", "top/x"} {
			resp, theirs := get(path)
			if _, err := dag.VerifyProof(ctx, bytes.NewReader(theirs), top, path, nil); !errors.Is(err, dag.ErrNoDocument) {
				t.Errorf("absent %q: %s, %v", path, resp.Status, err)
			}
		}
	}
}
