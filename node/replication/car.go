package replication

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"
)

const (
	// maxCARHeader and maxCARSection bound what is allocated for what a file says.
	maxCARHeader  = 4 << 10
	maxCARSection = dag.MaxBlockSize + 128
	// skipBuffer is how much is read of a file at a time: the heads of sections, and
	// little of what is skipped.
	skipBuffer = 4 << 10
)

// findInCAR returns the first copies of IPFS blocks in a CAR, unchecked. The others are
// skipped, not read. The error wraps dag.ErrNotFound if one is not there, also where
// the file is damaged before it.
func findInCAR(ctx context.Context, file io.ReadSeeker, cids []cid.Cid) ([]dag.Block, error) {
	wanted := make(map[cid.Cid]bool, len(cids))
	for _, c := range cids {
		wanted[c] = true
	}
	var found []*car.BlockMetadata
	r, err := car.NewBlockReader(file, car.MaxAllowedHeaderSize(maxCARHeader), car.MaxAllowedSectionSize(maxCARSection))
	for err == nil && len(wanted) > 0 {
		var at *car.BlockMetadata
		if at, err = r.SkipNext(); err == nil && wanted[at.Cid] {
			delete(wanted, at.Cid)
			found = append(found, at)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	for c := range wanted {
		return nil, fmt.Errorf("%w: %s: the file is read to its end, or to where it is damaged: %w", dag.ErrNotFound, c, err)
	}
	blocks := make([]dag.Block, len(found))
	for i, at := range found {
		data, err := readBlock(file, at)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", at.Cid, err)
		}
		blocks[i] = dag.Block{CID: at.Cid, Data: data}
	}
	return blocks, nil
}

// readBlock reads the block of a section, which follows the section's length and its
// CID.
func readBlock(file io.ReadSeeker, at *car.BlockMetadata) ([]byte, error) {
	idLen := uint64(at.Cid.ByteLen())
	head := uint64(len(binary.AppendUvarint(nil, idLen+at.Size))) + idLen
	if _, err := file.Seek(int64(at.SourceOffset+head), io.SeekStart); err != nil {
		return nil, err
	}
	data := make([]byte, at.Size)
	_, err := io.ReadFull(file, data)
	return data, err
}

// skipper is a buffered reader of a file that can be skipped in.
type skipper struct {
	file io.ReadSeeker
	r    *bufio.Reader
	pos  int64
}

func (s *skipper) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.pos += int64(n)
	return n, err
}

func (s *skipper) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.pos++
	}
	return b, err
}

func (s *skipper) Seek(offset int64, whence int) (int64, error) {
	to := offset
	switch whence {
	case io.SeekCurrent:
		to += s.pos
	case io.SeekEnd:
		end, err := s.file.Seek(0, io.SeekEnd)
		if err != nil {
			return 0, err
		}
		to += end
		s.pos = -1 // what is buffered is not from here any more
	}
	if to < 0 {
		return 0, errors.New("seek before the beginning")
	}
	if ahead := to - s.pos; s.pos >= 0 && ahead >= 0 && ahead <= int64(s.r.Buffered()) {
		_, err := s.r.Discard(int(ahead))
		s.pos = to
		return to, err
	}
	if _, err := s.file.Seek(to, io.SeekStart); err != nil {
		return 0, err
	}
	s.r.Reset(s.file)
	s.pos = to
	return to, nil
}
