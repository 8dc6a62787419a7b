package anchor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Witness cosigns heads of which it knows that they extend all that it cosigned
// before (c2sp.org/tlog-witness). Safe for concurrent use. Package witness has one
// that is asked over HTTP.
type Witness interface {
	// Name is the witness's name in the trust policy.
	Name() string
	// Cosign asks for a cosignature on a checkpoint. old is the size of the tree
	// that the witness is believed to have cosigned last, and proof shows that the
	// checkpoint extends it (RFC 6962, section 2.1.2); it is empty if old is 0 or
	// the checkpoint's own size. Cosign returns signature lines of a note, of which
	// nothing is believed. The error is a *[SizeError] if the witness has cosigned a
	// tree of another size, wraps ErrFork if it says that the checkpoint does not
	// extend that tree, ErrUntrusted if it does not accept the log's signature, and
	// otherwise ErrUnavailable or the context's error.
	Cosign(ctx context.Context, old int64, proof tlog.TreeProof, checkpoint []byte) ([]byte, error)
}

// SizeError says that a witness has last cosigned a tree of another size than the
// one that it was believed to have.
type SizeError struct {
	Size int64
}

func (e *SizeError) Error() string { return fmt.Sprintf("witness has cosigned size %d", e.Size) }

// clockSkew is how far the clock of a witness may be ahead of the reader's, and how
// old the cosignature that it has just made may seem.
const clockSkew = 5 * time.Minute

// cosignTries is how many sizes a witness may name in a row: others may be showing
// it heads at the same time.
const cosignTries = 4

// stragglers is how long witnesses are waited for that a quorum does without.
const stragglers = time.Second

var errEnough = errors.New("others made the quorum before it answered")

// WitnessReport is what became of asking one witness.
type WitnessReport struct {
	Witness string
	Time    time.Time // of its cosignature; zero if it gave none
	Err     error     // why it gave none
}

// Cosigned is a head that witnesses have cosigned just now.
type Cosigned struct {
	// Head has the checkpoint with the cosignatures. Its Root is undefined: the
	// checkpoint lies in no directory yet.
	Head
	Reports []WitnessReport // one for each witness, in their order
}

// Cosign asks all witnesses at once to cosign the view's head, and returns it with
// their cosignatures once p is satisfied and the others had a second more. known is the
// size that the witnesses are believed to have seen; they say so if they have not. Each
// cosignature counts only if the witness made it just now: so a quorum of them also says
// that no witness of it has seen a larger tree.
//
// A witness that says that it has cosigned a larger tree, or one that this head does not
// extend, is believed if it shows that tree's checkpoint (see [Accountable]), or if there
// is no quorum without it; otherwise that is only in its report. The error then is a
// *[RollbackError], or wraps ErrFork; it wraps ErrNoQuorum if too few answered, with the
// reason of each. The reports are there in any case.
func (v *View) Cosign(ctx context.Context, p *Policy, witnesses []Witness, known int64) (Cosigned, error) {
	out := Cosigned{Reports: make([]WitnessReport, len(witnesses))}
	lines, late := make([][]byte, len(witnesses)), make([][]byte, len(witnesses))
	// Whoever is asked in vain must not hold up what needs no more signatures.
	asking, enough := context.WithCancelCause(ctx)
	defer enough(nil)
	answers := make(chan int)
	for i, w := range witnesses {
		go func() {
			r := &out.Reports[i]
			r.Witness = w.Name()
			if lines[i], r.Err = v.ask(asking, w, known); r.Err == nil {
				lines[i], late[i], r.Time, r.Err = v.freshLines(p, lines[i])
			} else if errors.Is(context.Cause(asking), errEnough) && errors.Is(r.Err, context.Canceled) {
				r.Err = fmt.Errorf("%w: %w", ErrUnavailable, errEnough)
			}
			answers <- i
		}()
	}
	soFar, satisfied := v.logSignatures(p), false
	for range witnesses {
		soFar = append(soFar, lines[<-answers]...)
		if _, err := verifyCheckpoint(p, soFar); err == nil && !satisfied {
			satisfied = true
			timer := time.AfterFunc(stragglers, func() { enough(errEnough) })
			defer timer.Stop()
		}
	}
	signed := v.logSignatures(p)
	var errs []error
	for i, r := range out.Reports {
		signed = append(signed, lines[i]...)
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("witness %s: %w", r.Witness, r.Err))
		}
	}
	if err := v.contradicted(ctx, p, witnesses, out.Reports); err != nil {
		return out, err
	}
	err := errors.Join(errs...)
	h, verifyErr := verifyCheckpoint(p, signed)
	if verifyErr != nil {
		if errors.Is(err, ErrRollback) || errors.Is(err, ErrFork) {
			return out, err
		}
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		err = cmp.Or(err, verifyErr)
		if _, lateErr := verifyCheckpoint(p, append(signed, bytes.Join(late, nil)...)); lateErr == nil {
			err = fmt.Errorf("%w: %w", ErrClock, err)
		}
		return out, fmt.Errorf("%w: log %s, size %d: %w", ErrNoQuorum, v.head.Origin, v.head.Size, err)
	}
	out.Head = h
	return out, nil
}

