package anchor

import (
	"context"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

const (
	RecentCount = recentCount
	RecentMax   = recentMax
	RecentAge   = recentAge
)

// AppendAll adds many records under one head.
func (l *Log) AppendAll(ctx context.Context, records [][]byte) (int64, Head, error) {
	return l.appendAll(ctx, records)
}

// Waiting is how many appends wait to be committed.
func (l *Log) Waiting() int {
	l.waiting.mu.Lock()
	defer l.waiting.mu.Unlock()
	return len(l.waiting.list)
}

// BuiltRoot returns the log root CID of the newest head, made from nothing.
func (l *Log) BuiltRoot(ctx context.Context) (cid.Cid, error) {
	h := l.Head()
	t := l.signed.Load().tree.clone()
	t.base = cid.Undef
	root, _, err := t.directory(ctx, nil, dag.Link{CID: dag.RawBlock(h.Checkpoint).CID, Size: uint64(len(h.Checkpoint))})
	return root, err
}

// RecentSizes returns the sizes in the stored head.
func (l *Log) RecentSizes() (sizes []int64) {
	for _, r := range l.signed.Load().recent {
		sizes = append(sizes, r.Size)
	}
	return sizes
}

// RecodeRecord decodes a stored head and encodes it again.
func RecodeRecord(b []byte) ([]byte, error) {
	r, root, err := decodeRecord(b)
	if err != nil {
		return nil, err
	}
	return encodeRecord(Head{Root: root, Checkpoint: []byte(r.Checkpoint)}, r.Recent)
}

// PublishTimes runs the rule for recent sizes over a list of times.
func PublishTimes(times []time.Time) (sizes, seconds []int64) {
	var list []recent
	for i, t := range times {
		list = publish(list, int64(i), t)
	}
	for _, r := range list {
		sizes, seconds = append(sizes, r.Size), append(seconds, r.Time)
	}
	return sizes, seconds
}
