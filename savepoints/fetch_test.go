package savepoints_test

import (
	"errors"
	"io"
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

func fetch(b *savepoints.Bank, ref savepoints.Ref, p *anchor.Policy, sources ...string) (savepoints.Savepoint, error) {
	f, err := b.Fetch(ctx, ref, savepoints.FetchOptions{Policy: p, Sources: sources})
	return f.Savepoint, err
}

// copyBank copies a bank's folder, as a backup does.
func copyBank(t *testing.T, b *savepoints.Bank) string {
	t.Helper()
	must(t, b.Repo().Blocks.Sync(ctx))
	to := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(to, os.DirFS(b.Repo().Dir())))
	return to
}

func TestFetchFromEveryKindOfSource(t *testing.T) {
	b := initBank(t)
	s := someState()
	taken, err := b.Take(ctx, s, savepoints.TakeOptions{Policy: "p", Blocks: []string{"mint"}})
	must(t, err)
	take(t, b, smallState(1), "p")
	n := serve(t, b)
	archive := filepath.Join(t.TempDir(), "a.car")
	must(t, os.WriteFile(archive, export(t, b, taken.Savepoint), 0o600))
	for name, source := range map[string]string{"URL": n.GatewayURL(), "multiaddr": n.Addresses()[0], "archive": archive, "folder": copyBank(t, b)} {
		t.Run(name, func(t *testing.T) {
			to, p := reader(t, b)
			var reports []string
			var progress node.Progress
			o := savepoints.FetchOptions{
				Policy: p, Sources: []string{source},
				Report:   func(format string, args ...any) { reports = append(reports, format) },
				Progress: func(p node.Progress) { progress = p },
			}
			for _, ref := range []string{"p@1", "p:mint", taken.CID.String()} {
				r, err := savepoints.ParseRef(ref)
				must(t, err)
				got, err := to.Fetch(ctx, r, o)
				must(t, err)
				if got.CID != taken.CID {
					t.Errorf("%s is %s", ref, got.CID)
				}
				checkDocuments(t, to, got.Savepoint, s)
			}
			if progress.Blocks == 0 || name != "archive" && len(reports) == 0 {
				t.Errorf("progress %+v, reports %q", progress, reports)
			}
			if _, err := to.Fetch(ctx, savepoints.Ref{Policy: "q"}, o); !errors.Is(err, savepoints.ErrNotFound) {
				t.Errorf("another policy: %v", err)
			}
			if l := list(t, to); len(l) != 1 {
				t.Errorf("%d save points", len(l))
			}
		})
	}
}

// Two sources of which one is behind: the newest is fetched.
func TestFetchFromStaleSource(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	stale := openBank(t, copyBank(t, b))
	newest := take(t, b, smallState(1), "p")
	ahead, behind := serve(t, b).GatewayURL(), serve(t, stale).GatewayURL()
	for _, sources := range [][]string{{ahead, behind}, {behind, ahead}} {
		to, p := reader(t, b)
		got, err := fetch(to, savepoints.Ref{Policy: "p"}, p, sources...)
		must(t, err)
		if got.CID != newest.CID {
			t.Errorf("got sequence %d", got.Entry.Sequence)
		}
		// From now on the stale one alone is a rollback, and changes nothing.
		_, err = fetch(to, savepoints.Ref{Policy: "p"}, p, behind)
		if !errors.Is(err, anchor.ErrRollback) {
			t.Errorf("the stale source alone: %v", err)
		}
		head, err := to.Head(ctx, b.Origin())
		if err != nil || head.Size != 2 {
			t.Errorf("head of size %d, %v", head.Size, err)
		}
		checkDocuments(t, to, list(t, to)[0], smallState(1))
	}
}

// Two sources that show two histories of one log: nothing is fetched.
func TestFetchFromForkedSources(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(0), "p")
	fork := openBank(t, copyBank(t, b))
	take(t, b, smallState(1), "p")
	take(t, fork, smallState(2), "p")
	one, two := serve(t, b).GatewayURL(), serve(t, fork).GatewayURL()
	to, p := reader(t, b)
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, one, two); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("both: %v", err)
	}
	if len(list(t, to)) != 0 {
		t.Error("something was kept")
	}
	// In whatever order they are named: the one that is wrong must not stick.
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, two, one); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("both, the other way round: %v", err)
	}
	take(t, fork, smallState(3), "p") // the longer one is no better
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, one, two); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("both, one longer: %v", err)
	}
	_, err := fetch(to, savepoints.Ref{Policy: "p"}, p, one)
	must(t, err)
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, two); !errors.Is(err, anchor.ErrFork) {
		t.Errorf("the other after the one: %v", err)
	}
	checkDocuments(t, to, list(t, to)[0], smallState(1))
}

