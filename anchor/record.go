package anchor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// A reader that fetched a checkpoint a moment ago still needs the partial tiles
// of its size (c2sp.org/tlog-tiles, "Partial Tiles"). They stay in the newest
// directory for the last recentCount checkpoints and for those younger than
// recentAge, but never for more than recentMax, so that a log that is written
// without pause has a directory of bounded size. Readers that come later than
// that find the full tile, or fetch the checkpoint again.
const (
	recentCount = 16
	recentAge   = 10 * time.Minute
	recentMax   = 256
)

const (
	recordVersion = 1
	// maxRecord bounds a stored head: a checkpoint, escaped, and recentMax sizes.
	maxRecord = 512 << 10
)

// recent is a published size. Its partial tiles follow from it.
type recent struct {
	Size int64 `json:"size"`
	Time int64 `json:"time"` // of publication, in seconds since 1970
}

// headRecord is a head as a Store keeps it: JSON in exactly the form that
// encodeRecord gives it.
type headRecord struct {
	Version    int      `json:"v"`
	Root       string   `json:"root"` // log root CID
	Checkpoint string   `json:"checkpoint"`
	Recent     []recent `json:"recent"` // sizes ascending; the last is the checkpoint's
}

func encodeRecord(h Head, recents []recent) ([]byte, error) {
	b, err := json.Marshal(headRecord{recordVersion, h.Root.String(), string(h.Checkpoint), recents})
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("%d bytes, more than %d", len(b), maxRecord)
	}
	if err != nil {
		return nil, fmt.Errorf("head record: %w", err)
	}
	return b, nil
}

// decodeRecord reads a stored head. Its checkpoint is not verified here. The
// error wraps ErrCorrupt.
func decodeRecord(b []byte) (headRecord, cid.Cid, error) {
	fail := func(err error) (headRecord, cid.Cid, error) {
		return headRecord{}, cid.Undef, fmt.Errorf("%w: stored head: %w", ErrCorrupt, err)
	}
	if len(b) > maxRecord {
		return fail(fmt.Errorf("%d bytes, more than %d", len(b), maxRecord))
	}
	var r headRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return fail(err)
	}
	if r.Version != recordVersion {
		return fail(fmt.Errorf("version %d is not known", r.Version))
	}
	// What a lenient decoder drops or repairs shows as a difference here.
	if again, err := json.Marshal(r); err != nil || !bytes.Equal(again, b) {
		return fail(fmt.Errorf("not in its one encoding"))
	}
	root, err := cid.Decode(r.Root)
	if err != nil {
		return fail(err)
	}
	if err := dag.CheckCID(root); err != nil {
		return fail(err)
	}
	if root.String() != r.Root {
		return fail(fmt.Errorf("root %q is not in its one encoding", r.Root))
	}
	if len(r.Recent) == 0 || len(r.Recent) > recentMax {
		return fail(fmt.Errorf("%d recent sizes", len(r.Recent)))
	}
	prev := recent{Size: -1}
	for _, e := range r.Recent {
		if e.Size <= prev.Size || e.Size > maxSize || e.Time < prev.Time {
			return fail(fmt.Errorf("recent sizes out of order at %d", e.Size))
		}
		prev = e
	}
	return r, root, nil
}

// publish adds a size to the list and drops those that readers no longer need.
// Times never go back, whatever the clock does.
func publish(list []recent, size int64, now time.Time) []recent {
	t := max(now.Unix(), 0)
	if n := len(list); n > 0 {
		t = max(t, list[n-1].Time)
	}
	list = append(list[:len(list):len(list)], recent{size, t})
	drop := max(0, len(list)-recentMax)
	for len(list)-drop > recentCount && t-list[drop].Time > int64(recentAge/time.Second) {
		drop++
	}
	return list[drop:]
}
