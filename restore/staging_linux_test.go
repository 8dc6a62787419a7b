package restore_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/restore"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// childEnv makes the test binary restore and stop in the middle.
const childEnv = "IPFS_SAVEPOINT_RESTORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		fmt.Fprintln(os.Stderr, restoreAndStop(os.Args[1], os.Args[2]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func restoreAndStop(dir, target string) error {
	b, err := savepoints.Open(ctx, dir)
	if err != nil {
		return err
	}
	l, err := b.List(ctx, "")
	if err != nil {
		return err
	}
	_, err = restore.Folder(ctx, b, l[0], target, restore.Options{Progress: func(p restore.Progress) {
		if p.Phase == "write" && p.Documents == 30 {
			fmt.Println("in the middle")
			select {} // until it is killed
		}
	}})
	return err
}

// A restore that is killed leaves the target as it was; it is run again.
func TestKilledRestore(t *testing.T) {
	s := someState()
	b, _ := bank(t, s)
	must(t, b.Close())
	dir := b.Repo().Dir()
	parent := t.TempDir()
	target := filepath.Join(parent, "target")
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, dir, target)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)

	// While it runs another process is refused.
	other := copyOf(t, dir)
	l, err := other.List(ctx, "")
	must(t, err)
	if _, err := restore.Folder(ctx, other, l[0], target, restore.Options{}); !errors.Is(err, restore.ErrBusy) {
		t.Errorf("beside another process: %v", err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait() // killed
	checkOnly(t, parent, ".target.restoring")
	_, err = restore.Folder(ctx, other, l[0], target, restore.Options{})
	must(t, err)
	checkFolder(t, target, s)
	checkOnly(t, parent, "target")
}

func copyOf(t *testing.T, dir string) *savepoints.Bank {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(to, os.DirFS(dir)))
	b, err := savepoints.Open(ctx, to)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// On a full disk the restore fails, and leaves neither target nor staging.
func TestFullDisk(t *testing.T) {
	b, sp := bank(t, someState())
	disk := filepath.Join(t.TempDir(), "disk")
	must(t, os.Mkdir(disk, 0o700))
	mount(t, disk)
	target := filepath.Join(disk, "target")
	if _, err := restore.Folder(ctx, b, sp, target, restore.Options{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
	checkOnly(t, disk)
}

// What is not certainly a staging folder of one's own is not touched.
func TestForeignStaging(t *testing.T) {
	b, sp := bank(t, state{"a": "1"})
	for name, prepare := range map[string]func(staging, victim string) error{
		"symlink": func(staging, victim string) error { return os.Symlink(victim, staging) },
		"file":    func(staging, _ string) error { return os.WriteFile(staging, []byte("mine"), 0o600) },
		"folder with a file": func(staging, _ string) error {
			return errors.Join(os.Mkdir(staging, 0o700), os.WriteFile(filepath.Join(staging, "precious"), []byte("x"), 0o600))
		},
		"folder without a mark": func(staging, _ string) error { return os.MkdirAll(filepath.Join(staging, "documents/sub"), 0o700) },
		"folder that all write to": func(staging, _ string) error {
			return errors.Join(os.Mkdir(staging, 0o700), os.Chmod(staging, 0o777))
		},
	} {
		t.Run(name, func(t *testing.T) {
			parent, victim := t.TempDir(), t.TempDir()
			must(t, os.WriteFile(filepath.Join(victim, "precious"), []byte("x"), 0o600))
			must(t, prepare(filepath.Join(parent, ".target.restoring"), victim))
			before := picture(t, parent)
			if _, err := restore.Folder(ctx, b, sp, filepath.Join(parent, "target"), restore.Options{}); !errors.Is(err, restore.ErrTarget) {
				t.Errorf("error %v", err)
			}
			if after := picture(t, parent); !slices.Equal(before, after) {
				t.Errorf("%q became %q", before, after)
			}
			checkFolder(t, victim, state{"precious": "x"})
		})
	}
}

// A folder that is a mount point cannot be replaced; that is said before anything
// is written.
func TestTargetIsAMountPoint(t *testing.T) {
	b, sp := bank(t, state{"a": "1"})
	parent := t.TempDir()
	target := filepath.Join(parent, "target")
	must(t, os.Mkdir(target, 0o700))
	mount(t, target)
	if _, err := restore.Folder(ctx, b, sp, target, restore.Options{}); !errors.Is(err, restore.ErrTarget) {
		t.Errorf("error %v", err)
	}
	checkOnly(t, parent, "target")
	_, err := restore.Folder(ctx, b, sp, filepath.Join(target, "inside"), restore.Options{})
	must(t, err)
	checkFolder(t, filepath.Join(target, "inside"), state{"a": "1"})
}

// mount mounts a tmpfs of 1 MiB, which takes root. In CI it must work.
func mount(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mount a small disk: %v", err)
		}
		t.Skipf("only root can mount a small disk: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
}
