package savepoints_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// copyLog writes the files of a bank's log to a folder, as a mirror does.
func copyLog(t *testing.T, b *savepoints.Bank, dir string) {
	t.Helper()
	h, err := b.Head(ctx, "")
	must(t, err)
	for doc, err := range dag.Documents(ctx, b.Repo().Blocks, h.Root) {
		must(t, err)
		data, err := dag.ReadDocument(ctx, b.Repo().Blocks, h.Root, doc.Path)
		must(t, err)
		path := filepath.Join(dir, filepath.FromSlash(doc.Path))
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, data, 0o600))
	}
}

// logMirror is a web server that has the files of a log below /mirror/, and answers a
// status for what it does not have.
func logMirror(t *testing.T, dir string, missing int) (*counted, string) {
	t.Helper()
	files := http.StripPrefix("/mirror", http.FileServer(http.Dir(dir)))
	c := &counted{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(filepath.Join(dir, strings.TrimPrefix(r.URL.Path, "/mirror"))); err != nil {
			http.Error(w, "no such object", missing)
			return
		}
		files.ServeHTTP(w, r)
	})}
	web := httptest.NewServer(c)
	t.Cleanup(web.Close)
	return c, web.URL + "/mirror"
}

// withoutLog is a gateway that has all IPFS blocks of a bank and does not show its log.
func withoutLog(t *testing.T, b *savepoints.Bank) (*counted, string) {
	t.Helper()
	c, url := countedGateway(t, b)
	c.deny = "/tlog/"
	return c, url
}

// A tlog-tiles prefix is a source of the log, in whatever way it is named; the save point
// comes from another.
func TestPrefixIsSource(t *testing.T) {
	b := initBank(t)
	for i := range 3 {
		take(t, b, smallState(i), "p")
	}
	dir := t.TempDir()
	copyLog(t, b, dir)
	c, url := logMirror(t, dir, http.StatusNotFound)
	_, store := logMirror(t, dir, http.StatusForbidden) // as object stores do
	_, blocks := withoutLog(t, b)
	text, err := b.TrustPolicy()
	must(t, err)
	line := strings.Fields(strings.SplitAfter(string(text), "\nlog ")[1])[0]
	for name, of := range map[string]struct {
		policy string
		source []string
	}{
		"URL":          {string(text), []string{url + "/"}},
		"object store": {string(text), []string{store}},
		"folder":       {string(text), []string{dir}},
		"file URL":     {string(text), []string{"file://" + dir + "/"}},
		"log line":     {fmt.Sprintf("log %s %s\nquorum none\n", line, url), nil},
		"mirror line":  {fmt.Sprintf("%s# ipfs-savepoint: mirror %s/\n", text, url), nil},
	} {
		p, err := anchor.ParsePolicy([]byte(of.policy))
		must(t, err)
		to, _ := reader(t, b)
		o := savepoints.FetchOptions{Policy: p, Sources: append(of.source, blocks)}
		got, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, o)
		if err != nil || got.Entry.Sequence != 3 {
			t.Errorf("%s: sequence %d, %v", name, got.Entry.Sequence, err)
			continue
		}
		checkDocuments(t, to, got.Savepoint, smallState(2))
		// It is nobody to ask for IPFS blocks.
		o.Sources = of.source
		to, _ = reader(t, b)
		if _, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, o); !errors.Is(err, node.ErrIncomplete) {
			t.Errorf("%s alone: %v", name, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ask := range c.asks {
		if strings.Contains(ask, "/ipfs/") {
			t.Errorf("a mirror of the log was asked for %s", ask)
		}
	}
}

// What a mirror shows is compared with what others show.
func TestPrefixIsCompared(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	fork := openBank(t, copyBank(t, b))
	old, forked := t.TempDir(), t.TempDir()
	copyLog(t, b, old)
	take(t, b, smallState(2), "p")
	take(t, fork, smallState(3), "p")
	copyLog(t, fork, forked)
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	d, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{url, old}})
	if err != nil || d.Head.Size != 2 {
		t.Errorf("with a mirror that is behind: size %d, %v", d.Head.Size, err)
	}
	if _, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{url, forked}}); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("with a forked mirror: %v", err)
	}
	other := t.TempDir()
	copyLog(t, initBank(t), other)
	if _, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{other}}); !errors.Is(err, anchor.ErrUntrusted) {
		t.Errorf("of another log: %v", err)
	}
}

