package dag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

const (
	// maxCBORDepth is how many lists and maps may lie in one another.
	maxCBORDepth = 256
	// maxCBORPath is where the path of a link in a node is cut.
	maxCBORPath = 1024
)

// The major types of CBOR (RFC 8949, section 3.1).
const (
	cborUint = iota
	cborNegative
	cborBytes
	cborText
	cborList
	cborMap
	cborTag
	cborSimple
)

// linkTag is the tag of a link, a byte string of a zero and the CID (DAG-CBOR
// specification, "Links").
const linkTag = 42

// cborScanner goes through the bytes of a DAG-CBOR node. It copies and allocates
// nothing but the path at which it is.
type cborScanner struct {
	b    []byte // what is left
	path []byte
	f    func(rawLink[[]byte]) error
	stop error // of f
}

// scanCBOR calls f for every link of a DAG-CBOR node, in order. It accepts only
// canonical bytes, as [DecodeCBOR] does. Errors wrap ErrNotCanonical or ErrUnsupported,
// or come from f.
func scanCBOR(b []byte, f func(rawLink[[]byte]) error) error {
	s := cborScanner{b: b, f: f}
	err := s.value(0)
	switch {
	case s.stop != nil:
		return s.stop
	case err == nil && len(s.b) > 0:
		err = errors.New("bytes after the node")
	}
	if err != nil {
		return fmt.Errorf("%w: DAG-CBOR, %d bytes before the end: %w", ErrNotCanonical, len(s.b), err)
	}
	return nil
}

var (
	errCBORCut   = errors.New("it is cut")
	errCBORForm  = errors.New("not in the one form that it has")
	errCBORDepth = errors.New("too many lists and maps in one another")
)

// head cuts the head of an item off: its major type and its argument.
func (s *cborScanner) head() (major byte, arg uint64, err error) {
	if len(s.b) == 0 {
		return 0, 0, errCBORCut
	}
	major, info := s.b[0]>>5, s.b[0]&31
	if info < 24 {
		s.b = s.b[1:]
		return major, uint64(info), nil
	}
	n := 1 << (info - 24) // bytes of the argument
	if info > 27 {
		return 0, 0, errCBORForm
	}
	if len(s.b) < 1+n {
		return 0, 0, errCBORCut
	}
	var buf [8]byte
	copy(buf[8-n:], s.b[1:1+n])
	arg = binary.BigEndian.Uint64(buf[:])
	if major == cborSimple {
		return s.float(n, arg)
	}
	// The shortest form: it would not have fitted into half as many bytes.
	if n == 1 && arg < 24 || n > 1 && arg>>(4*n) == 0 {
		return 0, 0, errCBORForm
	}
	s.b = s.b[1+n:]
	return major, arg, nil
}

// float accepts floats of 64 bits that are numbers, and no other.
func (s *cborScanner) float(n int, arg uint64) (byte, uint64, error) {
	v := math.Float64frombits(arg)
	if n != 8 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, 0, errCBORForm
	}
	s.b = s.b[9:]
	return cborSimple, 20, nil // as good as false
}

// cut cuts the bytes of a byte string or a text off.
func (s *cborScanner) cut(n uint64) ([]byte, error) {
	if n > uint64(len(s.b)) {
		return nil, errCBORCut
	}
	v := s.b[:n]
	s.b = s.b[n:]
	return v, nil
}

func (s *cborScanner) value(depth int) error {
	major, arg, err := s.head()
	if err != nil {
		return err
	}
	switch major {
	case cborUint:
		return nil
	case cborNegative:
		if arg > math.MaxInt64 {
			return errCBORForm // less than any integer of 64 bits
		}
		return nil
	case cborBytes:
		_, err = s.cut(arg)
		return err
	case cborText:
		_, err = s.text(arg)
		return err
	case cborList:
		return s.list(arg, depth+1)
	case cborMap:
		return s.entries(arg, depth+1)
	case cborTag:
		return s.link(arg)
	}
	if arg < 20 || arg > 22 { // false, true, null
		return errCBORForm
	}
	return nil
}

func (s *cborScanner) text(n uint64) ([]byte, error) {
	v, err := s.cut(n)
	if err == nil && !utf8.Valid(v) {
		err = errors.New("a text that is not UTF-8")
	}
	return v, err
}

func (s *cborScanner) list(n uint64, depth int) error {
	if n > uint64(len(s.b)) { // each takes a byte or more
		return errCBORCut
	}
	if depth > maxCBORDepth {
		return errCBORDepth
	}
	at := len(s.path)
	for i := range n {
		s.path = strconv.AppendUint(s.down(), i, 10)
		if err := s.value(depth); err != nil {
			return err
		}
		s.path = s.path[:at]
	}
	return nil
}

func (s *cborScanner) entries(n uint64, depth int) error {
	if n > uint64(len(s.b)) {
		return errCBORCut
	}
	if depth > maxCBORDepth {
		return errCBORDepth
	}
	at := len(s.path)
	var last []byte
	for i := range n {
		key, err := s.key()
		if err != nil {
			return err
		}
		if i > 0 && (len(key) < len(last) || len(key) == len(last) && bytes.Compare(key, last) <= 0) {
			return fmt.Errorf("map key %.40q after %.40q", key, last)
		}
		last = key
		s.path = append(s.down(), key[:min(len(key), maxCBORPath)]...)
		if err := s.value(depth); err != nil {
			return err
		}
		s.path = s.path[:at]
	}
	return nil
}

func (s *cborScanner) key() ([]byte, error) {
	major, arg, err := s.head()
	if err != nil {
		return nil, err
	}
	if major != cborText {
		return nil, errors.New("a map key that is not a text")
	}
	return s.text(arg)
}

// down is the path, ready for the name of something in the present list or map.
func (s *cborScanner) down() []byte {
	if len(s.path) == 0 || s.path[len(s.path)-1] == '/' || len(s.path) > maxCBORPath {
		return s.path
	}
	return append(s.path, '/')
}

func (s *cborScanner) link(tag uint64) error {
	if tag != linkTag {
		return fmt.Errorf("tag %d", tag)
	}
	major, arg, err := s.head()
	if err != nil {
		return err
	}
	if major != cborBytes {
		return errCBORForm
	}
	v, err := s.cut(arg)
	if err != nil {
		return err
	}
	if len(v) == 0 || v[0] != 0 {
		return errors.New("a link that is no CID in binary")
	}
	if c := v[1:]; !isSupportedCID(c) {
		return unsupportedCID(c)
	}
	s.stop = s.f(rawLink[[]byte]{cid: v[1:], name: s.path[:min(len(s.path), maxCBORPath)]})
	return s.stop
}
