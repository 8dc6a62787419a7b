package pinning

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
)

const (
	maxBody    = 64 << 10
	maxName    = 255
	maxOrigins = 20
	maxMeta    = 1000
	// maxMetaBytes bounds keys and values of meta, maxOriginBytes the origins, each in
	// all: requests are kept in memory.
	maxMetaBytes   = 4 << 10
	maxOriginBytes = 8 << 10
)

// errBad: what a client sent is not what the specification allows.
var errBad = errors.New("bad request")

// pin is the specification's Pin object.
type pin struct {
	CID     string            `json:"cid"`
	Name    string            `json:"name,omitempty"`
	Origins []string          `json:"origins,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
}

// status is the specification's Status.
type status string

const (
	queued  status = "queued"
	pinning status = "pinning"
	pinned  status = "pinned"
	failed  status = "failed"
)

func (s status) valid() bool { return s == queued || s == pinning || s == pinned || s == failed }

// open reports whether there is still something to do.
func (s status) open() bool { return s == queued || s == pinning }

// request is a pin request as it is kept: the record meta/requests/<id>.
type request struct {
	ID      string    `json:"-"`
	Created time.Time `json:"created"`
	Pin     pin       `json:"pin"`
	Status  status    `json:"status"`
	Details string    `json:"details,omitempty"`
	// Keeps are the CIDs of DAGs that this request replaces, until it is pinned.
	Keeps []string `json:"keeps,omitempty"`

	cid    cid.Cid
	size   int // of the record, in bytes
	tries  int
	notYet time.Time // it is not tried before
	retry  *time.Timer
	cancel func() // ends the fetch; nil if there is none
}

// pinStatus is the specification's PinStatus object.
type pinStatus struct {
	RequestID string            `json:"requestid"`
	Status    status            `json:"status"`
	Created   time.Time         `json:"created"`
	Pin       pin               `json:"pin"`
	Delegates []string          `json:"delegates"`
	Info      map[string]string `json:"info,omitempty"`
}

// decodePin reads the body of a request. The error wraps errBad. Fields that are not
// known are passed over.
func decodePin(body io.Reader) (pin, cid.Cid, error) {
	var p pin
	d := json.NewDecoder(body)
	if err := d.Decode(&p); err != nil {
		return p, cid.Undef, fmt.Errorf("%w: %w", errBad, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("more than one JSON value")
		}
		return p, cid.Undef, fmt.Errorf("%w: %w", errBad, err)
	}
	c, err := p.check()
	if err != nil {
		return p, cid.Undef, fmt.Errorf("%w: %w", errBad, err)
	}
	p.CID = c.String()
	return p, c, nil
}

// check returns the CID of a pin that is as the specification wants it, and of a kind
// that can be kept.
func (p *pin) check() (cid.Cid, error) {
	c, err := cid.Decode(p.CID)
	if err != nil {
		return cid.Undef, fmt.Errorf("cid %.100q: %w", p.CID, err)
	}
	if err := dag.CheckCID(c); err != nil {
		return cid.Undef, err
	}
	if n := utf8.RuneCountInString(p.Name); n > maxName {
		return cid.Undef, fmt.Errorf("a name of %d characters, more than %d", n, maxName)
	}
	if n := len(p.Origins); n > maxOrigins {
		return cid.Undef, fmt.Errorf("%d origins, more than %d", n, maxOrigins)
	}
	size := 0
	for _, o := range p.Origins {
		if size += len(o); size > maxOriginBytes {
			return cid.Undef, fmt.Errorf("origins of more than %d bytes", maxOriginBytes)
		}
		if _, err := multiaddr.NewMultiaddr(o); err != nil {
			return cid.Undef, fmt.Errorf("origin %.100q: %w", o, err)
		}
	}
	if n := len(p.Meta); n > maxMeta {
		return cid.Undef, fmt.Errorf("%d values of meta, more than %d", n, maxMeta)
	}
	size = 0
	for key, value := range p.Meta {
		if size += len(key) + len(value); size > maxMetaBytes {
			return cid.Undef, fmt.Errorf("meta of more than %d bytes", maxMetaBytes)
		}
	}
	return c, nil
}

// peers are the origins that say who is there, as [node.Network.Dial] needs it.
func (p *pin) peers() []string {
	var out []string
	for _, o := range p.Origins {
		if strings.Contains(o, "/p2p/") {
			out = append(out, o)
		}
	}
	return out
}
