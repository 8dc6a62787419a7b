package peers

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// product is ipfs-savepoint with a repository of its own.
type product struct {
	program, repo string
}

func newProduct(t *testing.T) product {
	t.Helper()
	dir := t.TempDir()
	p := product{filepath.Join(dir, "ipfs-savepoint"), filepath.Join(dir, "repo")}
	build := exec.Command("go", "build", "-o", p.program, "./cmd/ipfs-savepoint")
	build.Dir = filepath.Join("..", "..") // a module of its own
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build ipfs-savepoint: %v\n%s", err, out)
	}
	p.run(t, "init")
	return p
}

func (p product) run(t *testing.T, args ...string) []byte {
	t.Helper()
	return output(t, exec.Command(p.program, append([]string{"--quiet", "--json", "--repo", p.repo}, args...)...))
}

type taken struct {
	Savepoint, State string
	Documents        int
}

func (p product) take(t *testing.T, dir string) taken {
	t.Helper()
	var out taken
	if err := json.Unmarshal(p.run(t, "take", dir, "--policy", "golden"), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTakeEqualsKubo compares the state CID of take with what kubo makes of the
// same folder.
func TestTakeEqualsKubo(t *testing.T) {
	k, p := newKubo(t), newProduct(t)
	for _, s := range states() {
		t.Run(s.Name, func(t *testing.T) {
			dir := folder(t, s.Documents)
			if got, want := p.take(t, dir).State, k.addFolder(t, dir); got != want {
				t.Errorf("take says %s, kubo says %s", got, want)
			}
		})
	}
}

// TestKuboReadsSavePoints gives a bare kubo what we write and gets the documents
// back without our program.
func TestKuboReadsSavePoints(t *testing.T) {
	p := newProduct(t)
	var dir string
	for _, s := range states() {
		if s.Name == nested {
			dir = folder(t, s.Documents)
		}
	}
	s := p.take(t, dir)
	archive := filepath.Join(t.TempDir(), "save.car")
	p.run(t, "export", s.Savepoint, archive)
	packs, err := filepath.Glob(filepath.Join(p.repo, "packs", "*.car"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("segments of the repository: %v %v", packs, err)
	}
	for name, cars := range map[string][]string{"archive": {archive}, "segments": packs} {
		t.Run(name, func(t *testing.T) {
			k := newKubo(t)
			k.run(t, nil, append([]string{"dag", "import"}, cars...)...)
			got := filepath.Join(t.TempDir(), "got")
			k.run(t, nil, "get", "-o", got, s.State)
			output(t, exec.Command("diff", "-r", dir, got))
			// One document by the save point's CID alone.
			k.run(t, nil, "dag", "resolve", "/ipfs/"+s.Savepoint+"/state")
		})
	}
}