// rootOf is the newest log root of a bank as a source.
func rootOf(t *testing.T, b *savepoints.Bank) string {
	t.Helper()
	h, err := b.Head(ctx, "")
	must(t, err)
	return "/ipfs/" + h.Root.String()
}

// A log root is where the log is read, and a floor for what others show.
func TestLogRootIsSource(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	old := openBank(t, copyBank(t, b))
	take(t, b, smallState(2), "p")
	fork := openBank(t, copyBank(t, old))
	take(t, fork, smallState(7), "p")
	root, forkRoot := rootOf(t, b), rootOf(t, fork)
	_, blocks := withoutLog(t, b)
	_, forkBlocks := withoutLog(t, fork)
	_, behind := countedGateway(t, old)
	withheld, tiles := countedGateway(t, b)
	withheld.deny = root + "/tile/"
	_, noLog := withoutLog(t, b)
	take(t, b, smallState(3), "p")
	_, ahead := countedGateway(t, b)
	lying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := old.Repo().Blocks.Get(ctx, mustHead(t, old).Root)
		if err != nil || !strings.HasPrefix(r.URL.Path, root) {
			http.NotFound(w, r)
			return
		}
		w.Write(data)
	}))
	defer lying.Close()
	for name, of := range map[string]struct {
		sources []string
		size    int64
		err     error
	}{
		"alone":                {[]string{root, blocks}, 2, nil},
		"what is behind it":    {[]string{root + "/", noLog, behind}, 2, nil},
		"what is ahead of it":  {[]string{root, ahead}, 3, nil},
		"a fork":               {[]string{forkRoot, forkBlocks, ahead}, 0, anchor.ErrFork},
		"nobody has it":        {[]string{root, behind}, 0, dag.ErrNotFound},
		"its tiles withheld":   {[]string{root, tiles, behind}, 0, anchor.ErrRollback},
		"something else":       {[]string{root, lying.URL, behind}, 0, dag.ErrHash},
		"another log":          {[]string{rootOf(t, initBank(t)), blocks}, 0, dag.ErrNotFound},
		"no CID":               {[]string{"/ipfs/nonsense", blocks}, 0, savepoints.ErrUsage},
		"no directory":         {[]string{"/ipfs/" + dag.RawBlock(nil).CID.String(), blocks}, 0, savepoints.ErrUsage},
		"a path":               {[]string{root + "/checkpoint", blocks}, 0, savepoints.ErrUsage},
		"nobody to ask for it": {[]string{root}, 0, savepoints.ErrUsage},
	} {
		to, p := reader(t, b)
		if name == "its tiles withheld" {
			withheld.mu.Lock()
			withheld.next = hiding(withheld.next, "/tlog/")
			withheld.mu.Unlock()
		}
		d, err := to.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: of.sources})
		if !errors.Is(err, of.err) || d.Head.Size != of.size {
			t.Errorf("%s: size %d, %v", name, d.Head.Size, err)
		}
	}
	// An archive has no log to compare with.
	to, p := reader(t, b)
	archive := filepath.Join(t.TempDir(), "a.car")
	must(t, os.WriteFile(archive, export(t, b, list(t, b)[0]), 0o600))
	_, err := to.Fetch(ctx, savepoints.Ref{Policy: "p"}, savepoints.FetchOptions{Policy: p, Sources: []string{root, archive}})
	if !errors.Is(err, savepoints.ErrUsage) {
		t.Error(err)
	}
	// What is here already needs nobody else.
	d, err := b.Discover(ctx, savepoints.FetchOptions{Policy: policyOf(t, b), Sources: []string{root}})
	if err != nil || d.Head.Size != 3 {
		t.Errorf("size %d, %v", d.Head.Size, err)
	}
}

// hiding does not find what begins with a prefix.
func hiding(next http.Handler, prefix string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, prefix) {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func mustHead(t *testing.T, b *savepoints.Bank) anchor.Head {
	t.Helper()
	h, err := b.Head(ctx, "")
	must(t, err)
	return h
}
