package kopia

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// documentCount is the size of the workload where KOPIA_STATE names none.
const documentCount = 5_000

// BenchmarkSize takes one save point and seals, and has kopia make one snapshot with
// zstd, and compares what is on disk after that.
func BenchmarkSize(b *testing.B) {
	dir := workload(b)
	ours := build(b, filepath.Join("..", ".."), "./cmd/ipfs-savepoint")
	kopia := build(b, ".", "github.com/kopia/kopia")
	for b.Loop() {
		repo := filepath.Join(b.TempDir(), "repo")
		oursRun := func(args ...string) float64 {
			return run(b, exec.Command(ours, append([]string{"--quiet", "--repo", repo}, args...)...))
		}
		oursRun("init")
		take := oursRun("take", dir, "--policy", "workload")
		unsealed := size(b, repo)
		seal := oursRun("gc", "--seal")
		sealed := size(b, repo)

		kopiaTime, kopiaSize := snapshot(b, kopia, dir)

		b.ReportMetric(0, "ns/op")
		b.ReportMetric(take, "take-s")
		b.ReportMetric(unsealed, "unsealed-MiB")
		b.ReportMetric(seal, "seal-s")
		b.ReportMetric(sealed, "sealed-MiB")
		b.ReportMetric(kopiaTime, "kopia-s")
		b.ReportMetric(kopiaSize, "kopia-MiB")
		b.ReportMetric(sealed/kopiaSize, "of-kopia")
	}
}

// snapshot has kopia make a repository with one snapshot. It returns the seconds of
// the snapshot and the size of the repository.
func snapshot(b *testing.B, kopia, dir string) (seconds, mib float64) {
	b.Helper()
	top := b.TempDir()
	repo := filepath.Join(top, "repo")
	command := func(args ...string) float64 {
		cmd := exec.Command(kopia, args...)
		cmd.Env = append(os.Environ(),
			"KOPIA_PASSWORD=benchmark", "KOPIA_CHECK_FOR_UPDATES=false", "KOPIA_CONFIG_PATH="+filepath.Join(top, "config"),
			"KOPIA_CACHE_DIRECTORY="+filepath.Join(top, "cache"), "KOPIA_LOG_DIR="+filepath.Join(top, "log"))
		return run(b, cmd)
	}
	command("repository", "create", "filesystem", "--path", repo)
	command("policy", "set", "--global", "--compression=zstd")
	seconds = command("snapshot", "create", "--no-progress", dir)
	return seconds, size(b, repo)
}

// run returns the seconds that a command takes.
func run(b *testing.B, cmd *exec.Cmd) float64 {
	b.Helper()
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return time.Since(start).Seconds()
}

// build builds a program of the module in dir.
func build(b *testing.B, dir, what string) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), filepath.Base(what))
	cmd := exec.Command("go", "build", "-o", program, what)
	cmd.Dir = dir
	run(b, cmd)
	return program
}

// size is the length of all files below dir, in MiB.
func size(b *testing.B, dir string) float64 {
	b.Helper()
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return float64(n) / (1 << 20)
}

// workload is the folder that is saved: in its own, half of each document compresses.
func workload(b *testing.B) string {
	b.Helper()
	if dir := os.Getenv("KOPIA_STATE"); dir != "" {
		return dir
	}
	b.Logf("KOPIA_STATE names no folder: %d documents are made instead", documentCount)
	dir := b.TempDir()
	rng := rand.NewChaCha8([32]byte{1})
	for i := range documentCount {
		noise := make([]byte, 300+i%400)
		rng.Read(noise)
		file := filepath.Join(dir, fmt.Sprintf("collection-%02d", i%20), fmt.Sprintf("%016x.json", i*7919))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			b.Fatal(err)
		}
		text := fmt.Sprintf(`{"id":%d,"type":"VerifiableCredential","issuer":"did:example:issuer","proof":"%x","state":"approved"}`, i, noise)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}