// ask shows the head to one witness. It tells the witness what it wants to hear of
// the size that it cosigned last, and proves that the head extends that tree.
func (v *View) ask(ctx context.Context, w Witness, old int64) ([]byte, error) {
	for range cosignTries {
		if old > v.head.Size {
			return nil, &RollbackError{Old: Head{Origin: v.head.Origin, Size: old}, New: v.head}
		}
		var proof tlog.TreeProof
		if old > 0 && old < v.head.Size {
			var err error
			if proof, err = tlog.ProveTree(v.head.Size, old, v.hashes(ctx)); err != nil {
				return nil, fmt.Errorf("consistency with size %d: %w", old, verification(err))
			}
		}
		lines, err := w.Cosign(ctx, old, proof, v.head.Checkpoint)
		var other *SizeError
		if !errors.As(err, &other) {
			return lines, err
		}
		old = other.Size
	}
	return nil, fmt.Errorf("%w: it names another size again and again", ErrUnavailable)
}

// freshLines returns those signature lines that a witness of the policy made of the
// head just now; late are those of another time, which come with ErrStale.
func (v *View) freshLines(p *Policy, lines []byte) (fresh, late []byte, made time.Time, err error) {
	text, _, _ := bytes.Cut(v.head.Checkpoint, []byte("\n\n"))
	signed := append(append(bytes.Clone(text), "\n\n"...), lines...)
	if len(signed) > MaxCheckpointSize {
		return nil, nil, time.Time{}, fmt.Errorf("%w: an answer of %d bytes", ErrUntrusted, len(lines))
	}
	n, err := note.Open(signed, p.witnessVerifiers())
	if err != nil {
		return nil, nil, time.Time{}, fmt.Errorf("%w: cosignature: %w", ErrUntrusted, err)
	}
	for _, s := range n.Sigs {
		at, err := torchwood.CosignatureTimestamp(s)
		if err != nil {
			return nil, nil, time.Time{}, fmt.Errorf("%w: cosignature: %w", ErrUntrusted, err)
		}
		made = time.Unix(at, 0)
		if d := time.Since(made); d > clockSkew || d < -clockSkew {
			late = append(late, signatureLine(s)...)
			continue
		}
		fresh = append(fresh, signatureLine(s)...)
	}
	if late != nil {
		return nil, late, time.Time{}, fmt.Errorf("%w: cosignature of %s, which is not now", ErrStale, made.UTC().Format(time.RFC3339))
	}
	return fresh, nil, made, nil
}

func signatureLine(s note.Signature) string { return "\u2014 " + s.Name + " " + s.Base64 + "\n" }

// logSignatures is the checkpoint without the signatures of witnesses.
func (v *View) logSignatures(p *Policy) []byte {
	own, _ := p.SplitSignatures(v.head.Checkpoint)
	return own
}

// SplitSignatures returns a checkpoint with those of its signature lines alone that are of
// the log's name, and the other lines. It verifies nothing. While the key of a log is
// replaced a policy names one of the two that sign; of its witnesses' keys none has the
// log's name, see [ParsePolicy].
func (p *Policy) SplitSignatures(checkpoint []byte) (own []byte, others []string) {
	text, lines, _ := bytes.Cut(checkpoint, []byte("\n\n"))
	own = append(bytes.Clone(text), "\n\n"...)
	for line := range strings.Lines(string(lines)) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == p.Origin {
			own = append(own, line...)
		} else {
			others = append(others, line)
		}
	}
	return own, others
}

// CosignedAt returns when the witnesses of the policy cosigned a head, by their names in
// the policy, of which no two are alike; it is empty if none did. The head has been
// verified under the policy.
func CosignedAt(p *Policy, h Head) map[string]time.Time {
	out := map[string]time.Time{}
	n, err := note.Open(h.Checkpoint, p.witnessVerifiers())
	if err != nil {
		return out
	}
	for _, s := range n.Sigs {
		at, err := torchwood.CosignatureTimestamp(s)
		for _, w := range p.Witnesses {
			if v := w.Verifier; err == nil && v.Name() == s.Name && v.KeyHash() == s.Hash {
				out[w.Name] = time.Unix(at, 0)
			}
		}
	}
	return out
}

// CosignedSince reports whether p accepts the head with those cosignatures alone that are
// not older than since, nor from a future that clocks do not explain.
func CosignedSince(p *Policy, h Head, since time.Time) bool {
	n, err := note.Open(h.Checkpoint, p.witnessVerifiers())
	if err != nil {
		return false
	}
	signed := newView(nil, h).logSignatures(p)
	for _, s := range n.Sigs {
		at, err := torchwood.CosignatureTimestamp(s)
		if t := time.Unix(at, 0); err == nil && !t.Before(since) && time.Until(t) <= clockSkew {
			signed = append(signed, signatureLine(s)...)
		}
	}
	_, err = verifyCheckpoint(p, signed)
	return err == nil
}

// Fresher reports whether the checkpoint of a shows a log later than that of b does: p
// accepts it by cosignatures that are newer, or does not accept b's at all. p must accept
// a's.
func Fresher(p *Policy, a, b Head) bool {
	if _, err := verifyCheckpoint(p, b.Checkpoint); err != nil {
		return true
	}
	return p.Quorum && cosignedAll(p, a).After(cosignedAll(p, b))
}

// cosignedAll is the newest time since which the cosignatures of a head satisfy p; zero if
// there is none.
func cosignedAll(p *Policy, h Head) time.Time {
	var best time.Time
	for _, t := range CosignedAt(p, h) {
		if t.After(best) && CosignedSince(p, h, t) {
			best = t
		}
	}
	return best
}
