package dag

import (
	"bytes"
	"context"
	"errors"
	"testing"

	car "github.com/ipld/go-car/v2"
)

// A file that is changed after it was read proves nothing else than before.
func TestProofChangesLater(t *testing.T) {
	ctx := context.Background()
	m, documents, root := provable(t)
	var version2 bytes.Buffer
	must(t, car.WrapV1(bytes.NewReader(proofOf(t, m, root, "large")), &version2))
	for _, file := range [][]byte{proofOf(t, m, root, "large"), writeCAR(t, m, root), version2.Bytes()} {
		p, err := ReadProof(ctx, bytes.NewReader(file))
		must(t, err)
		var got bytes.Buffer
		_, err = p.Document(ctx, root, "large", &got)
		if err != nil || !bytes.Equal(got.Bytes(), documents["large"]) {
			t.Fatalf("%d bytes, %v", got.Len(), err)
		}
		for c := range p.index {
			i := p.index[c].end - 1
			file[i] ^= 1
			if _, err := p.Get(ctx, c); !errors.Is(err, ErrHash) && p.index[c].length > 0 {
				t.Errorf("%s with a bit flipped: %v", c, err)
			}
			file[i] ^= 1
		}
		p.car = bytes.NewReader(file[:100])
		if _, err := p.Document(ctx, root, "large", nil); !errors.Is(err, ErrTruncated) {
			t.Errorf("cut: %v", err)
		}
	}
}

// A proof may have further roots, which link to nothing, and may be of the root alone.
func TestProofWithMoreRoots(t *testing.T) {
	ctx := context.Background()
	m, _, root := provable(t)
	more := []Block{RawBlock([]byte("one")), RawBlock([]byte("two"))}
	for _, path := range []string{"", "a/b/c/d", "a/none"} {
		var car bytes.Buffer
		if err := WriteProof(ctx, &car, m, root, path, more...); err != nil {
			t.Fatal(err)
		}
		p, err := ReadProof(ctx, bytes.NewReader(car.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Roots) != 3 || p.Roots[0] != root || p.Roots[2] != more[1].CID {
			t.Errorf("%q: roots %v", path, p.Roots)
		}
		for _, b := range more {
			if got, err := p.Get(ctx, b.CID); err != nil || !bytes.Equal(got, b.Data) {
				t.Errorf("%q: %q %v", path, got, err)
			}
		}
		if path == "" {
			if p.Blocks() != 3 {
				t.Errorf("%d IPFS blocks for the root alone", p.Blocks())
			}
			continue
		}
		if _, err := p.Document(ctx, root, path, nil); (err != nil) != (path == "a/none") || err != nil && !errors.Is(err, ErrNoDocument) {
			t.Errorf("%q: %v", path, err)
		}
		// Who names one root only refuses the others.
		if _, err := VerifyProof(ctx, bytes.NewReader(car.Bytes()), root, path, nil); !errors.Is(err, ErrForeignBlock) {
			t.Errorf("%q, of one root: %v", path, err)
		}
	}
}
