package peers

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// product is ipfs-savepoint with a repository of its own.
type product struct {
	program, repo string
}

func newProduct(t testing.TB) product {
	t.Helper()
	p := product{productProgram, filepath.Join(t.TempDir(), "repo")}
	p.run(t, "init")
	return p
}

// command is one command on the repository.
func (p product) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return command(t, p.program, append([]string{"--quiet", "--json", "--repo", p.repo}, args...)...)
}

func (p product) run(t testing.TB, args ...string) []byte {
	t.Helper()
	return output(t, p.command(t, args...))
}

// trust is the file with the trust policy of the repository's log.
func (p product) trust() string { return filepath.Join(p.repo, "trust.policy") }

type taken struct {
	Savepoint, State string
	Documents        int
}

func (p product) take(t testing.TB, dir string) taken {
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
	dir := exchanged(t)
	s := p.take(t, dir)
	archive := filepath.Join(t.TempDir(), "save.car")
	p.run(t, "export", s.Savepoint, archive)
	for name, cars := range map[string][]string{"archive": {archive}, "segments": p.segments(t, "*.car"), "sealed segments": p.unsealed(t)} {
		t.Run(name, func(t *testing.T) {
			k := newKubo(t)
			k.run(t, nil, append([]string{"dag", "import"}, cars...)...)
			k.holds(t, s.State, dir)
			// One document by the save point's CID alone.
			k.run(t, nil, "dag", "resolve", "/ipfs/"+s.Savepoint+"/state/README")
		})
	}
}

// segments are the files of the repository's store.
func (p product) segments(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.repo, "packs", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("segments of the repository: %v %v", files, err)
	}
	return files
}

// unsealed seals a copy of the repository and returns the files that zstd makes of its
// segments.
func (p product) unsealed(t *testing.T) []string {
	t.Helper()
	zstd, err := exec.LookPath("zstd")
	if err != nil {
		t.Logf("sealed segments are not compared: %v", err)
		return nil
	}
	dir := t.TempDir()
	sealed := product{p.program, filepath.Join(dir, "repo")}
	if err := os.CopyFS(sealed.repo, os.DirFS(p.repo)); err != nil {
		t.Fatal(err)
	}
	sealed.run(t, "gc", "--seal")
	output(t, exec.Command(zstd, append([]string{"-d", "--output-dir-flat", dir}, sealed.segments(t, "*.car.zst")...)...))
	cars, err := filepath.Glob(filepath.Join(dir, "*.car"))
	if err != nil {
		t.Fatal(err)
	}
	return cars
}
