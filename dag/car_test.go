package dag

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car/v2"
)

// sections returns the blocks of a CAR that is known to be whole, and the
// lengths at which it may be cut between two sections.
func sections(t testing.TB, file []byte) (blocks []Block, boundaries map[int]bool) {
	t.Helper()
	boundaries = map[int]bool{}
	for at := 0; at < len(file); {
		length, n := binary.Uvarint(file[at:])
		body := file[at+n : at+n+int(length)]
		if at > 0 {
			k, c, err := cid.CidFromBytes(body)
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, Block{c, body[k:]})
		}
		at += n + int(length)
		boundaries[at] = true
	}
	return blocks, boundaries
}

// receive copies the DAG at root from a CAR to a new store.
func receive(file io.Reader, root cid.Cid) (*memory, error) {
	m := newMemory()
	r, err := ReadCAR(file)
	if err != nil {
		return m, err
	}
	_, err = r.CopyDAG(context.Background(), m, []cid.Cid{root}, nil)
	return m, err
}

func writeCAR(t testing.TB, src Source, roots ...cid.Cid) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WriteCAR(context.Background(), &out, src, roots...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCARRoundTrip(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	documents := map[string][]byte{"big": pattern(2*ChunkSize + 1), "twice": pattern(2*ChunkSize + 1)}
	for i := range 100 {
		documents[fmt.Sprintf("c%d/%030d", i%2, i)] = pattern(i % 10)
	}
	root, totals := buildState(t, m, documents)
	other, _ := buildState(t, m, map[string][]byte{"a": nil})
	file := writeCAR(t, m, root.CID, other.CID)

	back, err := receive(bytes.NewReader(file), root.CID)
	if !errors.Is(err, ErrForeignBlock) {
		t.Errorf("the second root was not asked for: %v", err)
	}
	if _, err := VerifyState(ctx, back, root.CID, totals); err != nil {
		t.Error(err)
	}
	r, err := ReadCAR(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	all := newMemory()
	var seen Received
	got, err := r.CopyDAG(ctx, all, r.Roots, func(now Received) { seen = now })
	if err != nil || got != seen || got.Blocks != uint64(len(m.blocks)) {
		t.Errorf("%v and %v of %d IPFS blocks: %v", got, seen, len(m.blocks), err)
	}
	if again := writeCAR(t, all, root.CID, other.CID); !bytes.Equal(again, file) {
		t.Error("another CAR of the same DAGs")
	}
	blocks, _ := sections(t, file)
	var cids []cid.Cid
	for _, b := range blocks {
		cids = append(cids, b.CID)
	}
	theirs, err := car.NewBlockReader(bytes.NewReader(file))
	if err != nil || !slices.Equal(theirs.Roots, []cid.Cid{root.CID, other.CID}) {
		t.Fatalf("go-car reads the roots %v: %v", theirs.Roots, err)
	}
	for _, c := range cids {
		b, err := theirs.Next()
		if err != nil || b.Cid() != c || !bytes.Equal(b.RawData(), m.blocks[c]) {
			t.Fatalf("go-car reads another %s: %v", c, err)
		}
	}
	if _, err := theirs.Next(); err != io.EOF {
		t.Errorf("go-car reads more: %v", err)
	}
	var v2 bytes.Buffer
	if err := car.WrapV1(bytes.NewReader(file), &v2); err != nil {
		t.Fatal(err)
	}
	if r, err = ReadCAR(&v2); err != nil {
		t.Fatal(err)
	}
	if got, err := r.CopyDAG(ctx, newMemory(), r.Roots, nil); err != nil || got != seen {
		t.Errorf("CARv2: %v, not %v: %v", got, seen, err)
	}
}

// A CAR may end between two sections: then Missing has the rest. Anywhere else
// it is noticed at once.
func TestCARTruncated(t *testing.T) {
	m := newMemory()
	root, _ := buildState(t, m, map[string][]byte{"a": pattern(3), "b/c": pattern(200), "b/d": pattern(20)})
	file := writeCAR(t, m, root.CID)
	_, boundaries := sections(t, file)
	for n := range len(file) {
		got, err := receive(bytes.NewReader(file[:n]), root.CID)
		if boundaries[n] {
			if err != nil {
				t.Errorf("%d of %d bytes, between two sections: %v", n, len(file), err)
			}
		} else if !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d of %d bytes: %v", n, len(file), err)
		}
		missing, err := Missing(context.Background(), got, root.CID)
		if err != nil || len(missing) == 0 {
			t.Errorf("%d of %d bytes: missing %v: %v", n, len(file), missing, err)
		}
	}
}

// Whatever bit is flipped, no other bytes than the right ones get into the sink.
func TestCARFlippedBits(t *testing.T) {
	file := goldenFile(t, "savepoint.car")
	blocks, _ := sections(t, file)
	right := map[cid.Cid][]byte{}
	for _, b := range blocks {
		right[b.CID] = b.Data
	}
	for bit := range len(file) * 8 {
		bad := bytes.Clone(file)
		bad[bit/8] ^= 1 << (bit % 8)
		got, err := receive(bytes.NewReader(bad), blocks[0].CID)
		for c, data := range got.blocks {
			if want, ok := right[c]; !ok || !bytes.Equal(data, want) {
				t.Fatalf("bit %d: %x came in as %s", bit, data, c)
			}
		}
		if err == nil && len(got.blocks) != len(blocks) {
			t.Errorf("bit %d: %d of %d IPFS blocks came in, and no error", bit, len(got.blocks), len(blocks))
		}
	}
}

func TestCARForeignBlocks(t *testing.T) {
	file := goldenFile(t, "savepoint.car")
	blocks, _ := sections(t, file)
	write := func(blocks ...Block) []byte {
		var out bytes.Buffer
		err := writeHeader(&out, []cid.Cid{blocks[0].CID})
		for _, b := range blocks {
			err = errors.Join(err, writeSection(&out, b.CID.KeyString(), b.Data))
		}
		if err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	root, last := blocks[0].CID, len(blocks)-1
	for _, test := range []struct {
		name string
		file []byte
		want error
	}{
		{"as it was", write(blocks...), nil},
		{"an IPFS block twice", write(append(slices.Clip(blocks), blocks[last])...), nil},
		{"another at the end", write(append(slices.Clip(blocks), RawBlock([]byte("other")))...), ErrForeignBlock},
		{"another in the middle", write(slices.Insert(slices.Clone(blocks), 2, RawBlock([]byte("other")))...), ErrForeignBlock},
		{"children before parents", write(append(blocks[last:last+1:last+1], blocks[:last]...)...), ErrForeignBlock},
		{"other bytes", write(append(slices.Clip(blocks[:last]), Block{blocks[last].CID, []byte("other")})...), ErrHash},
		{"CIDv0", write(Block{cid.NewCidV0(root.Hash()), blocks[0].Data}), ErrUnsupported},
		{"a codec that is none of ours", write(Block{cid.NewCidV1(cid.DagJSON, root.Hash()), blocks[0].Data}), ErrUnsupported},
		{"an IPFS block that is too large", write(RawBlock(make([]byte, MaxBlockSize+1))), ErrUnsupported},
	} {
		if got, err := receive(bytes.NewReader(test.file), root); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.name, err)
		} else if test.want == nil && len(got.blocks) != len(blocks) {
			t.Errorf("%s: %d of %d IPFS blocks", test.name, len(got.blocks), len(blocks))
		}
	}
}

