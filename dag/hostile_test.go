package dag

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"pgregory.net/rapid"
)

// repeating reads head and then body without end.
type repeating struct {
	head, body []byte
	read       int
}

func (r *repeating) Read(p []byte) (int, error) {
	n := copy(p, r.head)
	r.head = r.head[n:]
	for n < len(p) {
		k := copy(p[n:], r.body[(r.read+n)%len(r.body):])
		n += k
	}
	r.read += n
	return n, nil
}

// A CAR that goes on without ever sending data is judged by what it sends.
func TestCARWithoutData(t *testing.T) {
	root := newBlock(codecPB, nil).CID
	for _, roots := range []int{1, 2} { // sections begin at even and at odd offsets
		for _, codec := range []uint64{codecPB, cid.DagJSON} {
			c := cid.NewCidV1(codec, RawBlock([]byte("foreign")).CID.Hash())
			var head bytes.Buffer
			must(t, writeHeader(&head, slices.Repeat([]cid.Cid{root}, roots)))
			section := append(binary.AppendUvarint(nil, uint64(c.ByteLen())), c.Bytes()...)
			src := &repeating{head: head.Bytes(), body: section}
			src.read = len(section) - head.Len()%len(section)
			before := src.read
			r, err := ReadCAR(io.LimitReader(src, 256<<20))
			must(t, err)
			_, err = r.CopyDAG(context.Background(), Discard, []cid.Cid{root}, nil)
			if read := src.read - before; !isOneOf(err, ErrForeignBlock, ErrUnsupported, ErrHash) || read > 32<<20 {
				t.Errorf("%d roots, codec %#x: after %d bytes: %v", roots, codec, read, err)
			}
		}
	}
}

