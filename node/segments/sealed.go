package segments

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"sort"
	"syscall"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/internal/durable"
	"github.com/klauspost/compress/zstd"
)

const (
	// frameSize is how many bytes of a sealed segment are compressed together, so
	// how many are decompressed to read one block.
	frameSize = 256 << 10
	// cachedFrames is how many decompressed frames a store keeps: 32 MiB.
	cachedFrames = 128
	// seekTableEnd follows the seek table: number of frames, a byte of flags, and
	// a magic number (zstd seekable format).
	seekTableEnd   = 4 + 1 + 4
	seekTableMagic = 0x8F92EAB1
	skippableMagic = 0x184D2A5E
)

// frame is a part of a sealed segment.
type frame struct {
	at, length int64 // compressed
	begin      int64 // uncompressed
}

// sealedCAR is a segment compressed as seekable zstd. Reading it decompresses whole
// frames, of which the store keeps some.
type sealedCAR struct {
	f      durable.File
	size   int64
	frames []frame
	cache  *frameCache
}

// frameCache keeps decompressed frames of a store's segments.
type frameCache struct {
	frames  *lru.Cache[frameKey, []byte]
	decoder *zstd.Decoder
}

type frameKey struct {
	car *sealedCAR
	n   int
}

func newFrameCache() *frameCache {
	frames, err := lru.New[frameKey, []byte](cachedFrames)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		panic(err) // only for options that contradict
	}
	return &frameCache{frames, decoder}
}

