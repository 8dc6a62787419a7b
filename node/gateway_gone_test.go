package node

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/go-cid"
)

// What was erased is 410, what is only missing 404; a collection misses the latter alone, and
// whoever fetches is told by both that there is nothing here.
func TestGone(t *testing.T) {
	r := newRepo(t)
	root, docs := putState(t, r.Blocks, 1)
	must(t, r.Pin(ctx, root, "s"))
	erased, missing := dag.RawBlock(docs["credentials/007.json"]).CID, dag.RawBlock(docs["credentials/008.json"]).CID
	first := dag.RawBlock(docs["large.bin"][:dag.ChunkSize]).CID
	large, err := dag.Lookup(ctx, r.Blocks, root, "large.bin")
	must(t, err)
	r.Gone = func(_ context.Context, c cid.Cid) bool { return c == erased || c == first || c == large.Link.CID }
	url := testGateway(t, r, nil)
	status := func(method, path string, header ...string) int {
		t.Helper()
		resp, _ := request(t, method, url+path, header...)
		return resp.StatusCode
	}
	state := "/ipfs/" + root.String()
	paths := []string{
		state + "/credentials/007.json", "/ipfs/" + erased.String(), "/ipfs/" + erased.String() + "?format=raw", "/ipfs/" + erased.String() + "?format=car",
		state + "/large.bin",
	}
	for _, path := range paths {
		if got := status("GET", path); got != http.StatusOK {
			t.Errorf("before, %s: %d", path, got)
		}
	}
	must(t, r.Blocks.Erase(ctx, erased, first, missing))
	for _, path := range paths {
		if got := status("GET", path); got != http.StatusGone {
			t.Errorf("%s: %d", path, got)
		}
	}
	if got := status("GET", state+"/credentials/007.json", "Range", "bytes=1-2"); got != http.StatusGone {
		t.Errorf("a range: %d", got)
	}
	for _, path := range []string{"/ipfs/" + erased.String(), state + "/large.bin"} {
		if got := status("HEAD", path); got != http.StatusGone {
			t.Errorf("HEAD %s: %d", path, got)
		}
	}
	for _, path := range []string{state + "/credentials/008.json", "/ipfs/" + missing.String() + "?format=raw"} {
		if got := status("GET", path); got != http.StatusNotFound {
			t.Errorf("missing, %s: %d", path, got)
		}
	}
	if got := status("GET", state+"/credentials/"); got != http.StatusOK {
		t.Errorf("the folder: %d", got)
	}

	got, err := r.Collect(ctx, func(context.Context) ([]cid.Cid, error) { return nil, nil }, segments.CollectOptions{})
	must(t, err)
	if !slices.Equal(got.Missing, []cid.Cid{missing}) {
		t.Errorf("collecting misses %v, not %s", got.Missing, missing)
	}
	to := newRepo(t)
	remote, err := to.Dial(url)
	must(t, err)
	defer remote.Close()
	for _, c := range []cid.Cid{erased, missing} {
		if _, err := remote.Block(ctx, c); !errors.Is(err, dag.ErrNotFound) {
			t.Errorf("%s: %v", c, err)
		}
	}
	if err := to.Fetch(ctx, []*Remote{remote}, root, nil); !errors.Is(err, ErrIncomplete) {
		t.Errorf("fetch: %v", err)
	}
	gaps, err := dag.Missing(ctx, to.Blocks, root)
	must(t, err)
	if len(gaps) != 3 {
		t.Errorf("beside what is gone, missing are %v", gaps)
	}
	var out bytes.Buffer
	link, err := dag.Lookup(ctx, to.Blocks, root, "credentials/009.json")
	must(t, err)
	if _, err := dag.CopyDocument(ctx, to.Blocks, link.Link, &out); err != nil || !bytes.Equal(out.Bytes(), docs["credentials/009.json"]) {
		t.Errorf("what is beside it: %v", err)
	}
}