// endless repeats one byte.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

// Lengths are claims too: nothing large is allocated for them.
func TestCARClaims(t *testing.T) {
	golden := goldenFile(t, "savepoint.car")
	length, n := binary.Uvarint(golden)
	header := golden[:n+int(length)]
	uvarint := func(v uint64) []byte { return binary.AppendUvarint(nil, v) }
	section := func(body string) []byte { return append(uvarint(uint64(len(body))), body...) }
	for name, start := range map[string][]byte{
		"a length that does not end":           nil,
		"a header of 4 KiB and more":           uvarint(maxCARHeader + 1),
		"a header of 1 TiB":                    uvarint(1 << 40),
		"a header of 2^63 bytes":               uvarint(1 << 63),
		"a header that is not CBOR":            section("\xff\xff"),
		"a header with a text of 1 TiB":        section("\xa1\x7b\x00\x00\x01\x00\x00\x00\x00\x00"),
		"a header with bytes of 1 TiB":         section("\xa1\x65roots\x5b\x00\x00\x01\x00\x00\x00\x00\x00"),
		"a header with a list of 1 Ti":         section("\xa1\x65roots\x9b\x00\x00\x01\x00\x00\x00\x00\x00"),
		"a header that is a map of 1 Ti":       section("\xbb\x00\x00\x01\x00\x00\x00\x00\x00"),
		"a header of another version":          section("\xa2\x65roots\x80\x67version\x03"),
		"a section of more than an IPFS block": slices.Concat(header, uvarint(MaxBlockSize+129)),
		"a section of 1 TiB":                   slices.Concat(header, uvarint(1<<40)),
		"a section of 2^63 bytes":              slices.Concat(header, uvarint(1<<63)),
		"a section whose length does not end":  header,
		"a section of no byte":                 slices.Concat(header, uvarint(0)),
		"a section without a CID":              slices.Concat(header, uvarint(10)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := receive(io.MultiReader(bytes.NewReader(start), endless(0xff)), RawBlock(nil).CID)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTruncated) {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
}

// An error of the reader is not a fault of the CAR.
func TestCARReaderError(t *testing.T) {
	file := goldenFile(t, "savepoint.car")
	broken := errors.New("connection reset")
	for n := range len(file) {
		_, err := receive(io.MultiReader(bytes.NewReader(file[:n]), failing{broken}), sectionRoot(t, file))
		if !errors.Is(err, broken) || errors.Is(err, ErrTruncated) || errors.Is(err, ErrMalformed) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func sectionRoot(t *testing.T, file []byte) cid.Cid {
	blocks, _ := sections(t, file)
	return blocks[0].CID
}

// A gateway that cannot go on says so where the next section would begin, or the header.
// Only that very text is taken for it.
func TestCARAborted(t *testing.T) {
	file := goldenFile(t, "savepoint.car")
	_, boundaries := sections(t, file)
	said := "\n\n[Gateway Error: CAR stream truncated, response is incomplete]"
	boundaries[0] = true
	for at := range boundaries {
		for text, want := range map[string]error{said: ErrAborted, said[:len(said)-1]: ErrAborted, "\n\n[Gatewaz Error: ": ErrMalformed} {
			_, err := receive(strings.NewReader(string(file[:at])+text), sectionRoot(t, file))
			if !errors.Is(err, want) || errors.Is(err, ErrTruncated) != (want == ErrAborted) {
				t.Errorf("after %d bytes, %q: %v", at, text, err)
			}
		}
	}
}

// Nothing is written that ReadCAR refuses.
func TestCARWithManyRoots(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	var roots []cid.Cid
	for i := range 200 {
		b := RawBlock([]byte{byte(i)})
		must(t, m.Put(ctx, b))
		roots = append(roots, b.CID)
	}
	var out bytes.Buffer
	must(t, WriteCAR(ctx, &out, m, roots[:80]...))
	car, err := ReadCAR(&out)
	must(t, err)
	if len(car.Roots) != 80 {
		t.Errorf("%d roots", len(car.Roots))
	}
	if err := WriteCAR(ctx, io.Discard, m, roots...); !errors.Is(err, ErrUnsupported) {
		t.Errorf("200 roots: %v", err)
	}
	list, err := LinkList(roots)
	must(t, err)
	must(t, list.Check())
	links, err := Links(list)
	if err != nil || !slices.Equal(links, roots) {
		t.Errorf("%d links, %v", len(links), err)
	}
	if _, err := LinkList(slices.Repeat(roots, 300)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("60000 links: %v", err)
	}
}
