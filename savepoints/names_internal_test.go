package savepoints

import (
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/node"
)

func TestNameSequence(t *testing.T) {
	for _, c := range []struct {
		size int64
		age  time.Duration
		want uint64
	}{
		{0, 0, 0}, {1, 59 * time.Second, 1 << 16}, {1, time.Minute, 1<<16 + 1}, {2, -time.Hour, 2 << 16},
		{3, 65535 * time.Minute, 3<<16 + 65535}, {3, 1 << 62, 3<<16 + 65535}, {1 << 40, 0, 1 << 56},
	} {
		got := nameSequence(c.size, c.age)
		if got != c.want || nameSize(node.Name{Sequence: got}) != c.size {
			t.Errorf("size %d, age %s: %d", c.size, c.age, got)
		}
	}
}
