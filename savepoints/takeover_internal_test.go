package savepoints

import (
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// A log may have more witnesses than signatures fit into a record: the log's own comes
// first, and stays.
func TestCheckpointOfManyWitnesses(t *testing.T) {
	text := "log.example/a\n1\nAAAA\n\n"
	own := "\u2014 log.example/a " + strings.Repeat("A", 100) + "\n"
	witness := "\u2014 witness.example/w " + strings.Repeat("B", 100) + "\n"
	for _, witnesses := range []int{0, 1, 20, 60} {
		e := &entry.Takeover{
			Common: entry.Common{Origin: "log.example/b", Epoch: 1, Time: time.Unix(1e9, 0)},
			Previous: &entry.Previous{
				Origin: "log.example/a", Checkpoint: []byte(text + own + strings.Repeat(witness, witnesses)),
				Root: cid.NewCidV1(cid.DagProtobuf, dag.RawBlock(nil).CID.Hash()),
			},
		}
		record, err := encodeShortened(e)
		if err != nil {
			t.Fatal(err)
		}
		kept := strings.Count(string(e.Previous.Checkpoint), witness)
		if !strings.HasPrefix(string(e.Previous.Checkpoint), text+own) || len(record) > entry.MaxSize {
			t.Errorf("%d witnesses: %q in a record of %d bytes", witnesses, e.Previous.Checkpoint, len(record))
		}
		if witnesses <= 20 && kept != witnesses || witnesses == 60 && kept < 20 {
			t.Errorf("%d of %d witnesses are left", kept, witnesses)
		}
	}
	e := &entry.Takeover{Common: entry.Common{Origin: "a", Epoch: 1, Time: time.Unix(1e9, 0)}, Previous: &entry.Previous{
		Origin: "b", Checkpoint: []byte(text + "\u2014 b " + strings.Repeat("A", entry.MaxSize) + "\n"), Root: cid.NewCidV1(cid.DagProtobuf, dag.RawBlock(nil).CID.Hash()),
	}}
	if _, err := encodeShortened(e); err == nil {
		t.Error("what does not fit was written")
	}
}
