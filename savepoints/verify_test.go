package savepoints_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// Verify finds damage in each kind of IPFS block, and List and Resolve in what
// they read.
func TestVerifyFindsDamage(t *testing.T) {
	s := someState()
	for name, block := range map[string]func(*testing.T, *savepoints.Bank, savepoints.Taken) []byte{
		"document": func(*testing.T, *savepoints.Bank, savepoints.Taken) []byte { return []byte(s["credentials/042.json"]) },
		"chunk": func(*testing.T, *savepoints.Bank, savepoints.Taken) []byte {
			return []byte(s["large.bin"][:dag.ChunkSize])
		},
		"manifest": func(t *testing.T, b *savepoints.Bank, taken savepoints.Taken) []byte {
			data, err := b.Repo().Blocks.Get(ctx, taken.CID)
			must(t, err)
			return data
		},
		"directory": func(t *testing.T, b *savepoints.Bank, taken savepoints.Taken) []byte {
			data, err := b.Repo().Blocks.Get(ctx, taken.Manifest.State)
			must(t, err)
			return data
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := initBank(t)
			taken := take(t, b, s, "p")
			other := take(t, b, smallState(1), "q")
			damageBlock(t, b, block(t, b, taken))
			for range 2 { // found, and remembered
				if _, err := b.Verify(ctx, taken.Savepoint); !errors.Is(err, savepoints.ErrDamaged) {
					t.Fatalf("verify: %v", err)
				}
			}
			_, listErr := b.List(ctx, "")
			_, resolveErr := b.Resolve(ctx, savepoints.Ref{CID: taken.CID}, "")
			if want := name == "manifest"; want != errors.Is(listErr, savepoints.ErrDamaged) || want != errors.Is(resolveErr, savepoints.ErrDamaged) {
				t.Errorf("list: %v, resolve: %v", listErr, resolveErr)
			}
			checkDocuments(t, b, other.Savepoint, smallState(1))
			if _, err := b.Resolve(ctx, savepoints.Ref{CID: other.CID}, ""); err != nil {
				t.Errorf("resolve of another: %v", err)
			}
			// A save point of the same documents writes again what is damaged.
			if name == "document" || name == "chunk" {
				take(t, b, s, "p")
				checkDocuments(t, b, taken.Savepoint, s)
			}
		})
	}
}

func TestVerifyMissesPin(t *testing.T) {
	b := initBank(t)
	taken := take(t, b, smallState(1), "p")
	must(t, b.Repo().Unpin(taken.CID))
	if _, err := b.Verify(ctx, taken.Savepoint); !errors.Is(err, savepoints.ErrDamaged) {
		t.Error(err)
	}
}

// A save point of one proof and another manifest is none.
func TestVerifyMixedUp(t *testing.T) {
	b := initBank(t)
	one, two := take(t, b, smallState(1), "p"), take(t, b, smallState(2), "p")
	mixed := one.Savepoint
	mixed.Proof = two.Proof
	if _, err := b.Verify(ctx, mixed); !errors.Is(err, savepoints.ErrDamaged) {
		t.Error(err)
	}
	mixed = one.Savepoint
	mixed.CID = two.CID
	if _, err := b.Verify(ctx, mixed); !errors.Is(err, savepoints.ErrDamaged) {
		t.Error(err)
	}
}

// The trust policy is another one by now: nothing is believed.
func TestOpenWithoutItsFiles(t *testing.T) {
	for _, name := range []string{"trust.policy", "instance"} {
		b := initBank(t)
		must(t, b.Close())
		must(t, os.Remove(filepath.Join(b.Repo().Dir(), name)))
		if _, err := savepoints.Open(ctx, b.Repo().Dir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	b, other := initBank(t), initBank(t)
	policy, err := other.TrustPolicy()
	must(t, err)
	must(t, b.Close())
	must(t, os.WriteFile(filepath.Join(b.Repo().Dir(), "trust.policy"), policy, 0o600))
	if _, err := savepoints.Open(ctx, b.Repo().Dir()); err == nil {
		t.Error("opened with another log's policy")
	}
	// Without its log key it is a reader, as an Init that was killed leaves it.
	c := initBank(t)
	must(t, c.Close())
	must(t, os.Remove(filepath.Join(c.Repo().Dir(), "log.key")))
	c = openBank(t, c.Repo().Dir())
	if _, err := c.Take(ctx, smallState(1), savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, savepoints.ErrNoLogKey) {
		t.Error(err)
	}
}

// A log whose newest tiles are damaged is not written on.
func TestOpenWithDamagedLog(t *testing.T) {
	b := initBank(t)
	for i := range 3 {
		take(t, b, smallState(i), "p")
	}
	head, err := b.Head(ctx, "")
	must(t, err)
	tile, err := dag.ReadDocument(ctx, b.Repo().Blocks, head.Root, "tile/entries/000.p/3")
	must(t, err)
	damageBlock(t, b, tile)
	if err := b.VerifyLog(ctx, b.Origin()); !errors.Is(err, node.ErrDamaged) {
		t.Errorf("verify of the log: %v", err)
	}
	must(t, b.Close())
	// What receipts prove is read all the same.
	b = openBank(t, b.Repo().Dir())
	if _, err := b.Take(ctx, smallState(9), savepoints.TakeOptions{Policy: "p"}); !errors.Is(err, node.ErrDamaged) && !errors.Is(err, anchor.ErrCorrupt) {
		t.Errorf("take: %v", err)
	}
	list, err := b.List(ctx, "")
	if err != nil || len(list) != 3 {
		t.Errorf("list: %d, %v", len(list), err)
	}
	if err := b.VerifyLog(ctx, b.Origin()); !errors.Is(err, node.ErrDamaged) {
		t.Errorf("verify of the log: %v", err)
	}
}