func openSealed(disk durable.Disk, path string, cache *frameCache) (*sealedCAR, error) {
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	c := &sealedCAR{f: f, cache: cache}
	err = c.readSeekTable()
	if errors.Is(err, ErrDamaged) {
		err = c.walkFrames()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

// readSeekTable finds the frames by the table at the end of the file.
func (c *sealedCAR) readSeekTable() error {
	st, err := c.f.Stat()
	if err != nil {
		return err
	}
	bad := fmt.Errorf("%w: seek table of %s", ErrDamaged, c.f.Name())
	end := make([]byte, seekTableEnd)
	if st.Size() < seekTableEnd+8 {
		return bad
	}
	if _, err := c.f.ReadAt(end, st.Size()-seekTableEnd); err != nil {
		return asDamage(err)
	}
	n := int64(binary.LittleEndian.Uint32(end))
	entry := int64(8)
	if end[4]&0x80 != 0 {
		entry = 12 // with a checksum, which the hash of each block makes needless
	}
	begin := st.Size() - seekTableEnd - n*entry - 8
	if binary.LittleEndian.Uint32(end[5:]) != seekTableMagic || begin < 0 {
		return bad
	}
	table := make([]byte, n*entry+8)
	if _, err := c.f.ReadAt(table, begin); err != nil {
		return asDamage(err)
	}
	if binary.LittleEndian.Uint32(table) != skippableMagic || int64(binary.LittleEndian.Uint32(table[4:])) != n*entry+seekTableEnd {
		return bad
	}
	var at int64
	for e := table[8:]; len(e) > 0; e = e[entry:] {
		packed, size := int64(binary.LittleEndian.Uint32(e)), int64(binary.LittleEndian.Uint32(e[4:]))
		// One wrong length would move all that follows.
		if last := int64(len(e)) == entry; size != frameSize && !last {
			return bad
		} else if last && c.contentSize(at, packed) != size {
			return bad
		}
		if err := c.add(at, packed, size); err != nil {
			return err
		}
		at += packed
	}
	if at != begin {
		return bad
	}
	return nil
}

// contentSize returns the length that a frame decompresses to, or -1. Its head says
// that of all but short ones.
func (c *sealedCAR) contentSize(at, packed int64) int64 {
	var buf [zstd.HeaderMaxSize]byte
	n, _ := c.f.ReadAt(buf[:], at)
	var head zstd.Header
	switch {
	case head.Decode(buf[:n]) != nil || head.Skippable || packed > 2*frameSize:
		return -1
	case head.HasFCS && head.FrameContentSize > frameSize:
		return -1
	case head.HasFCS:
		return int64(head.FrameContentSize)
	}
	data := make([]byte, packed)
	if _, err := c.f.ReadAt(data, at); err != nil {
		return -1
	}
	out, err := c.cache.decoder.DecodeAll(data, make([]byte, 0, frameSize))
	if err != nil {
		return -1
	}
	return int64(len(out))
}

// add notes the next frame.
func (c *sealedCAR) add(at, length, size int64) error {
	if size > frameSize || length > 2*frameSize {
		return fmt.Errorf("%w: a frame of %d bytes in %s", ErrDamaged, size, c.f.Name())
	}
	c.frames = append(c.frames, frame{at, length, c.size})
	c.size += size
	return nil
}

// walkFrames finds the frames by their own heads (RFC 8878, section 3.1.1), as far as
// they make sense.
func (c *sealedCAR) walkFrames() error {
	c.frames, c.size = nil, 0
	for at := int64(0); ; {
		buf := make([]byte, zstd.HeaderMaxSize)
		n, err := c.f.ReadAt(buf, at)
		if err != nil && err != io.EOF && !errors.Is(err, syscall.EIO) {
			return err
		}
		var head zstd.Header
		if head.Decode(buf[:n]) != nil || head.Skippable {
			return nil
		}
		end := at + int64(head.HeaderSize)
		for last := false; !last; {
			var b [3]byte
			if _, err := c.f.ReadAt(b[:], end); err != nil {
				return nil
			}
			v := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
			last = v&1 == 1
			end += 3
			if v>>1&3 == 1 { // one byte, repeated
				end++
			} else {
				end += int64(v >> 3)
			}
		}
		if head.HasCheckSum {
			end += 4
		}
		size := c.contentSize(at, end-at)
		if size < 0 || c.add(at, end-at, size) != nil {
			return nil
		}
		at = end
	}
}

func (c *sealedCAR) Size() int64  { return c.size }
func (c *sealedCAR) Close() error { return c.f.Close() }

// ReadAt reads from the uncompressed CAR. The error wraps ErrDamaged if a frame
// cannot be decompressed to its length.
func (c *sealedCAR) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		if off >= c.size {
			return n, io.EOF
		}
		i := sort.Search(len(c.frames), func(i int) bool { return c.frames[i].begin > off }) - 1
		data, err := c.frame(i)
		if err != nil {
			return n, err
		}
		k := copy(p[n:], data[off-c.frames[i].begin:])
		n += k
		off += int64(k)
	}
	return n, nil
}

// lenient reads a segment with zeros in the place of what cannot be read or
// decompressed, so that the rest can be scanned.
type lenient struct{ carFile }

// badPiece is how much of a segment that is not sealed lenient gives up at a time.
const badPiece = 4 << 10

