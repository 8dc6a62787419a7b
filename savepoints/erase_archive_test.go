package savepoints_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// However many entries explain what an archive lacks, it can be read.
func TestArchiveOfManyErasures(t *testing.T) {
	const n = 110
	b := withTargets(t, initBank(t), t.TempDir())
	st := state{"stays": "it stays"}
	for i := range n {
		st[fmt.Sprintf("d/%03d", i)] = fmt.Sprint("erased ", i)
	}
	s := take(t, b, st, "p").Savepoint
	for i := range n {
		erase(t, b, s, fmt.Sprintf("d/%03d", i))
	}
	archive := export(t, b, s)
	car, err := dag.ReadCAR(bytes.NewReader(archive))
	must(t, err)
	if len(car.Roots) != 3 {
		t.Errorf("%d roots", len(car.Roots))
	}
	r, p := reader(t, b)
	_, err = r.Import(ctx, bytes.NewReader(archive), p, nil)
	must(t, err)
	if v := mustVerify(t, r); v.Erased.Documents != n {
		t.Errorf("imported: %+v", v.Erased)
	}
	got, err := savepoints.VerifyProofFile(ctx, p, bytes.NewReader(archive), "d/109", nil)
	if err != nil || !got.Erased || got.ErasedBy != n {
		t.Errorf("proof: %+v, %v", got, err)
	}
	done, err := b.Replication().Once(ctx, replication.Selection{}, nil)
	must(t, err)
	if len(done) != 1 || done[0].State != replication.Done {
		t.Errorf("replicated: %+v", done)
	}
}
