package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
)

// ErrHeadChanged: a head is not the one that the caller meant to replace.
var ErrHeadChanged = errors.New("head changed meanwhile")

// records keeps small values in files meta/<kind>/<key>, each replaced atomically.
type records struct {
	dir  string
	disk durable.Disk
	// mu makes compare and swap one step.
	mu sync.Mutex
}

func (r *records) path(kind, key string) string { return filepath.Join(r.dir, kind, key) }

func (r *records) get(kind, key string) ([]byte, error) {
	data, err := os.ReadFile(r.path(kind, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (r *records) put(kind, key string, value []byte) error {
	if err := r.disk.MakeDir(filepath.Join(r.dir, kind)); err != nil {
		return err
	}
	return r.disk.WriteFile(r.path(kind, key), value, 0o600)
}

// list returns the keys of a kind, sorted.
func (r *records) list(kind string) ([]string, error) {
	found, err := os.ReadDir(filepath.Join(r.dir, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var keys []string
	for _, f := range found {
		if !strings.HasPrefix(f.Name(), ".") {
			keys = append(keys, f.Name())
		}
	}
	slices.Sort(keys)
	return keys, err
}

func (r *records) clean() error {
	kinds, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if err := r.disk.Clean(filepath.Join(r.dir, k.Name())); err != nil {
			return err
		}
	}
	return nil
}

const headKind = "heads"

// Head returns the bytes last stored as the head of the named log, or nil. Names
// are file names.
func (r *Repo) Head(_ context.Context, name string) ([]byte, error) {
	data, err := r.records.get(headKind, name)
	if err != nil {
		return nil, fmt.Errorf("read head of %s: %w", name, err)
	}
	return data, nil
}

// Heads returns the names of the logs of which a head is stored, sorted.
func (r *Repo) Heads() ([]string, error) { return r.Records(headKind) }

// SwapHead durably replaces the head of the named log. If it is not old any more
// (nil: none), nothing changes and the error wraps ErrHeadChanged.
func (r *Repo) SwapHead(_ context.Context, name string, old, new []byte) error {
	r.records.mu.Lock()
	defer r.records.mu.Unlock()
	now, err := r.records.get(headKind, name)
	if err != nil {
		return fmt.Errorf("read head of %s: %w", name, err)
	}
	if !bytes.Equal(now, old) || (now == nil) != (old == nil) {
		return fmt.Errorf("%w: log %s", ErrHeadChanged, name)
	}
	if err := r.records.put(headKind, name, new); err != nil {
		return fmt.Errorf("write head of %s: %w", name, err)
	}
	return nil
}

// DeleteHead durably removes the head of the named log, if there is one.
func (r *Repo) DeleteHead(name string) error { return r.DeleteRecord(headKind, name) }

// Record returns a record that the caller keeps with the repository, or nil. Kind
// and key are file names.
func (r *Repo) Record(kind, key string) ([]byte, error) {
	data, err := r.records.get(kind, key)
	if err != nil {
		return nil, fmt.Errorf("read record %s/%s: %w", kind, key, err)
	}
	return data, nil
}

// PutRecord durably stores a record.
func (r *Repo) PutRecord(kind, key string, value []byte) error {
	if err := r.records.put(kind, key, value); err != nil {
		return fmt.Errorf("write record %s/%s: %w", kind, key, err)
	}
	return nil
}

// RecordTime is when a record was last stored here, by this machine's clock.
func (r *Repo) RecordTime(kind, key string) (time.Time, error) {
	st, err := os.Stat(r.records.path(kind, key))
	if err != nil {
		return time.Time{}, fmt.Errorf("record %s/%s: %w", kind, key, err)
	}
	return st.ModTime(), nil
}

// DeleteRecord durably removes a record, if there is one.
func (r *Repo) DeleteRecord(kind, key string) error {
	if err := r.records.disk.Remove(r.records.path(kind, key)); err != nil {
		return fmt.Errorf("delete record %s/%s: %w", kind, key, err)
	}
	return nil
}

// Records returns the keys of all records of a kind, sorted.
func (r *Repo) Records(kind string) ([]string, error) {
	keys, err := r.records.list(kind)
	if err != nil {
		return nil, fmt.Errorf("list records %s: %w", kind, err)
	}
	return keys, nil
}
