package witness

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

var errMalformed = errors.New("malformed request")

func (r request) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", r.old)
	for _, h := range r.proof {
		fmt.Fprintf(&b, "%s\n", h)
	}
	b.WriteByte('\n')
	b.Write(r.checkpoint)
	return b.Bytes()
}

// parseRequest reads the body of add-checkpoint in its one encoding. The checkpoint
// is not looked at. The error wraps errMalformed.
func parseRequest(body []byte) (request, error) {
	head, checkpoint, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return request{}, fmt.Errorf("%w: no empty line", errMalformed)
	}
	lines := strings.Split(string(head), "\n")
	text, ok := strings.CutPrefix(lines[0], "old ")
	if !ok {
		return request{}, fmt.Errorf("%w: it does not begin with the old size", errMalformed)
	}
	r := request{checkpoint: checkpoint}
	var err error
	if r.old, err = parseSize(text); err != nil {
		return request{}, err
	}
	if len(lines)-1 > maxProof {
		return request{}, fmt.Errorf("%w: a proof of %d hashes, more than %d", errMalformed, len(lines)-1, maxProof)
	}
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil || h.String() != line {
			return request{}, fmt.Errorf("%w: hash %.60q", errMalformed, line)
		}
		r.proof = append(r.proof, h)
	}
	return r, nil
}

// parseSize reads a size in decimal, without leading zeros.
func parseSize(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > maxSize || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%w: size %.40q", errMalformed, text)
	}
	return n, nil
}
