package replication

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// TestSlowIsSilent: who takes a byte now and then is given up as who takes none, and who
// takes more is not.
func TestSlowIsSilent(t *testing.T) {
	for _, piece := range []int{1, minRate} {
		ended, w := watched(ctx, 200*time.Millisecond)
		defer w.stop()
		out := &movingWriter{Writer: io.Discard, watch: w, patience: time.Hour}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		end := time.NewTimer(20 * time.Second)
		defer end.Stop()
		for n := 0; ended.Err() == nil && n < 200; n++ {
			select {
			case <-tick.C:
				if _, err := out.Write(make([]byte, piece)); err != nil {
					t.Fatal(err)
				}
			case <-ended.Done():
			case <-end.C:
				t.Fatal("it takes too long")
			}
		}
		if piece == 1 {
			mustBe(t, context.Cause(ended), node.ErrUnreachable)
		} else {
			must(t, context.Cause(ended))
		}
	}
}
