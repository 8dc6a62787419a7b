package node

import (
	"context"
	"fmt"
	"io"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// NewNameKey returns a new Ed25519 key of an IPNS name, in libp2p's own encoding: that
// of "ipfs key export --format=libp2p-protobuf-cleartext". It is secret.
func NewNameKey() ([]byte, error) { return newIdentity() }

// NameOf returns the name of a key that NewNameKey made. Errors do not repeat the key.
func NameOf(key []byte) (string, error) {
	_, name, err := nameKey(key)
	return name.String(), err
}

func nameKey(key []byte) (crypto.PrivKey, ipns.Name, error) {
	sk, err := crypto.UnmarshalPrivateKey(key)
	if err != nil {
		return nil, ipns.Name{}, fmt.Errorf("%w: malformed key of an IPNS name", ErrName)
	}
	id, err := peer.IDFromPrivateKey(sk)
	if err != nil {
		return nil, ipns.Name{}, fmt.Errorf("%w: key of an IPNS name: %w", ErrName, err)
	}
	return sk, ipns.NameFromPeer(id), nil
}

// SignName makes the record of a key's name with the value, sequence, end of validity
// and TTL of n, and returns n with the name and the record. [Repo.PutName] keeps it.
func SignName(key []byte, n Name) (Name, error) {
	sk, id, err := nameKey(key)
	if err != nil {
		return Name{}, err
	}
	value, err := path.NewPath(n.Value)
	if err != nil {
		return Name{}, fmt.Errorf("%w: value of %s: %w", ErrName, id, err)
	}
	rec, err := ipns.NewRecord(sk, value, n.Sequence, n.Expires, n.TTL)
	if err == nil {
		n.Record, err = ipns.MarshalRecord(rec)
	}
	if err != nil {
		return Name{}, fmt.Errorf("record of %s: %w", id, err)
	}
	n.Name = id.String()
	return n, nil
}

// OpenName verifies the record of a name that somebody gave. The error wraps ErrName.
func OpenName(name string, record []byte) (Name, error) {
	id, err := parseName(name)
	if err != nil {
		return Name{}, err
	}
	rec, err := ipns.UnmarshalRecord(record)
	if err == nil {
		err = ipns.ValidateWithName(rec, id)
	}
	if err != nil {
		return Name{}, fmt.Errorf("%w: %s: %w", ErrName, name, err)
	}
	return newName(id, rec, record)
}

// Root returns the CID that the name stands for, if its value is /ipfs/<CID>.
func (n Name) Root() (cid.Cid, error) {
	p, err := path.NewPath(n.Value)
	if err != nil || p.Namespace() != path.IPFSNamespace || len(p.Segments()) != 2 {
		return cid.Undef, fmt.Errorf("%w: %s stands for %q, which is not /ipfs/<CID>", ErrName, n.Name, n.Value)
	}
	fixed, err := path.NewImmutablePath(p)
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %s: %w", ErrName, n.Name, err)
	}
	return fixed.RootCid(), nil
}

// ReadName asks for the record of an IPNS name (trustless gateway specification) and
// verifies it: that the key's owner signed it, not that there is none newer.
func (r *Remote) ReadName(ctx context.Context, name string) (Name, error) {
	rc, err := r.get(ctx, "/ipns/"+name+"?format=ipns-record", "application/vnd.ipfs.ipns-record")
	if err != nil {
		return Name{}, err
	}
	defer rc.Close()
	record, err := io.ReadAll(io.LimitReader(rc, int64(ipns.MaxRecordSize)+1))
	if err != nil {
		return Name{}, fmt.Errorf("%w: %s: %w", ErrUnreachable, r.Name, err)
	}
	return OpenName(name, record)
}

// LogAt returns the tlog-tiles prefix under a log root CID, which never changes.
func (r *Remote) LogAt(root cid.Cid) *LogPrefix { return &LogPrefix{r, "/ipfs/" + root.String() + "/"} }
