package savepoints

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// oneDocument is a Source of one.
type oneDocument struct{ path, text string }

func (d oneDocument) Documents(context.Context) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		yield(Document{Path: d.path, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(d.text)), nil }}, nil)
	}
}

func (oneDocument) Consistency(context.Context) (dag.Consistency, error) {
	return dag.Consistency{Method: "memory", Consistent: true}, nil
}

// hooked is a source that does something else once it has read a block.
type hooked struct {
	dag.Source
	block cid.Cid
	once  sync.Once
	then  func()
}

func (h *hooked) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	data, err := h.Source.Get(ctx, c)
	if c == h.block {
		h.once.Do(h.then)
	}
	return data, err
}

// What is erased while a save point that shares it is verified, and not pinned yet, is
// missed before it is kept.
func TestEraseWhileOthersAreVerified(t *testing.T) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func(name string) *Bank {
		b, err := Init(ctx, filepath.Join(t.TempDir(), name), InitOptions{})
		must(err)
		t.Cleanup(func() { b.Close() })
		return b
	}
	chunk := strings.Repeat("c", dag.ChunkSize)
	ours, theirs := open("ours"), open("theirs")
	s, err := ours.Take(ctx, oneDocument{"a", chunk + "ours"}, TakeOptions{Policy: "p"})
	must(err)
	other, err := theirs.Take(ctx, oneDocument{"b", chunk + "theirs"}, TakeOptions{Policy: "q"})
	must(err)
	var car bytes.Buffer
	must(theirs.Export(ctx, other.Savepoint, &car))
	archive := car.Bytes()
	policy, err := theirs.TrustPolicy()
	must(err)
	b, p, err := ours.Trust(policy)
	must(err)

	read, _, err := b.readArchive(ctx, bytes.NewReader(archive), p, nil)
	must(err)
	src := &hooked{Source: b.repo.Blocks, block: dag.RawBlock([]byte(chunk)).CID, then: func() {
		if _, err := ours.Erase(ctx, s.Savepoint, "a"); err != nil {
			t.Error(err)
		}
	}}
	if _, _, err := b.adopt(ctx, src, read, func(Savepoint) error { return nil }); !errors.Is(err, dag.ErrTruncated) {
		t.Errorf("kept without what was erased: %v", err)
	}
	if pinned, err := b.repo.Pinned(other.CID); pinned || err != nil {
		t.Errorf("pinned: %t, %v", pinned, err)
	}
	// Once more it comes whole.
	got, err := b.Import(ctx, bytes.NewReader(archive), p, nil)
	must(err)
	if v, err := b.Verify(ctx, got); err != nil || v.Erased.Documents > 0 {
		t.Errorf("%+v, %v", v, err)
	}
	// The chunk is back with it, and the rest of ours is not.
	if v, err := ours.Verify(ctx, s.Savepoint); err != nil || v.Erased.Documents != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

// An entry of another instance, which breaks the rules of its log, excuses nothing, however
// well it is proven.
func TestErasureOfAnotherInstance(t *testing.T) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := Init(ctx, filepath.Join(t.TempDir(), "bank"), InitOptions{})
	must(err)
	t.Cleanup(func() { b.Close() })
	s, err := b.Take(ctx, oneDocument{"a", "some text"}, TakeOptions{Policy: "p"})
	must(err)
	document := dag.RawBlock([]byte("some text")).CID
	prove := func(instance [16]byte) []byte {
		t.Helper()
		e := &entry.Erase{Common: b.ledger.common(), Documents: []cid.Cid{document}}
		e.Instance = instance
		record, err := entry.Encode(e)
		must(err)
		log, err := anchor.Open(ctx, b.store, b.ledger.signer, anchor.Options{Policy: b.own})
		must(err)
		index, _, err := log.Append(ctx, record)
		must(err)
		v, err := anchor.OpenView(ctx, anchor.LocalFetcher(b.store, log.Head().Root), b.own.KeyOnly())
		must(err)
		proof, err := v.Prove(ctx, index, record)
		must(err)
		return proof
	}
	proofs := map[bool][]byte{false: prove([16]byte{1}), true: prove(b.instance)}
	must(b.repo.Blocks.Delete(ctx, document))
	for _, good := range []bool{false, true} {
		block := dag.RawBlock(proofs[good])
		must(b.repo.Blocks.Put(ctx, block))
		if _, err := b.importErasures(ctx, s.Savepoint, []cid.Cid{block.CID}); (err == nil) != good {
			t.Errorf("in an archive, good %t: %v", good, err)
		}
		must(b.putErasure(b.own, proofs[good]))
		if v, err := b.Verify(ctx, s.Savepoint); (err == nil) != good || (v.Erased.Documents == 1) != good {
			t.Errorf("good %t: %+v, %v", good, v, err)
		}
	}
}

// Documents whose nodes are not here are looked for again only once nodes have come.
func TestErasuresOfLargeDocuments(t *testing.T) {
	ctx := context.Background()
	b, err := Init(ctx, filepath.Join(t.TempDir(), "bank"), InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	text := strings.Repeat("c", dag.ChunkSize) + "rest"
	large, _, err := dag.WriteDocument(ctx, dag.Discard, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	rest := dag.RawBlock([]byte("rest")).CID
	e := b.erasures
	e.add("log", []cid.Cid{large.CID})
	if e.gone(ctx, rest) || !e.gone(ctx, large.CID) || e.look {
		t.Errorf("before: rest %t, large %t, looks again %t", e.gone(ctx, rest), e.gone(ctx, large.CID), e.look)
	}
	if _, err := b.Take(ctx, oneDocument{"a", text}, TakeOptions{Policy: "p"}); err != nil {
		t.Fatal(err)
	}
	if !e.goneFrom(ctx, "log", rest) || e.goneFrom(ctx, "other", rest) || len(e.large) > 0 {
		t.Errorf("after: %t, %t, %d to look for", e.goneFrom(ctx, "log", rest), e.goneFrom(ctx, "other", rest), len(e.large))
	}
	// Another log erases the same later.
	e.add("other", []cid.Cid{large.CID})
	if !e.goneFrom(ctx, "other", rest) {
		t.Error("not by the other log")
	}
}
