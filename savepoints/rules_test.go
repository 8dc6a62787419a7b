package savepoints_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// bareStore is what package anchor needs to write a log, without the rules of this one.
type bareStore struct {
	*segments.Store
	repo *node.Repo
}

func (s bareStore) Head(ctx context.Context, name string) ([]byte, error) {
	return s.repo.Head(ctx, name)
}

func (s bareStore) SwapHead(ctx context.Context, name string, old, new []byte) error {
	return s.repo.SwapHead(ctx, name, old, new)
}

// appendAnyway appends a save point like another, with the next sequence, as somebody
// does who has the log's key and keeps no rules.
func appendAnyway(t *testing.T, b *savepoints.Bank, like savepoints.Taken) {
	t.Helper()
	m := *like.Manifest
	m.Sequence++
	m.Time = time.Now().UTC()
	m.Parent = &dag.Parent{Savepoint: like.CID, Sequence: like.Manifest.Sequence}
	block, err := m.Block()
	must(t, err)
	must(t, b.Repo().Blocks.Put(ctx, block))
	said := entry.Of(b.Origin(), &m, block.CID, entry.Naming{})
	record, err := entry.Encode(&said)
	must(t, err)
	skey, err := b.Repo().ReadFile("log.key")
	must(t, err)
	signer, err := anchor.NewSigner(strings.TrimSpace(string(skey)))
	must(t, err)
	l, err := anchor.Open(ctx, bareStore{b.Repo().Blocks, b.Repo()}, signer, anchor.Options{})
	must(t, err)
	_, _, err = l.Append(ctx, record)
	must(t, err)
}

// What follows the end of a log counts for nothing, for who fetches as for who follows.
func TestSavepointAfterFreeze(t *testing.T) {
	b := initBank(t)
	take(t, b, smallState(1), "p")
	last := take(t, b, smallState(2), "p")
	_, err := b.Freeze(ctx)
	must(t, err)
	appendAnyway(t, b, last)
	_, url := countedGateway(t, b)
	to, p := reader(t, b)
	got, err := fetch(to, savepoints.Ref{Policy: "p"}, p, url)
	if err != nil || got.CID != last.CID {
		t.Errorf("the latest is %d, %v", got.Entry.Sequence, err)
	}
	if _, err := fetch(to, savepoints.Ref{Policy: "p", Sequence: 3}, p, url); !errors.Is(err, savepoints.ErrNotFound) {
		t.Errorf("the one after the end: %v", err)
	}
	to, p = reader(t, b)
	f := follow(t, to, savepoints.FollowOptions{Policy: p, Sources: []string{url}, Keep: 1}) // the newest first
	f.await(t, 1)
	f.stop(t)
	if f.fetched[0].CID != last.CID {
		t.Errorf("the follower begins with %d", f.fetched[0].Entry.Sequence)
	}
}
