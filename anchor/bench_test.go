package anchor_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
)

// repoStore is a repository on disk as the Store of a log.
type repoStore struct {
	*segments.Store
	repo *node.Repo
}

func (s repoStore) Head(ctx context.Context, name string) ([]byte, error) {
	return s.repo.Head(ctx, name)
}

func (s repoStore) SwapHead(ctx context.Context, name string, old, new []byte) error {
	return s.repo.SwapHead(ctx, name, old, new)
}

func newRepoStore(b *testing.B) repoStore {
	b.Helper()
	repo, err := node.Create(ctx, filepath.Join(b.TempDir(), "repo"))
	must(b, err)
	b.Cleanup(func() { repo.Close() })
	return repoStore{repo.Blocks, repo}
}

// eachAppend measures appends of 600 bytes one at a time, each with what follows it, and
// reports the median and what an append writes.
func eachAppend(b *testing.B, s repoStore, l *anchor.Log, then func()) {
	record := bytes.Repeat([]byte("r"), 600)
	before, err := s.Bytes()
	must(b, err)
	var times []time.Duration
	for b.Loop() {
		began := time.Now()
		_, _, err := l.Append(ctx, record)
		must(b, err)
		then()
		times = append(times, time.Since(began))
	}
	after, err := s.Bytes()
	must(b, err)
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(after-before)/float64(len(times)), "B/append")
}

// BenchmarkAppend appends records one at a time to a log on disk, from the call to the
// durable signed head.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1_000, 300_000} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			s := newRepoStore(b)
			l := filled(b, s, newKey(b, "log.example/bench"), 0)
			for n := 0; n < size; n += 10_000 {
				_, _, err := l.AppendAll(ctx, numbered(n, min(10_000, size-n)))
				must(b, err)
			}
			eachAppend(b, s, l, func() {})
		})
	}
}

// BenchmarkAppendWitnessed goes on until two witnesses on loopback have cosigned the head
// and it is published.
func BenchmarkAppendWitnessed(b *testing.B) {
	s, k := newRepoStore(b), newKey(b, "log.example/bench")
	p := quorum(b, k, 2, newWitnesses(b, k, 2))
	l := openWitnessed(b, s, k, p)
	eachAppend(b, s, l, func() {
		_, err := l.Publish(ctx, clients(p))
		must(b, err)
	})
}

// BenchmarkAppendBatch appends 256 records under one head, on disk.
func BenchmarkAppendBatch(b *testing.B) {
	l := filled(b, newRepoStore(b), newKey(b, "log.example/bench"), 0)
	batch := make([][]byte, 256)
	for i := range batch {
		batch[i] = bytes.Repeat([]byte("r"), 600)
	}
	for b.Loop() {
		_, _, err := l.AppendAll(ctx, batch)
		must(b, err)
	}
	b.ReportMetric(256*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkOpen opens a log of 10,000 entries on disk for writing.
func BenchmarkOpen(b *testing.B) {
	s, k := newRepoStore(b), newKey(b, "log.example/bench")
	filled(b, s, k, 10_000)
	for b.Loop() {
		reopen(b, s, k)
	}
}
