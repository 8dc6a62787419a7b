package hcs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

const (
	protocol       = "ipfs-savepoint"
	messageVersion = 1
)

// headMessage is a head on a topic: JSON in exactly the form that encode gives it.
type headMessage struct {
	Protocol   string `json:"p"`
	Version    int    `json:"v"`
	Checkpoint string `json:"cp"`
	Root       string `json:"root"`
}

func (m headMessage) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// EncodeHead returns the topic message that publishes h, whose Root must be defined.
// The error wraps ErrSize if it is longer than [MaxMessageSize], which is room for the
// log's signature and a few cosignatures. It does not verify the checkpoint.
func EncodeHead(h anchor.Head) ([]byte, error) {
	if !h.Root.Defined() {
		return nil, errors.New("head has no log root CID")
	}
	b, err := headMessage{protocol, messageVersion, string(h.Checkpoint), h.Root.String()}.encode()
	if err != nil {
		return nil, fmt.Errorf("topic message of a head: %w", err)
	}
	if len(b) > MaxMessageSize {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrSize, len(b), MaxMessageSize)
	}
	checkpoint, root, err := DecodeHead(b)
	if err == nil && (!bytes.Equal(checkpoint, h.Checkpoint) || root != h.Root) {
		err = errors.New("its checkpoint is not text")
	}
	if err != nil {
		return nil, fmt.Errorf("topic message of a head cannot be read: %w", err)
	}
	return b, nil
}

// DecodeHead reads a topic message that EncodeHead made. The error wraps ErrForeign.
//
// Neither result is verified. The checkpoint is checked with anchor.VerifyCheckpoint.
// The root is where the submitter says that the tiles are: nobody signed that it belongs
// to this checkpoint, so what is read there is checked as from any other place.
func DecodeHead(data []byte) (checkpoint []byte, root cid.Cid, err error) {
	fail := func(err error) ([]byte, cid.Cid, error) {
		return nil, cid.Undef, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if len(data) > MaxMessageSize {
		return fail(fmt.Errorf("%d bytes, more than %d", len(data), MaxMessageSize))
	}
	var m headMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return fail(err)
	}
	if m.Protocol != protocol || m.Version != messageVersion {
		return fail(fmt.Errorf("protocol %q, version %d", m.Protocol, m.Version))
	}
	// What a lenient decoder drops or repairs shows as a difference here.
	if again, err := m.encode(); err != nil || !bytes.Equal(again, data) {
		return fail(errors.New("not in its one encoding"))
	}
	if root, err = cid.Decode(m.Root); err != nil {
		return fail(err)
	}
	if err := dag.CheckCID(root); err != nil {
		return fail(err)
	}
	if root.String() != m.Root {
		return fail(fmt.Errorf("root %q is not in its one encoding", m.Root))
	}
	return []byte(m.Checkpoint), root, nil
}
