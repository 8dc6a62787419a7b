package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs/go-cid"
)

// Version is the number of the repository layout that this package writes.
const Version = 1

var (
	// ErrNoRepo: there is no repository in the folder.
	ErrNoRepo = errors.New("no repository")
	// ErrRepoExists: a repository, or something else, is in the folder already.
	ErrRepoExists = errors.New("folder is not empty")
	// ErrNewerRepo: the repository was written by a newer program.
	ErrNewerRepo = errors.New("repository is of a newer version")
	// ErrDamaged: bytes of the store cannot be read as IPFS blocks.
	ErrDamaged = segments.ErrDamaged
	// ErrHeld: another process has the repository open.
	ErrHeld = errors.New("repository is held by another process")
)

// Repo is an open repository. Its methods are safe for concurrent use.
type Repo struct {
	dir  string
	disk durable.Disk
	lock *os.File
	// Blocks is the store of IPFS blocks.
	Blocks *segments.Store
	// Config is what config.toml says.
	Config Config
	// Gone, if not nil, says of a document, by the CID of its top node, or of a raw IPFS
	// block of one whether it was erased on purpose: if it is not here the gateway answers
	// 410, and Collect does not miss it. It is set before the repository is used, and
	// called by many goroutines.
	Gone func(context.Context, cid.Cid) bool
	// Needed returns those of some IPFS blocks, of which Gone says that they were erased and
	// which are not here, that something here needs all the same: Collect misses them. If it
	// is nil there are none.
	Needed func(context.Context, []cid.Cid) ([]cid.Cid, error)
	// Keeping, if not nil, is called before a DAG is fetched that is to be pinned. What it
	// returns pins it: it runs f while nothing is erased, unless something was since then,
	// when it returns false and the DAG may not be whole any more. It is set as Gone is.
	Keeping func(context.Context) (keep func(ctx context.Context, f func() error) (bool, error), err error)
	records records
	// serving is the network that Serve started, until it is closed.
	serving atomic.Pointer[Network]
}

const (
	versionFile  = "version"
	identityFile = "identity.key"
	lockFile     = "repo.lock"
	packsDir     = "packs"
	metaDir      = "meta"
)

// Create makes a repository in dir and opens it. The folder must be empty or absent,
// or hold no more than a Create that was killed leaves, which is then finished.
func Create(ctx context.Context, dir string) (*Repo, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := durable.MakeDir(dir); err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	lock, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	defer unlock(lock)
	if err := checkVacant(dir); err != nil {
		return nil, fmt.Errorf("create repository in %s: %w", dir, err)
	}
	for _, sub := range []string{packsDir, metaDir} {
		if err := durable.MakeDir(filepath.Join(dir, sub)); err != nil {
			return nil, fmt.Errorf("create repository: %w", err)
		}
	}
	key, err := newIdentity()
	if err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, identityFile), key, 0o600); err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, configFile), []byte(defaultConfig), 0o600); err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	// The version comes last: a folder without one is not a repository yet.
	version := []byte(strconv.Itoa(Version) + "\n")
	if err := durable.WriteFile(filepath.Join(dir, versionFile), version, 0o600); err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	if err := unlock(lock); err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	return Open(ctx, dir)
}

// checkVacant refuses a folder that holds anything but what Create makes before
// the version, in the order in which it does: somebody else's files are not
// overwritten because they have the same names.
func checkVacant(dir string) error {
	found, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, f := range found {
		names[f.Name()] = true
	}
	delete(names, lockFile)
	for _, next := range []string{packsDir, metaDir, identityFile, configFile} {
		if !names[next] {
			break
		}
		delete(names, next)
		if next == packsDir || next == metaDir {
			inside, err := os.ReadDir(filepath.Join(dir, next))
			if err != nil {
				return fmt.Errorf("%w: %w", ErrRepoExists, err)
			}
			for _, f := range inside {
				return fmt.Errorf("%w: it holds %q", ErrRepoExists, next+"/"+f.Name())
			}
		}
	}
	for _, f := range found {
		if names[f.Name()] && !strings.HasPrefix(f.Name(), durable.TemporaryPrefix) {
			return fmt.Errorf("%w: it holds %q", ErrRepoExists, f.Name())
		}
	}
	return nil
}