// Sources that are not there, or lie, do not keep those that are honest from being asked.
func TestFetchPastBadSources(t *testing.T) {
	b := initBank(t)
	taken := take(t, b, someState(), "p")
	url := serve(t, b).GatewayURL()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	empty := httptest.NewServer(http.NotFoundHandler())
	defer empty.Close()
	// Honest about the log, and flips every CAR.
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := http.Get(url + r.URL.RequestURI())
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if strings.HasPrefix(r.URL.Path, "/ipfs/") && len(data) > 0 {
			data[len(data)-1] ^= 1
		}
		w.WriteHeader(resp.StatusCode)
		w.Write(data)
	}))
	defer liar.Close()
	to, p := reader(t, b)
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, gone.URL, empty.URL); !errors.Is(err, node.ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, liar.URL); !errors.Is(err, dag.ErrHash) || !errors.Is(err, node.ErrIncomplete) {
		t.Errorf("the liar alone: %v", err)
	}
	if len(list(t, to)) != 0 {
		t.Error("something was kept")
	}
	got, err := fetch(to, savepoints.Ref{Policy: "p"}, p, gone.URL, liar.URL, empty.URL, url)
	must(t, err)
	if got.CID != taken.CID {
		t.Errorf("got %s", got.CID)
	}
	checkDocuments(t, to, got, someState())
}

// Of an archive and a source on the network that is not there, the archive serves.
func TestFetchFallsBackToArchive(t *testing.T) {
	b := initBank(t)
	taken := take(t, b, smallState(1), "p")
	archive := filepath.Join(t.TempDir(), "a.car")
	must(t, os.WriteFile(archive, export(t, b, taken.Savepoint), 0o600))
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	to, p := reader(t, b)
	got, err := fetch(to, savepoints.Ref{CID: taken.CID}, p, gone.URL, archive)
	must(t, err)
	checkDocuments(t, to, got, smallState(1))
}

func TestFetchUsage(t *testing.T) {
	b := initBank(t)
	to, p := reader(t, b)
	for _, sources := range [][]string{nil, {"/no/such/file.car"}, {"ftp://host/"}, {"/ip4/127.0.0.1/tcp/1/p2p/x"}} {
		if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, sources...); !errors.Is(err, savepoints.ErrUsage) {
			t.Errorf("%q: %v", sources, err)
		}
	}
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, t.TempDir()); !errors.Is(err, node.ErrNoRepo) {
		t.Errorf("a folder that is no repository: %v", err)
	}
	url := serve(t, b).GatewayURL()
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url); !errors.Is(err, savepoints.ErrNotFound) {
		t.Errorf("an empty log: %v", err)
	}
	_, wrong := reader(t, initBank(t))
	if _, err := fetch(to, savepoints.Ref{Policy: "p"}, wrong, url); !errors.Is(err, node.ErrUnreachable) {
		t.Errorf("a log that the source does not hold: %v", err)
	}
}

// Damage in several places of what was fetched is healed by one more fetch.
func TestFetchHealsDamage(t *testing.T) {
	b := initBank(t)
	s := someState()
	taken := take(t, b, s, "p")
	url := serve(t, b).GatewayURL()
	to, p := reader(t, b)
	got, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url)
	must(t, err)
	root, err := to.Repo().Blocks.Get(ctx, taken.Manifest.State)
	must(t, err)
	manifest, err := to.Repo().Blocks.Get(ctx, taken.CID)
	must(t, err)
	for _, data := range [][]byte{[]byte(s["credentials/001.json"]), []byte(s["credentials/050.json"]), []byte(s["credentials/119.json"]), root, manifest} {
		damageBlock(t, to, data)
	}
	again, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url)
	must(t, err)
	if again.CID != got.CID {
		t.Errorf("%s became %s", got.CID, again.CID)
	}
	checkDocuments(t, to, again, s)
	must(t, to.Close())
	to = openBank(t, to.Repo().Dir())
	checkDocuments(t, to, list(t, to)[0], s)
}
