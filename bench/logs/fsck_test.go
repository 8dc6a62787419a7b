package logs

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// fsck lets tessera's fsck read a bank's log under a prefix of a gateway. Its exit
// status says nothing; its line does.
func fsck(t testing.TB, b *savepoints.Bank, gateway, prefix string) (ok bool, out string) {
	t.Helper()
	program, err := buildFsck()
	must(t, err)
	_, vkey := policyOf(t, b)
	key := filepath.Join(t.TempDir(), "log.vkey")
	must(t, os.WriteFile(key, []byte(vkey), 0o600))
	head := headOf(t, b)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	said, _ := exec.CommandContext(limited, program, "-N", "4", "-ui=false", "-public_key", key, "-storage_url", gateway+prefix).CombinedOutput()
	_, line, ok := strings.Cut(string(said), fmt.Sprintf("Successfully fsck'd log with size %d and root ", head.Size))
	hex, b64 := fmt.Sprintf("%x", head.RootHash[:]), base64.StdEncoding.EncodeToString(head.RootHash[:])
	return ok && (strings.HasPrefix(line, hex) || strings.HasPrefix(line, b64)), string(said)
}

// serve serves a bank's gateway, and returns its URL.
func serve(t testing.TB, b *savepoints.Bank) string {
	t.Helper()
	gateway, err := b.Repo().Gateway(b.LogRoot)
	must(t, err)
	web := httptest.NewServer(gateway)
	t.Cleanup(web.Close)
	return web.URL
}

// lie serves what a gateway serves, but for a bit of what paths with this end have.
// told counts how often it lied.
func lie(t testing.TB, gateway, path string) (at string, told *atomic.Int64) {
	t.Helper()
	target, err := url.Parse(gateway)
	must(t, err)
	told = new(atomic.Int64)
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorLog: log.New(io.Discard, "", 0), // of requests that fsck gives up

		ModifyResponse: func(r *http.Response) error {
			if !strings.HasSuffix(r.Request.URL.Path, path) || r.StatusCode != http.StatusOK {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			body[len(body)/2] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(body))
			told.Add(1)
			return nil
		},
	}
	web := httptest.NewServer(proxy)
	t.Cleanup(web.Close)
	return web.URL, told
}

// damaged opens a copy of a bank in whose files one bit of an IPFS block is flipped.
func damaged(t testing.TB, b *savepoints.Bank, block string) *savepoints.Bank {
	t.Helper()
	c := copyOf(t, b)
	dir := c.Repo().Dir()
	must(t, c.Close())
	files, err := filepath.Glob(filepath.Join(dir, "packs", "*.car"))
	must(t, err)
	flipped := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		if at := bytes.Index(data, []byte(block)); at >= 0 {
			data[at+len(block)/2] ^= 1
			must(t, os.WriteFile(file, data, 0o600))
			flipped++
		}
	}
	if flipped != 1 {
		t.Fatalf("the IPFS block is in %d segments", flipped)
	}
	c, err = savepoints.Open(ctx, dir)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestFsck lets tessera's fsck read the log at each of the three places where a gateway
// shows it as a tlog-tiles prefix: it passes, and fails after one wrong bit anywhere,
// whether a gateway tells it or the repository's own disk has it.
func TestFsck(t *testing.T) {
	b := newBank(t, savepoints.InitOptions{})
	take(t, b, 300) // a full tile and bundle of 256, and partial ones of 44
	publish, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); b.KeepPublished(publish, func(err error) { t.Log(err) }) }()
	defer func() { stop(); <-done }()
	text, _ := policyOf(t, b)
	p, err := anchor.ParsePolicy(text)
	must(t, err)
	name, ok := strings.CutPrefix(p.URLs[0], "ipns://")
	if !ok {
		t.Fatalf("the policy names %q", p.URLs)
	}
	head := headOf(t, b)
	until(t, "the name", func() bool {
		n, err := b.Repo().Name(name)
		return err == nil && n.Value == "/ipfs/"+head.Root.String()
	})
	gateway := serve(t, b)
	prefixes := map[string]string{
		"ipfs": "/ipfs/" + head.Root.String() + "/", "ipns": "/ipns/" + name + "/", "tlog": "/tlog/" + savepoints.LogID(b.Origin()) + "/",
	}
	for kind, prefix := range prefixes {
		if ok, out := fsck(t, b, gateway, prefix); !ok {
			t.Fatalf("%s: %s", kind, out)
		}
	}
	for what, path := range map[string]string{
		"full bundle": "tile/entries/000", "partial bundle": "tile/entries/001.p/44",
		"full tile": "tile/0/000", "partial tile": "tile/0/001.p/44", "upper tile": "tile/1/000.p/1",
		"checkpoint": "checkpoint",
	} {
		liar, told := lie(t, gateway, "/"+path)
		_, _, block := get(gateway + prefixes["ipfs"] + path)
		onDisk := serve(t, damaged(t, b, block))
		for kind, prefix := range prefixes {
			t.Run(what+" of a liar/"+kind, func(t *testing.T) {
				before := told.Load()
				if ok, _ := fsck(t, b, liar, prefix); ok || told.Load() == before {
					t.Errorf("fsck passes: %v, after %d lies", ok, told.Load()-before)
				}
			})
			t.Run(what+" on disk/"+kind, func(t *testing.T) {
				ok, _ := fsck(t, b, onDisk, prefix)
				if status, _, _ := get(onDisk + prefix + path); ok || status == http.StatusOK {
					t.Errorf("fsck passes: %v; the gateway answers %d", ok, status)
				}
			})
		}
	}
}
