package hcs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
)

// maxFits bounds how many sets of cosignatures FitHead looks at.
const maxFits = 4096

// FitHead returns h without those cosignatures for which a topic message has no room: with
// as few left out as it takes, so that p still accepts it. Signatures of the log itself all
// stay, since while its key is replaced some readers know the one and some the other. h is
// returned as it is if it fits. The error wraps ErrSize if nothing that p accepts fits, or is
// that of [EncodeHead].
func FitHead(p *anchor.Policy, h anchor.Head) (anchor.Head, error) {
	_, full := EncodeHead(h)
	if !errors.Is(full, ErrSize) {
		return h, full
	}
	own, cosignatures := p.SplitSignatures(h.Checkpoint)
	// The longest go first.
	slices.SortStableFunc(cosignatures, func(a, b string) int { return len(a) - len(b) })
	tries := 0
	// fit leaves out one of the first n, and then more of those before it, until the rest fits.
	var fit func(left []string, n int) ([]byte, bool)
	fit = func(left []string, n int) ([]byte, bool) {
		for i := n - 1; i >= 0 && tries < maxFits; i-- {
			tries++
			rest := slices.Delete(slices.Clone(left), i, i+1)
			signed := append(bytes.Clone(own), strings.Join(rest, "")...)
			if _, err := anchor.VerifyCheckpoint(p, signed); err != nil {
				continue // nor would p accept less
			}
			if _, err := EncodeHead(anchor.Head{Checkpoint: signed, Root: h.Root}); err == nil {
				return signed, true
			}
			if signed, ok := fit(rest, i); ok {
				return signed, true
			}
		}
		return nil, false
	}
	signed, ok := fit(cosignatures, len(cosignatures))
	if !ok {
		return anchor.Head{}, fmt.Errorf("with the cosignatures that the trust policy needs: %w", full)
	}
	h.Checkpoint = signed
	return h, nil
}
