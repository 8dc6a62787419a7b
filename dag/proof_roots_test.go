package dag

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

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