// Exists reports whether dir holds a repository, of whatever version.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, versionFile))
	return err == nil
}

// Open opens the repository in dir and holds its lock until Close. The error
// wraps ErrNoRepo, ErrHeld, ErrNewerRepo or ErrDamaged.
func Open(ctx context.Context, dir string) (*Repo, error) {
	return openOn(ctx, dir, durable.Disk{})
}

func openOn(ctx context.Context, dir string, disk durable.Disk) (*Repo, error) {
	if !Exists(dir) {
		return nil, fmt.Errorf("%w in %s", ErrNoRepo, dir)
	}
	lock, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	r := &Repo{dir: dir, disk: disk, lock: lock, records: records{dir: filepath.Join(dir, metaDir), disk: disk}}
	if err := r.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open repository %s: %w", dir, err), r.Close())
	}
	return r, nil
}

func (r *Repo) load(ctx context.Context) error {
	data, err := os.ReadFile(filepath.Join(r.dir, versionFile))
	if err != nil {
		return err
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("version file: %w", err)
	}
	if v > Version {
		return fmt.Errorf("%w: %d, this program knows %d", ErrNewerRepo, v, Version)
	}
	if r.Config, err = readConfig(r.dir); err != nil {
		return err
	}
	if err := r.disk.Clean(r.dir); err != nil {
		return err
	}
	if err := r.records.clean(); err != nil {
		return err
	}
	r.Blocks, err = segments.OpenOn(ctx, filepath.Join(r.dir, packsDir), r.disk)
	return err
}

// Close releases the repository. IPFS blocks that were put and not synced may be
// lost.
func (r *Repo) Close() error {
	var err error
	if r.Blocks != nil {
		err = r.Blocks.Close()
	}
	return errors.Join(err, unlock(r.lock))
}

// BeginKeeping calls Keeping.
func (r *Repo) BeginKeeping(ctx context.Context) (keep func(ctx context.Context, f func() error) (bool, error), err error) {
	if r.Keeping == nil {
		return func(_ context.Context, f func() error) (bool, error) { return true, f() }, nil
	}
	return r.Keeping(ctx)
}

// isGone asks Gone for a raw IPFS block.
func (r *Repo) isGone(ctx context.Context, c cid.Cid) bool {
	return r.Gone != nil && c.Prefix().Codec == cid.Raw && r.Gone(ctx, c)
}

// Dir is the repository's folder.
func (r *Repo) Dir() string { return r.dir }

// acquire takes the lock: flock(2), which also excludes within a process and is
// released by the kernel when the process dies.
func acquire(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock repository: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock repository: %w", err)
		}
		holder, _ := io.ReadAll(io.LimitReader(f, 20)) // for the message only
		return nil, fmt.Errorf("%w: process %s has %s", ErrHeld, strings.TrimSpace(string(holder)), dir)
	}
	// The number is for a message only: on a full disk it may be missing.
	f.Truncate(0)
	fmt.Fprintln(f, os.Getpid())
	return f, nil
}

// unlock releases the lock at once. Where the file is only closed, a process that was forked
// meanwhile has the lock still, until it executes a program.
func unlock(lock *os.File) error {
	return errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_UN), lock.Close())
}

// ReadFile returns a file of the repository, or an error that wraps fs.ErrNotExist.
func (r *Repo) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(r.dir, name))
}

// WriteFile writes a file of the repository durably, readable by its owner only.
// Its folder is made if it is not there.
func (r *Repo) WriteFile(name string, data []byte) error {
	path := filepath.Join(r.dir, name)
	if err := r.disk.MakeDir(filepath.Dir(path)); err != nil {
		return err
	}
	return r.disk.WriteFile(path, data, 0o600)
}

// Glob returns the names of the repository's files that match a pattern, sorted.
func (r *Repo) Glob(pattern string) ([]string, error) {
	return fs.Glob(os.DirFS(r.dir), pattern)
}
