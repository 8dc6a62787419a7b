package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(n)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func boxoFile(t testing.TB, data []byte, chunkSize int64, links int) Link {
	t.Helper()
	params := helpers.DagBuilderParams{
		Maxlinks: links, RawLeaves: true, Dagserv: newBoxo(),
		CidBuilder: cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12},
	}
	h, err := params.New(chunk.NewSizeSplitter(bytes.NewReader(data), chunkSize))
	if err != nil {
		t.Fatal(err)
	}
	n, err := balanced.Layout(h)
	if err != nil {
		t.Fatal(err)
	}
	size, err := n.Size()
	if err != nil {
		t.Fatal(err)
	}
	return Link{n.Cid(), size}
}

func TestDocumentEqualsBoxo(t *testing.T) {
	ctx := context.Background()
	for _, n := range []int{0, 1, 1000, ChunkSize - 1, ChunkSize, ChunkSize + 1, 2 * ChunkSize, 5*ChunkSize + 77} {
		data := pattern(n)
		m := newMemory()
		got, length, err := WriteDocument(ctx, m, bytes.NewReader(data))
		if err != nil || length != uint64(n) {
			t.Fatalf("%d bytes: wrote %d: %v", n, length, err)
		}
		if want := boxoFile(t, data, ChunkSize, FileLinks); got != want {
			t.Errorf("%d bytes: %v, boxo says %v", n, got, want)
		}
		var back bytes.Buffer
		if _, err := CopyDocument(ctx, m, got, &back); err != nil || !bytes.Equal(back.Bytes(), data) {
			t.Errorf("%d bytes do not come back: %v", n, err)
		}
	}
}

// Documents of two levels and more are over a gigabyte: the layout is compared
// with boxo's at a small scale, where only the sizes of the chunks differ.
func TestLevelsEqualBoxo(t *testing.T) {
	ctx := context.Background()
	for _, chunks := range []int{1024, 1025, 2048, 2049, 1024*3 + 5} {
		data := pattern(chunks*2 - 1)
		var leaves []subtree
		for i := 0; i < len(data); i += 2 {
			b := RawBlock(data[i:min(i+2, len(data))])
			leaves = append(leaves, subtree{b.link(), uint64(len(b.Data))})
		}
		got, err := writeLevels(ctx, Discard, leaves)
		if want := boxoFile(t, data, 2, FileLinks); err != nil || got != want {
			t.Errorf("%d chunks: %v %v, boxo says %v", chunks, got, err, want)
		}
	}
}

func TestStateRoundTrip(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	var tree Editor
	want := map[string][]byte{}
	for i := range 400 {
		want[fmt.Sprintf("vc_document/%04d.json", i)] = pattern(i)
		want[fmt.Sprintf("a/b%d/c", i%7)] = pattern(i % 7)
	}
	want["top"] = nil
	want["big"] = pattern(ChunkSize + 5)
	var limit Totals
	for path, data := range want {
		l, n, err := WriteDocument(ctx, m, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Put(path, l); err != nil {
			t.Fatal(err)
		}
		limit.Documents++
		limit.Bytes += n
	}
	root, err := tree.Apply(ctx, nil, m, cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := VerifyState(ctx, m, root.CID, limit); err != nil || got != limit {
		t.Fatalf("verify: %v %v, want %v", got, err, limit)
	}
	if _, err := VerifyState(ctx, m, root.CID, Totals{limit.Documents - 1, limit.Bytes}); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("one document too many: %v", err)
	}
	last := ""
	for doc, err := range Documents(ctx, m, root.CID) {
		if err != nil {
			t.Fatal(err)
		}
		data, err := ReadDocument(ctx, m, root.CID, doc.Path)
		if err != nil || !bytes.Equal(data, want[doc.Path]) || doc.Bytes != uint64(len(data)) {
			t.Fatalf("%q: %v", doc.Path, err)
		}
		delete(want, doc.Path)
		last = doc.Path
	}
	if len(want) != 0 || last != "vc_document/0399.json" {
		t.Errorf("%d documents did not come back; the last was %q", len(want), last)
	}
	if _, err := ReadDocument(ctx, m, root.CID, "a/none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such document: %v", err)
	}
}

// Every IPFS block of a state, damaged or gone, is noticed.
func TestVerifyStateFindsDamage(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	var tree Editor
	limit := Totals{Documents: 200}
	for i := range 200 {
		l, n, err := WriteDocument(ctx, m, bytes.NewReader(pattern(i)))
		if err != nil {
			t.Fatal(err)
		}
		limit.Bytes += n
		if err := tree.Put(fmt.Sprintf("c/%03d", i), l); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.Apply(ctx, nil, m, cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	for c, data := range m.blocks {
		delete(m.blocks, c)
		if _, err := VerifyState(ctx, m, root.CID, limit); !errors.Is(err, ErrNotFound) {
			t.Errorf("without %s: %v", c, err)
		}
		if got, err := Missing(ctx, m, root.CID); err != nil || len(got) != 1 || got[0].CID != c {
			t.Errorf("missing %s: %v %v", c, got, err)
		}
		if len(data) > 0 {
			bad := bytes.Clone(data)
			bad[len(bad)/2] ^= 1
			m.blocks[c] = bad
			if _, err := VerifyState(ctx, m, root.CID, limit); !errors.Is(err, ErrHash) {
				t.Errorf("flipped bit in %s: %v", c, err)
			}
		}
		m.blocks[c] = data
	}
}