func (l lenient) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < l.Size() {
		// A piece lies in one frame.
		end := min(n+int(frameSize-off%frameSize), len(p))
		k, err := l.carFile.ReadAt(p[n:end], off)
		if errors.Is(err, ErrDamaged) {
			left := min(int64(end-n), l.Size()-off)
			gap := left // the rest of a frame cannot be decompressed either
			if _, plain := l.carFile.(*plainCAR); plain {
				gap = min(int64(k)+badPiece-(off+int64(k))%badPiece, left)
			}
			clear(p[n+k : n+int(gap)])
			k, err = int(gap), nil
		}
		n += k
		off += int64(k)
		if err != nil && err != io.EOF {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (c *sealedCAR) frame(i int) ([]byte, error) {
	if data, ok := c.cache.frames.Get(frameKey{c, i}); ok {
		return data, nil
	}
	end := c.size
	if i+1 < len(c.frames) {
		end = c.frames[i+1].begin
	}
	packed := make([]byte, c.frames[i].length)
	if _, err := c.f.ReadAt(packed, c.frames[i].at); err != nil && err != io.EOF {
		return nil, asDamage(err)
	}
	size := int(end - c.frames[i].begin)
	data, err := c.cache.decoder.DecodeAll(packed, make([]byte, 0, size))
	if err == nil && len(data) != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("%w: frame %d: %w", ErrDamaged, i, err)
	}
	c.cache.frames.Add(frameKey{c, i}, data)
	return data, nil
}

// Seal closes the active segment, if it holds anything, and compresses every closed
// segment that is not compressed yet, while others read and write. It needs as
// much room on the disk as one segment. One that cannot be read stays as it is, which
// the error tells, and the others are compressed.
func (s *Store) Seal(ctx context.Context) error {
	if err := s.beginRewriting(ctx); err != nil {
		return err
	}
	defer s.endRewriting()
	if err := s.roll(); err != nil {
		return err
	}
	var errs []error
	for _, seg := range s.snapshot() {
		if seg.sealed {
			continue
		}
		err := s.seal(ctx, seg)
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("seal segment %d: %w", seg.number, err))
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, errUnreadable) {
			break
		}
	}
	return errors.Join(errs...)
}

func (s *Store) seal(ctx context.Context, seg *segment) error {
	path := filepath.Join(s.dir, seg.name().car())
	if err := s.disk.Write(path+".zst", 0o600, func(f durable.File) error { return compress(ctx, f, seg.car) }); err != nil {
		return err
	}
	car, err := openSealed(s.disk, path+".zst", s.cache)
	if err != nil {
		return err
	}
	if err := sameBytes(ctx, seg.car, car); err != nil {
		return errors.Join(err, car.Close(), s.disk.Remove(path+".zst"))
	}
	sealed := &segment{number: seg.number, sealed: true, index: seg.index, car: car}
	s.files.Lock()
	defer s.files.Unlock()
	// Nobody reads now, so nobody touches a row between the two.
	sealed.touched.Store(seg.touched.Load())
	sealed.held.Store(seg.held.Load())
	s.replace(seg, sealed)
	return errors.Join(seg.car.Close(), s.disk.Remove(path))
}

// compress writes a CAR as seekable zstd, on all cores.
func compress(ctx context.Context, w io.Writer, car carFile) error {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return err
	}
	defer encoder.Close()
	out, err := seekable.NewWriter(w, encoder)
	if err != nil {
		return err
	}
	off := int64(0)
	next := func() ([]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		frame := make([]byte, min(frameSize, car.Size()-off))
		if len(frame) == 0 {
			return nil, nil
		}
		n, err := car.ReadAt(frame, off)
		if off += int64(n); n < len(frame) {
			return nil, fmt.Errorf("%w: %w", errUnreadable, errors.Join(io.ErrUnexpectedEOF, err))
		}
		return frame, nil
	}
	if err := out.WriteMany(ctx, next, seekable.WithConcurrency(runtime.GOMAXPROCS(0))); err != nil {
		return err
	}
	return out.Close()
}

// sameBytes reads both and compares them: a segment is given up for its compressed
// form only when that has shown that it is the same.
func sameBytes(ctx context.Context, a, b carFile) error {
	if a.Size() != b.Size() {
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrDamaged, b.Size(), a.Size())
	}
	var bufs [2][]byte
	for i := range bufs {
		bufs[i] = make([]byte, frameSize)
	}
	for off := int64(0); off < a.Size(); off += frameSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(frameSize, a.Size()-off)
		for i, car := range []carFile{a, b} {
			if _, err := car.ReadAt(bufs[i][:n], off); err != nil && err != io.EOF {
				return fmt.Errorf("%w: %w", errUnreadable, err)
			}
		}
		if !bytes.Equal(bufs[0][:n], bufs[1][:n]) {
			return fmt.Errorf("%w: it differs at %d", ErrDamaged, off)
		}
	}
	return nil
}
