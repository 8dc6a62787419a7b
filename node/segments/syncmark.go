package segments

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
)

// syncMark remembers how much of the active segment is synced, in packs/synced. It
// is written after each fsync of the segment and not synced itself: after a kill it
// is exact, after a power loss it may say less than is true, never more.
type syncMark struct {
	f durable.File
}

const syncMarkFormat = "%08d %019d\n"

const syncMarkFile = "synced"

// openSyncMark opens the mark. A store without segments is one of which nothing is
// synced; a store whose mark is lost is one of which it is not known.
func openSyncMark(disk durable.Disk, dir string, segments int) (*syncMark, error) {
	f, err := disk.OpenFile(filepath.Join(dir, syncMarkFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	m := &syncMark{f}
	if segments == 0 {
		if err := m.set(0, 0); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return m, nil
}

// begin notes, durably, that a segment is begun, of which nothing is synced.
func (m *syncMark) begin(segment uint32) error {
	if err := m.set(segment-1, 0); err != nil {
		return err
	}
	return m.f.Sync()
}

// set notes that a segment is synced up to size.
func (m *syncMark) set(segment uint32, size int64) error {
	if _, err := m.f.WriteAt(fmt.Appendf(nil, syncMarkFormat, segment, size), 0); err != nil {
		return fmt.Errorf("note what is synced: %w", err)
	}
	return nil
}

// synced returns up to which offset the sections of the last segment, of the given
// size, may be believed without their hash, and behind which offset nothing was
// ever synced. Where the mark says nothing that can be true, nothing is believed
// and nothing may be cut.
func (m *syncMark) synced(segment uint32, size int64) (believed, cut int64) {
	var s uint32
	var n int64
	data, err := io.ReadAll(io.NewSectionReader(m.f, 0, 64))
	if err != nil {
		return 0, size
	}
	if _, err := fmt.Sscanf(string(data), syncMarkFormat, &s, &n); err != nil {
		return 0, size
	}
	switch {
	case s == segment && n <= size:
		return n, n
	case s+1 == segment: // begun, and nothing synced in it yet
		return 0, 0
	}
	return 0, size
}

func (m *syncMark) close() error { return errors.Join(m.f.Sync(), m.f.Close()) }
