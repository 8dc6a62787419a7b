//go:build linux

package node

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// smallDisk mounts a tmpfs of the given size, which takes root. In CI it must work.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	must(t, os.Mkdir(dir, 0o700))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mount a small disk: %v", err)
		}
		t.Skipf("only root can mount a small disk: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// On a full disk a record keeps its old value and leaves nothing behind.
func TestRecordOnFullDisk(t *testing.T) {
	r := &records{dir: smallDisk(t, "100k")}
	must(t, r.put("kind", "key", []byte("old")))
	if err := r.put("kind", "key", make([]byte, 1<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	data, err := r.get("kind", "key")
	if err != nil || string(data) != "old" {
		t.Fatalf("%q, %v", data, err)
	}
	left, err := filepath.Glob(filepath.Join(r.dir, "kind", ".*"))
	if err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
}
