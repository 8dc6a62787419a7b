package savepoints_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/replication"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs/go-cid"
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

// A backup that still has what was erased is left as it is: the log's key may have been
// stolen, and used to erase.
func TestBackupKeepsWhatWasErased(t *testing.T) {
	dir := t.TempDir()
	b := withTargets(t, initBank(t), dir)
	s := take(t, b, personal(1), "p").Savepoint
	again := func() {
		t.Helper()
		list, err := b.Replication().Once(ctx, replication.Selection{Again: true}, nil)
		must(t, err)
		if len(list) != 1 || list[0].State != replication.Done {
			t.Errorf("replicated: %+v", list)
		}
	}
	again()
	erase(t, b, s, erasedPaths[0])
	again()
	erase(t, b, s, erasedPaths[1])
	again()
	files, err := filepath.Glob(filepath.Join(dir, "*.car"))
	must(t, err)
	data, err := os.ReadFile(files[0])
	must(t, err)
	r, p := reader(t, b)
	_, err = r.Import(ctx, bytes.NewReader(data), p, nil)
	must(t, err)
	checkDocuments(t, r, s, personal(1))
}

// An erasure that no witness has seen yet keeps back the archive of what it is about, and
// neither others nor what is said of their health.
func TestHealthBeforeAnErasureIsWitnessed(t *testing.T) {
	w := newRegulator(t)
	b := withTargets(t, newWitnessedBank(t, w), t.TempDir())
	for i, text := range []string{"q", person} {
		_, err := b.Take(ctx, state{"ada": text}, savepoints.TakeOptions{Policy: fmt.Sprint("p", i), Witnessed: time.Minute})
		must(t, err)
	}
	w.down.Store(true)
	both := list(t, b)
	erase(t, b, both[1], "ada")
	seen := map[cid.Cid]bool{}
	must(t, b.Health(ctx, both, savepoints.HealthOptions{}, func(c savepoints.Checked) error {
		seen[c.Savepoint.CID] = c.Places[0].Serves
		return nil
	}))
	if !seen[both[0].CID] || !seen[both[1].CID] {
		t.Errorf("served: %v", seen)
	}
	done, err := b.Replication().Once(ctx, replication.Selection{}, nil)
	must(t, err)
	if len(done) != 2 || done[0].State != replication.Done || !errors.Is(done[1].Err, anchor.ErrNoQuorum) {
		t.Errorf("replicated: %+v", done)
	}
	w.down.Store(false)
	_, err = b.Publish(ctx)
	must(t, err)
	done, err = b.Replication().Once(ctx, replication.Selection{Again: true}, nil)
	must(t, err)
	if len(done) != 2 || done[1].State != replication.Done {
		t.Errorf("replicated: %+v", done)
	}
}
