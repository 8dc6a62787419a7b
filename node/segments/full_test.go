//go:build linux

package segments

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

// childEnv makes a second process of this test binary fill a store under a limit.
const childEnv = "IPFS_SAVEPOINT_SEGMENTS_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := underFileSizeLimit(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func underFileSizeLimit(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := Open(ctx, dir)
	if err != nil {
		return err
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: 300_000, Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	return writeUntilFull(s, syscall.EFBIG, func() error {
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)
	})
}

// writeUntilFull puts blocks that fit, then blocks that do not, and checks that the
// store says so, still reads, and goes on when there is room.
func writeUntilFull(s *Store, want error, makeRoom func() error) error {
	early := dag.RawBlock(bytesOf(1, 50_000))
	if err := errors.Join(s.Put(ctx, early), s.Sync(ctx)); err != nil {
		return err
	}
	late := dag.RawBlock(bytesOf(2, dag.MaxBlockSize))
	if err := s.Put(ctx, late); err != nil {
		return err
	}
	if err := s.Sync(ctx); !errors.Is(err, want) {
		return fmt.Errorf("sync on a full disk: %w", err)
	}
	if err := s.Sync(ctx); !errors.Is(err, want) {
		return fmt.Errorf("second sync: %w", err)
	}
	// What makes the batch full is refused, and not kept.
	refused := dag.RawBlock(bytesOf(3, dag.MaxBlockSize))
	if err := s.Put(ctx, refused); !errors.Is(err, want) {
		return fmt.Errorf("put on a full disk: %w", err)
	}
	if has, err := s.Has(ctx, refused.CID); err != nil || has {
		return fmt.Errorf("refused and there: %w", err)
	}
	if err := errors.Join(makeRoom(), s.Sync(ctx)); err != nil {
		return fmt.Errorf("sync when there is room: %w", err)
	}
	for _, b := range []dag.Block{early, late} {
		data, err := s.Get(ctx, b.CID)
		if err != nil || string(data) != string(b.Data) {
			return fmt.Errorf("read after a failed write: %w", err)
		}
	}
	return nil
}

func checkAfterFull(t *testing.T, dir string) {
	t.Helper()
	s := openTestStore(t, dir)
	defer s.Close()
	if lost := unreadable(t, s, []dag.Block{dag.RawBlock(bytesOf(1, 50_000)), dag.RawBlock(bytesOf(2, dag.MaxBlockSize))}); len(lost) > 0 {
		t.Fatal("what was synced is lost")
	}
	if d := s.Damage(); len(d) != 0 {
		t.Fatalf("damage: %v", d)
	}
}

func TestFileSizeLimit(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	must(t, cmd.Run())
	checkAfterFull(t, dir)
}

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

func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "300k")
	s := openTestStore(t, dir)
	must(t, writeUntilFull(s, syscall.ENOSPC, func() error {
		return syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=8m")
	}))
	must(t, s.Close())
	checkAfterFull(t, dir)
}
