package replication

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

// TestSlowIsSilent: who takes a byte now and then is given up as who takes none, and who
// takes more is not.
func TestSlowIsSilent(t *testing.T) {
	for _, piece := range []int{1, minRate} {
		synctest.Test(t, func(t *testing.T) {
			ended, w := watched(ctx, 200*time.Millisecond)
			defer w.stop()
			out := &movingWriter{Writer: io.Discard, watch: w, patience: time.Hour}
			for range 200 {
				time.Sleep(5 * time.Millisecond)
				_, err := out.Write(make([]byte, piece))
				must(t, err)
			}
			if piece == 1 {
				mustBe(t, context.Cause(ended), node.ErrUnreachable)
			} else {
				must(t, context.Cause(ended))
			}
		})
	}
}
