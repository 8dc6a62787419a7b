package anchor

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

// Prove returns the proof, as a c2sp.org/tlog-proof text, that record is at
// index. The line "extra" holds the record, so that the text alone tells what it
// proves. The error wraps ErrNotIncluded if another record is there.
func (v *View) Prove(ctx context.Context, index int64, record []byte) ([]byte, error) {
	h := v.head
	if index < 0 || index >= h.Size {
		return nil, fmt.Errorf("%w: entry %d of a log of %d", ErrNotIncluded, index, h.Size)
	}
	p, err := tlog.ProveRecord(h.Size, index, v.hashes(ctx))
	if err != nil {
		return nil, fmt.Errorf("proof of entry %d: %w", index, verification(err))
	}
	if err := tlog.CheckRecord(p, h.Size, h.RootHash, index, tlog.RecordHash(record)); err != nil {
		return nil, fmt.Errorf("%w: entry %d", ErrNotIncluded, index)
	}
	text := torchwood.FormatProofWithExtraData(index, record, p, h.Checkpoint)
	if len(text) > MaxProofSize {
		return nil, fmt.Errorf("proof of entry %d has %d bytes, more than %d", index, len(text), MaxProofSize)
	}
	return text, nil
}

// ProofResult is what a valid proof shows: Record is at Index of the log of Head.
type ProofResult struct {
	Index  int64
	Record []byte
	Head   Head
}

// VerifyProof checks a proof made by [View.Prove] or, in the same form, by any
// other program. It needs no log and no network. The record comes from the line
// "extra", and its hash is computed anew; a proof without that line is refused.
// Only the one encoding of a proof is accepted. The error wraps ErrCorrupt if
// the proof is malformed or shows nothing, ErrUntrusted if p does not accept its
// checkpoint, ErrPolicy if p is nil.
func VerifyProof(p *Policy, proof []byte) (ProofResult, error) {
	fail := func(err error) (ProofResult, error) { return ProofResult{}, fmt.Errorf("%w: %w", ErrCorrupt, err) }
	if len(proof) > MaxProofSize {
		return fail(fmt.Errorf("proof has %d bytes, more than %d", len(proof), MaxProofSize))
	}
	record, err := torchwood.ProofExtraData(proof)
	if err != nil {
		return fail(err)
	}
	if len(record) > MaxRecordSize {
		return fail(fmt.Errorf("%w: %d bytes, more than %d", ErrRecordSize, len(record), MaxRecordSize))
	}
	index, path, checkpoint, err := splitProof(proof)
	if err != nil {
		return fail(err)
	}
	if !bytes.Equal(torchwood.FormatProofWithExtraData(index, record, path, checkpoint), proof) {
		return fail(errors.New("proof is not in its one encoding"))
	}
	h, err := verifyCheckpoint(p, checkpoint)
	if err != nil {
		return ProofResult{}, err
	}
	if err := torchwood.VerifyProof(p.rule, tlog.RecordHash(record), proof); err != nil {
		return fail(err)
	}
	return ProofResult{Index: index, Record: record, Head: h}, nil
}

// ProofRecord returns what a proof shows to who has no policy for its log: that the
// checkpoint within it has the record at the index, whoever signed it. It says that
// the bytes of the proof are whole, and nothing else. The error wraps ErrCorrupt.
func ProofRecord(proof []byte) (index int64, record []byte, err error) {
	fail := func(err error) (int64, []byte, error) { return 0, nil, fmt.Errorf("%w: %w", ErrCorrupt, err) }
	if record, err = torchwood.ProofExtraData(proof); err != nil {
		return fail(err)
	}
	index, path, checkpoint, err := splitProof(proof)
	if err != nil {
		return fail(err)
	}
	text, _, _ := strings.Cut(string(checkpoint), "\n\n")
	c, err := torchwood.ParseCheckpoint(text + "\n")
	if err != nil {
		return fail(err)
	}
	if err := tlog.CheckRecord(path, c.N, c.Hash, index, tlog.RecordHash(record)); err != nil {
		return fail(err)
	}
	return index, record, nil
}

// splitProof takes a proof apart. Whether its parts were encoded strictly shows
// when they are put together again.
func splitProof(proof []byte) (index int64, path tlog.RecordProof, checkpoint []byte, err error) {
	head, note, ok := strings.Cut(string(proof), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 3 { // version, extra, index
		return 0, nil, nil, errors.New("malformed tlog proof")
	}
	if index, err = strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64); err != nil {
		return 0, nil, nil, fmt.Errorf("malformed tlog proof: %w", err)
	}
	for _, line := range lines[3:] {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != tlog.HashSize {
			return 0, nil, nil, fmt.Errorf("malformed tlog proof: hash %.60q", line)
		}
		path = append(path, tlog.Hash(h))
	}
	return index, path, []byte(note), nil
}