// Who waits for a CAR that does not go on need not wait longer than he wants.
func TestCARCancelled(t *testing.T) {
	m := newMemory()
	root, _ := buildState(t, m, map[string][]byte{"a": []byte("a")})
	reader, writer := io.Pipe()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		writer.Write(writeCAR(t, m, root.CID))
	}()
	r, err := ReadCAR(reader)
	must(t, err)
	<-sent
	ctx, cancel := context.WithCancel(context.Background())
	received := make(chan struct{}, 16)
	done := make(chan error, 1)
	go func() {
		_, err := r.CopyDAG(ctx, newMemory(), []cid.Cid{root.CID}, func(Received) { received <- struct{}{} })
		done <- err
	}()
	<-received
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What is in memory is not read to its end either.
func TestCancelled(t *testing.T) {
	m, _, root := largeState(t)
	whole, totals := buildState(t, m, map[string][]byte{"a": []byte("a"), "b": pattern(3 << 20)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var e Editor
	must(t, e.Put("c/x", documentOf(m, 1, 10)))
	_, applied := e.Apply(ctx, m, m, root.CID)
	_, verified := VerifyState(ctx, m, whole.CID, totals)
	_, diff := changesOf(ctx, m, root.CID, whole.CID)
	_, counted := countDocuments(ctx, m, root.CID)
	_, missing := Missing(ctx, m, root.CID)
	_, read := ReadDocument(ctx, m, whole.CID, "b")
	for name, err := range map[string]error{
		"apply": applied, "verify": verified, "diff": diff, "list": counted, "missing": missing, "read": read,
		"proof": WriteProof(ctx, io.Discard, m, whole.CID, "b"), "CAR": WriteCAR(ctx, io.Discard, m, whole.CID),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A node has as many links, and they have as long names, as a save point needs.
func TestLinkLimits(t *testing.T) {
	l := RawBlock(nil).link()
	for name, c := range map[string]struct {
		n  node
		ok bool
	}{
		"as many links as there may be": {node{typ: typeFile, links: slices.Repeat([]pbLink{named("", l)}, maxLinks)}, true},
		"one more":                      {node{typ: typeFile, links: slices.Repeat([]pbLink{named("", l)}, maxLinks+1)}, false},
		"as long a name as may be":      {basic(named(strings.Repeat("n", maxLinkName), l)), true},
		"one byte more":                 {basic(named(strings.Repeat("n", maxLinkName+1), l)), false},
	} {
		data := c.n.encode()
		_, err := Links(newBlock(codecPB, data))
		if c.ok && err != nil || !c.ok && !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Sizes that add up to more than any DAG has are refused.
func TestSizeLimit(t *testing.T) {
	large := Link{documentOf(newMemory(), 1, 1<<21).CID, maxTotal / 2}
	for n, ok := range map[int]bool{1: true, 2: false, 3: false, 5: false} {
		var links []pbLink
		for i := range n {
			links = append(links, named(fmt.Sprint(i), large))
		}
		_, err := decodeNode(basic(links...).encode())
		if ok != (err == nil) || !ok && !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%d links: %v", n, err)
		}
	}
}

// Gaps cost what they name, wherever they lie.
func TestGapsSharePaths(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	var links []pbLink
	for i := range 40 {
		links = append(links, named(fmt.Sprintf("%02d", i), RawBlock([]byte{byte(i)}).link()))
	}
	l := m.put(basic(links...))
	for range 300 { // far more than a document's path has
		l = m.put(basic(named(strings.Repeat("n", MaxNameLen), l)))
	}
	gaps, err := Missing(ctx, m, l.CID)
	if err != nil || len(gaps) != len(links) {
		t.Fatalf("%d gaps, %v", len(gaps), err)
	}
	for i, g := range gaps {
		if unsafe.StringData(g.dir) != unsafe.StringData(gaps[0].dir) || len(g.dir) > maxPath || g.name != fmt.Sprintf("%02d", i) {
			t.Errorf("gap %d has a path of its own of %d bytes, and the name %q", i, len(g.dir), g.name)
		}
	}
}

// A source that gives nothing for a node has not shown that it links to nothing.
func TestEmptyNode(t *testing.T) {
	ctx := context.Background()
	empty := newBlock(codecPB, nil)
	m := newMemory()
	m.blocks[empty.CID] = nil
	_, missing := Missing(ctx, m, empty.CID)
	_, walk := walked(ctx, m, Limits{}, empty.CID)
	for name, err := range map[string]error{"missing": missing, "walk": walk, "CAR": WriteCAR(ctx, io.Discard, m, empty.CID)} {
		if !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Documents of two levels are read as they were written, and no node of them may be
// another.
func TestTwoLevels(t *testing.T) {
	ctx := context.Background()
	src := unchecked{}
	chunk := RawBlock(pattern(ChunkSize))
	src[chunk.CID] = chunk.Data
	put := func(n node) Link {
		b, l := n.block()
		src[b.CID] = b.Data
		return l
	}
	leaves := slices.Repeat([]subtree{{chunk.link(), ChunkSize}}, FileLinks)
	full, fullBytes := fileNode(leaves)
	rest, restBytes := fileNode(leaves[:1])
	good, bytes := fileNode([]subtree{{put(full), fullBytes}, {put(rest), restBytes}})
	l := put(good)
	if n, err := CopyDocument(ctx, src, l, io.Discard); err != nil || n != bytes || n != (FileLinks+1)*ChunkSize {
		t.Fatalf("%d of %d bytes: %v", n, bytes, err)
	}
	for name, change := range map[string]func(n *node){
		"Tsize of an inner node": func(n *node) { n.links[0].Size++ },
		"length of a part":       func(n *node) { n.blocksizes[1]++; n.filesize++ },
		"the chunk one level up": func(n *node) { n.links[1] = newLink("", "", chunk.link()) },
		"a part too few":         func(n *node) { n.links, n.blocksizes = n.links[:1], n.blocksizes[:1] },
		"a name":                 func(n *node) { n.links[0].Name = "n" },
	} {
		n := good
		n.links, n.blocksizes = slices.Clone(good.links), slices.Clone(good.blocksizes)
		change(&n)
		if _, err := CopyDocument(ctx, src, put(n), io.Discard); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A few nodes that link one another many times over are a document of exabytes: that they
// are is seen at the cost of the nodes, and who writes it all can stop.
func TestVastDocument(t *testing.T) {
	ctx := context.Background()
	src := unchecked{}
	chunk := RawBlock(pattern(ChunkSize))
	src[chunk.CID] = chunk.Data
	next := subtree{chunk.link(), ChunkSize}
	for range 4 {
		n, bytes := fileNode(slices.Repeat([]subtree{next}, FileLinks))
		b, l := n.block()
		src[b.CID] = b.Data
		next = subtree{l, bytes}
	}
	if n, err := CopyDocument(ctx, src, next.link, io.Discard); err != nil || n != 1<<60 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	b, l := basic(named("vast", next.link)).block()
	src[b.CID] = b.Data
	p, err := ReadProof(ctx, bytes.NewReader(proofOf(t, src, l.CID, "vast")))
	must(t, err)
	if doc, err := p.Document(ctx, l.CID, "vast", nil); err != nil || doc.Bytes != 1<<60 {
		t.Errorf("in a proof: %d bytes, %v", doc.Bytes, err)
	}
	running, stop := context.WithCancel(ctx)
	w := &stopper{after: 100, stop: stop}
	if _, err := CopyDocument(running, src, next.link, w); !errors.Is(err, context.Canceled) || w.writes != w.after {
		t.Errorf("%d writes, %v", w.writes, err)
	}

	// What is wrong where a part is linked again, as one of another length, is seen.
	half := RawBlock(pattern(ChunkSize / 2))
	src[half.CID] = half.Data
	n, _ := fileNode([]subtree{{chunk.link(), ChunkSize}, {chunk.link(), ChunkSize / 2}})
	b, l = n.block()
	src[b.CID] = b.Data
	if _, err := CopyDocument(ctx, src, l, io.Discard); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("a chunk as the half of itself: %v", err)
	}
}

// stopper calls stop with the last of so many writes.
type stopper struct {
	after, writes int
	stop          func()
}

func (s *stopper) Write(p []byte) (int, error) {
	if s.writes++; s.writes == s.after {
		s.stop()
	}
	return len(p), nil
}

// cborLinks are the links of a DAG-CBOR node as a decoder finds them, with the paths.
func cborLinks(t fataler, n datamodel.Node, path string, to []string) []string {
	switch n.Kind() {
	case datamodel.Kind_Link:
		l, err := n.AsLink()
		must(t, err)
		return append(to, l.(cidlink.Link).Cid.String()+" "+path)
	case datamodel.Kind_List:
		for it := n.ListIterator(); !it.Done(); {
			i, v, err := it.Next()
			must(t, err)
			to = cborLinks(t, v, joinPath(path, strconv.FormatInt(i, 10)), to)
		}
	case datamodel.Kind_Map:
		for it := n.MapIterator(); !it.Done(); {
			k, v, err := it.Next()
			must(t, err)
			key, err := k.AsString()
			must(t, err)
			to = cborLinks(t, v, joinPath(path, key), to)
		}
	}
	return to
}

// checkScanCBOR compares the scanner with a decoder that encodes again.
func checkScanCBOR(t fataler, data []byte) {
	t.Helper()
	var got []string
	err := scanCBOR(data, func(l rawLink[[]byte]) error {
		got = append(got, mustCast(l.cid).String()+" "+string(l.name))
		return nil
	})
	n, decodeErr := DecodeCBOR(data, MaxBlockSize)
	switch {
	case decodeErr != nil && err == nil:
		t.Fatal(fmt.Sprintf("%x is accepted, and is not canonical: %v", data, decodeErr))
	case decodeErr != nil || errors.Is(err, ErrUnsupported) || errors.Is(err, errCBORDepth):
		return // links that no save point has, or deeper than any
	case err != nil:
		t.Fatal(fmt.Sprintf("%x is refused: %v", data, err))
	}
	want := cborLinks(t, n, "", nil)
	// Decoders lose what an empty key adds to a path, and a long path is cut.
	same := func(a, b string) bool {
		return a == b || strings.Contains(a, "//") || strings.HasSuffix(a, "/") || len(a) > maxCBORPath
	}
	if !slices.EqualFunc(got, want, same) && !bytes.Contains(data, []byte{0x60}) {
		t.Fatal(fmt.Sprintf("%x: links %q, a decoder says %q", data, got, want))
	}
}

// someCBOR draws a node.
func someCBOR(t *rapid.T, depth int) datamodel.Node {
	kinds := 8
	if depth == 0 {
		kinds = 6
	}
	nb := basicnode.Prototype.Any.NewBuilder()
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		must(t, nb.AssignInt(rapid.Int64().Draw(t, "integer")))
	case 1:
		must(t, nb.AssignString(rapid.StringMatching(`[a-zé/]{0,30}`).Draw(t, "text")))
	case 2:
		must(t, nb.AssignBytes(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")))
	case 3:
		must(t, nb.AssignLink(cidlink.Link{Cid: RawBlock(rapid.SliceOfN(rapid.Byte(), 1, 1).Draw(t, "link")).CID}))
	case 4:
		must(t, nb.AssignBool(rapid.Bool().Draw(t, "bool")))
	case 5:
		must(t, nb.AssignFloat(rapid.Float64Range(-1e9, 1e9).Draw(t, "float")))
	case 6:
		n, err := qp.BuildList(basicnode.Prototype.Any, -1, func(la datamodel.ListAssembler) {
			for range rapid.IntRange(0, 30).Draw(t, "length") {
				qp.ListEntry(la, qp.Node(someCBOR(t, depth-1)))
			}
		})
		must(t, err)
		return n
	default:
		n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
			for _, k := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,30}`), 0, 10, rapid.ID[string]).Draw(t, "keys") {
				qp.MapEntry(ma, k, qp.Node(someCBOR(t, depth-1)))
			}
		})
		must(t, err)
		return n
	}
	return nb.Build()
}

// The scanner finds the links that a decoder finds, of nodes and of whatever comes
// out when a byte of one is changed.
func TestScanCBOR(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		data, err := EncodeCBOR(someCBOR(rt, 3))
		must(rt, err)
		checkScanCBOR(rt, data)
		for range 20 {
			i := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
			changed := bytes.Clone(data)
			changed[i] = rapid.Byte().Draw(rt, "byte")
			checkScanCBOR(rt, changed)
			checkScanCBOR(rt, data[:i])
		}
	})
	var golden goldenManifests
	readGolden(t, "manifests.json", &golden)
	for _, g := range golden.Accepted {
		checkScanCBOR(t, unhex(t, g.Hex))
	}
	for _, g := range golden.Refused {
		checkScanCBOR(t, unhex(t, g.Hex))
	}
	link := slices.Concat([]byte{0xd8, 42, 0x58, 37, 0}, RawBlock(nil).CID.Bytes())
	for name, c := range map[string]struct {
		data   []byte
		reason error
	}{
		"a link":                    {link, nil},
		"a large node":              {slices.Concat([]byte{0x82, 0x5a, 0, 2, 0, 0}, make([]byte, 2<<16), link), nil},
		"nothing":                   {nil, ErrNotCanonical},
		"two nodes":                 {[]byte{0, 0}, ErrNotCanonical},
		"another tag":               {append([]byte{0xd8, 43}, link[2:]...), ErrNotCanonical},
		"a link to a CIDv0":         {slices.Concat([]byte{0xd8, 42, 0x58, 35, 0}, RawBlock(nil).CID.Hash()), ErrUnsupported},
		"a list that is cut":        {[]byte{0x9a, 0x7f, 0xff, 0xff, 0xff}, ErrNotCanonical},
		"a map of 2^64-1 entries":   {append([]byte{0xbb}, bytes.Repeat([]byte{0xff}, 8)...), ErrNotCanonical},
		"an indefinite list":        {[]byte{0x9f, 0xff}, ErrNotCanonical},
		"a long form":               {[]byte{0x18, 23}, ErrNotCanonical},
		"a float of 16 bits":        {[]byte{0xf9, 0x3c, 0}, ErrNotCanonical},
		"NaN":                       {[]byte{0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0}, ErrNotCanonical},
		"undefined":                 {[]byte{0xf7}, ErrNotCanonical},
		"-2^64":                     {append([]byte{0x3b}, bytes.Repeat([]byte{0xff}, 8)...), ErrNotCanonical},
		"a key twice":               {[]byte{0xa2, 0x61, 'a', 0, 0x61, 'a', 0}, ErrNotCanonical},
		"a longer key first":        {[]byte{0xa2, 0x62, 'a', 'a', 0, 0x61, 'b', 0}, ErrNotCanonical},
		"a key that is a number":    {[]byte{0xa1, 0, 0}, ErrNotCanonical},
		"a text that is not UTF-8":  {[]byte{0x61, 0xff}, ErrNotCanonical},
		"lists in one another":      {append(bytes.Repeat([]byte{0x81}, maxCBORDepth), 0), nil},
		"more lists in one another": {append(bytes.Repeat([]byte{0x81}, maxCBORDepth+1), 0), ErrNotCanonical},
	} {
		if _, err := Links(newBlock(codecDC, c.data)); c.reason == nil && err != nil || !errors.Is(err, c.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzScanCBOR(f *testing.F) {
	var golden goldenManifests
	readGolden(f, "manifests.json", &golden)
	for _, g := range golden.Accepted {
		f.Add(unhex(f, g.Hex))
	}
	for _, g := range golden.Refused {
		f.Add(unhex(f, g.Hex))
	}
	f.Add(slices.Concat([]byte{0x82, 0xd8, 42, 0x58, 37, 0}, RawBlock(nil).CID.Bytes(), []byte{0xf6}))
	f.Fuzz(func(t *testing.T, data []byte) { checkScanCBOR(t, data) })
}
