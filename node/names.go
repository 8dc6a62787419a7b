package node

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/path"
)

var (
	// ErrName: bytes are not a valid IPNS record of the name.
	ErrName = errors.New("not a valid IPNS record")
	// ErrOlderName: the repository holds a newer record of the name.
	ErrOlderName = errors.New("a newer IPNS record is held")
	// ErrNoName: the repository holds no record of the name that is still valid.
	ErrNoName = errors.New("no valid IPNS record is held")
)

const (
	nameKind = "names"
	// maxName is the longest name in base36 that is kept, as the name of a file. The
	// usual ones, hashes of 32 bytes, have 62 characters.
	maxName = 200
	// maxNameHops is how many names that point to names are followed.
	maxNameHops = 4
)

// Name is an IPNS record (specs.ipfs.tech/ipns/ipns-record): what a name means,
// signed by the key that the name is the hash of.
type Name struct {
	// Name is the key's CID in base36, k51... for an Ed25519 key.
	Name string
	// Value is the path that it stands for.
	Value string
	// Sequence rises with each record that the key's owner makes for a new value.
	Sequence uint64
	// Expires is when the record is no longer valid.
	Expires time.Time
	// TTL is how long it may be used without a look for a newer one; 0 if the
	// record does not say.
	TTL time.Duration
	// Record is the record as it was signed, at most 10 KiB.
	Record []byte
}

// PutName durably keeps the record of a name, whoever's it is: who holds a record may
// serve it. It must be valid now, and be newer than the one held: a higher sequence,
// then a later end of validity. The error wraps ErrName or ErrOlderName; the record
// that is held already is no error.
func (r *Repo) PutName(name string, record []byte) error {
	id, err := parseName(name)
	if err != nil {
		return err
	}
	rec, err := ipns.UnmarshalRecord(record)
	if err == nil {
		err = ipns.ValidateWithName(rec, id)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrName, name, err)
	}
	r.records.mu.Lock()
	defer r.records.mu.Unlock()
	held, err := r.Record(nameKind, id.String())
	if err != nil || bytes.Equal(held, record) {
		return err
	}
	if held != nil {
		// One that has expired counts too: a name does not go back.
		best, err := ipns.Validator{}.Select("", [][]byte{held, record})
		if err == nil && best == 0 {
			return fmt.Errorf("%w: %s", ErrOlderName, name)
		}
	}
	return r.PutRecord(nameKind, id.String(), record)
}

// Name returns the record of a name, which may be written as any CID or peer id. It
// is checked again. The error wraps ErrNoName if there is none that is valid now.
func (r *Repo) Name(name string) (Name, error) {
	n, err := r.HeldName(name)
	if err == nil && time.Now().After(n.Expires) {
		err = fmt.Errorf("%s: %w", name, ipns.ErrExpiredRecord)
	}
	if errors.Is(err, ErrName) || errors.Is(err, ipns.ErrExpiredRecord) {
		err = fmt.Errorf("%w: %w", ErrNoName, err)
	}
	if err != nil {
		return Name{}, err
	}
	return n, nil
}

// HeldName returns the record of a name as it is held, also if its time has passed: what it
// says, the owner of the name's key said once. Its signature is checked again. The error
// wraps ErrNoName if there is none, ErrName if what is held is none: it is damaged.
func (r *Repo) HeldName(name string) (Name, error) {
	id, err := parseName(name)
	if err != nil {
		return Name{}, fmt.Errorf("%w: %v", ErrNoName, err)
	}
	data, err := r.Record(nameKind, id.String())
	if err != nil {
		return Name{}, err
	}
	if data == nil {
		return Name{}, fmt.Errorf("%w: %s", ErrNoName, name)
	}
	rec, err := ipns.UnmarshalRecord(data)
	if err == nil {
		err = ipns.ValidateWithName(rec, id)
	}
	if err != nil && !errors.Is(err, ipns.ErrExpiredRecord) {
		return Name{}, fmt.Errorf("%w: %s: %w", ErrName, name, err)
	}
	return newName(id, rec, data)
}

func newName(id ipns.Name, rec *ipns.Record, data []byte) (Name, error) {
	n := Name{Name: id.String(), Record: data}
	var err error
	if n.Sequence, err = rec.Sequence(); err != nil {
		return n, fmt.Errorf("%w: %s: %w", ErrNoName, n.Name, err)
	}
	if n.Expires, err = rec.Validity(); err != nil {
		return n, fmt.Errorf("%w: %s: %w", ErrNoName, n.Name, err)
	}
	value, err := rec.Value()
	if err != nil {
		return n, fmt.Errorf("%w: %s: %w", ErrNoName, n.Name, err)
	}
	n.Value = value.String()
	if ttl, err := rec.TTL(); err == nil {
		n.TTL = ttl
	}
	return n, nil
}

// Names returns the names of which a record is held, valid or not, sorted.
func (r *Repo) Names() ([]string, error) { return r.Records(nameKind) }

func parseName(name string) (ipns.Name, error) {
	id, err := ipns.NameFromString(name)
	if err != nil {
		return id, fmt.Errorf("%w: %q is not the hash of a key: %w", ErrName, name, err)
	}
	if n := len(id.String()); n > maxName {
		return id, fmt.Errorf("%w: a name of %d characters", ErrName, n)
	}
	return id, nil
}

// resolveName follows names until a path that does not change, and says for how long
// that may be relied on. A name is never looked for elsewhere; a domain is none
// (no DNSLink).
func (r *Repo) resolveName(p path.Path) (path.ImmutablePath, time.Duration, error) {
	ttl := time.Duration(-1)
	for range maxNameHops {
		segments := p.Segments()
		n, err := r.Name(segments[1])
		if err != nil {
			return path.ImmutablePath{}, 0, err
		}
		if own := max(0, min(n.TTL, time.Until(n.Expires))); ttl < 0 || own < ttl {
			ttl = own
		}
		value, err := path.NewPath(n.Value)
		if err != nil {
			return path.ImmutablePath{}, 0, fmt.Errorf("%w: %s: %w", ErrNoName, n.Name, err)
		}
		if p, err = path.Join(value, segments[2:]...); err != nil {
			return path.ImmutablePath{}, 0, fmt.Errorf("%w: %s: %w", ErrNoName, n.Name, err)
		}
		if p.Namespace() != path.IPNSNamespace {
			fixed, err := path.NewImmutablePath(p)
			return fixed, ttl, err
		}
	}
	return path.ImmutablePath{}, 0, fmt.Errorf("%w: more than %d names one after the other", ErrNoName, maxNameHops)
}
