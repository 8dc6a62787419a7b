package publish

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"golang.org/x/mod/sumdb/tlog"
)

// Published is a head that is on a topic, with the ledger's receipt: a line of JSON in
// the file of receipts. The ledger's receipts have no consensus time; mirror nodes show it
// with the message.
type Published struct {
	Origin   string `json:"origin"`
	Size     int64  `json:"size"`
	RootHash string `json:"rootHash"` // base64, as in the checkpoint
	RootCID  string `json:"rootCid"`
	Topic    string `json:"topic"`
	// Sequence and RunningHash are where the message is. As SEQUENCE:HASH they may follow
	// the topic in a trust policy. Both are absent if the ledger took the message and its
	// receipt did not say where it is ([hcs.ErrReceipt]).
	Sequence    int64  `json:"sequence,omitzero"`
	RunningHash string `json:"runningHash,omitzero"`
	Transaction string `json:"transaction"`
}

func newPublished(h anchor.Head, r hcs.Receipt) Published {
	p := Published{
		Origin: h.Origin, Size: h.Size, RootHash: h.RootHash.String(), RootCID: h.Root.String(),
		Topic: r.Topic.String(), Transaction: r.Transaction,
	}
	if r.Sequence > 0 {
		p.Sequence, p.RunningHash = r.Sequence, r.RunningHash.String()
	}
	return p
}

// maxReceipt is the length in bytes of the longest line of a file of receipts.
const maxReceipt = 4 << 10

// receipts is a file of receipts that only grows.
type receipts struct {
	f    *os.File
	size int64 // of the whole lines
}

// openReceipts opens or makes a file of receipts, for this process alone, and returns the
// head of the log that was published last. A line that a crash cut short is dropped.
func openReceipts(name, origin string, topic hcs.EntityID) (*receipts, anchor.Head, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, anchor.Head{}, err
	}
	r := &receipts{f: f}
	last, err := r.load(name, origin, topic)
	if err != nil {
		return nil, anchor.Head{}, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return r, last, nil
}

func (r *receipts) load(name, origin string, topic hcs.EntityID) (last anchor.Head, err error) {
	if err := syscall.Flock(int(r.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return last, fmt.Errorf("another process has it: %w", err)
	}
	lines := bufio.NewReaderSize(r.f, maxReceipt)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF {
			break
		}
		var p Published
		if err == nil {
			err = json.Unmarshal(line, &p)
		}
		var root tlog.Hash
		if err == nil {
			root, err = tlog.ParseHash(p.RootHash)
		}
		if err != nil {
			return last, fmt.Errorf("line %d: %w", n, err)
		}
		r.size += int64(len(line))
		if p.Origin == origin && p.Topic == topic.String() && p.Size > last.Size {
			last = anchor.Head{Origin: origin, Size: p.Size, RootHash: root}
		}
	}
	// The name is durable before anything is paid for.
	return last, errors.Join(r.f.Truncate(r.size), syncDir(filepath.Dir(name)))
}

// add appends a line; when it returns nil that is on disk. After an error it can be
// called again.
func (r *receipts) add(p Published) error {
	line, err := json.Marshal(p)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if err := r.f.Truncate(r.size); err != nil {
		return err
	}
	if _, err := r.f.WriteAt(line, r.size); err != nil {
		return err
	}
	if err := r.f.Sync(); err != nil {
		return err
	}
	r.size += int64(len(line))
	return nil
}

// close gives the file up; what was added is on disk.
func (r *receipts) close() { r.f.Close() }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
