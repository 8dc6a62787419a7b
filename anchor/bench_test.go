package anchor_test

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkAppend appends records of 600 bytes one at a time to logs of several
// sizes in a store in memory.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			l := filled(b, newMemStore(), newKey(b, "log.example/bench"), size)
			record := bytes.Repeat([]byte("r"), 600)
			for b.Loop() {
				if _, _, err := l.Append(ctx, record); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAppendBatch appends 256 records under one head.
func BenchmarkAppendBatch(b *testing.B) {
	l := filled(b, newMemStore(), newKey(b, "log.example/bench"), 0)
	batch := make([][]byte, 256)
	for i := range batch {
		batch[i] = bytes.Repeat([]byte("r"), 600)
	}
	for b.Loop() {
		if _, _, err := l.AppendAll(ctx, batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(256*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
