package logs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"golang.org/x/mod/sumdb/note"
)

// TestWitnesses makes the same requests to litewitness, to omniwitness and to
// "log witness", each a process of its own.
func TestWitnesses(t *testing.T) {
	w := newWatched(t)
	for name, start := range map[string]func(t *testing.T) (key, url string){
		"ours": func(t *testing.T) (string, string) {
			x := newOurWitness(t)
			for _, text := range []string{w.trusted, w.anotherTrusted} {
				file := filepath.Join(t.TempDir(), "trust.policy")
				must(t, os.WriteFile(file, []byte(text), 0o600))
				x.watch(t, file)
			}
			return x.key, x.url
		},
		"litewitness": func(t *testing.T) (string, string) {
			x := newLitewitness(t)
			x.watch(t, w.vkey)
			x.watch(t, w.anotherKey)
			return x.key, x.url
		},
		"omniwitness": func(t *testing.T) (string, string) {
			x := newOmniwitness(t, w.vkey, w.anotherKey)
			return x.key, x.url
		},
	} {
		t.Run(name, func(t *testing.T) {
			key, url := start(t)
			cosigner, err := torchwood.NewCosignatureVerifier(key)
			must(t, err)
			last := int64(1)
			for _, r := range w.requests(t) {
				want := r.status
				if other, ok := r.others[name]; ok {
					want = other
				}
				status, media, body := post(url+"/add-checkpoint", r.body)
				if status != want {
					t.Errorf("%s: %d %q, not %d", r.what, status, body, want)
				}
				if status == 409 && r.status == 409 && (body != r.size || media != "text/x.tlog.size") {
					t.Errorf("%s: %s %q, not %q", r.what, media, body, r.size)
				}
				if status == 200 {
					_, checkpoint, _ := strings.Cut(r.body, "\n\n")
					at := cosigned(t, checkpoint+body, cosigner)
					if at < last {
						t.Errorf("%s: cosigned at %d, what came before it at %d", r.what, at, last)
					}
					last = at
				}
			}
			if status, _, _ := get(url + "/add-checkpoint"); status != 405 {
				t.Errorf("GET: %d", status)
			}
			w.latest(t, name, url, cosigner)
		})
	}
}

// cosigned checks the cosignature in a note, and returns its time.
func cosigned(t testing.TB, signed string, cosigner *torchwood.CosignatureVerifier) int64 {
	t.Helper()
	n, err := note.Open([]byte(signed), note.VerifierList(cosigner))
	if err != nil {
		t.Errorf("%q: %v", signed, err)
		return 0
	}
	at, err := torchwood.CosignatureTimestamp(n.Sigs[0])
	must(t, err)
	return at
}

// latest reads what a witness shows to monitors. A witness should; those of others that
// are tried here are older than that part of the specification.
func (w watched) latest(t *testing.T, name, url string, cosigner *torchwood.CosignatureVerifier) {
	log, err := note.NewVerifier(w.vkey)
	must(t, err)
	status, _, body := get(url + "/" + savepoints.LogID(w.signer.Name()) + "/checkpoint")
	if name != "ours" {
		if status != 404 {
			t.Errorf("%s shows monitors %d %q", name, status, body)
		}
		return
	}
	n, err := note.Open([]byte(body), note.VerifierList(cosigner, log))
	if status != 200 || err != nil || len(n.Sigs) != 2 || !strings.HasPrefix(n.Text, w.signer.Name()+"\n7\n") {
		t.Errorf("it shows monitors %d %q: %v", status, body, err)
	}
	if status, _, _ := get(url + "/" + savepoints.LogID("log.example/stranger") + "/checkpoint"); status != 404 {
		t.Errorf("of a log that it does not know: %d", status)
	}
}

// TestWitnessedByOthers: a bank whose witness is somebody else's is believed, and the
// witness tells a reader that an old copy is one.
func TestWitnessedByOthers(t *testing.T) {
	w := newLitewitness(t)
	b := newBank(t, savepoints.InitOptions{Witnesses: []string{"w " + w.key + " " + w.url}})
	text, vkey := policyOf(t, b)
	w.watch(t, vkey)
	take(t, b, 2)
	_, err := b.Publish(ctx)
	must(t, err)
	old := copyOf(t, b)
	p, err := anchor.ParsePolicy(text)
	must(t, err)
	discover := func(of *savepoints.Bank) (savepoints.Discovery, error) {
		r, err := savepoints.OpenReader(ctx, filepath.Join(t.TempDir(), "reader"))
		must(t, err)
		defer r.Close()
		return r.Discover(ctx, savepoints.FetchOptions{Policy: p, Sources: []string{serve(t, of)}})
	}
	d, err := discover(b)
	if err != nil || d.Freshness != savepoints.FreshnessWitnessed {
		t.Fatalf("%v %v", d.Freshness, err)
	}
	take(t, b, 1)
	_, err = b.Publish(ctx)
	must(t, err)
	if _, err := discover(old); err == nil || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("an old copy: %v", err)
	}
}
