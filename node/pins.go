package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/ipfs/go-cid"
)

const pinKind = "pins"

// ownerMark is between CID and owner in the name of a pin's record. It is in no CID.
const ownerMark = "@"

// PinInfo is a pin: a DAG that is wanted, for whom, and what for.
type PinInfo struct {
	CID cid.Cid
	// Owner is empty for the repository itself. A DAG is kept as long as one owner
	// has it pinned.
	Owner string
	Name  string
}

// Pin syncs the IPFS blocks put so far and then durably marks the whole DAG at c
// as wanted. It does not walk the DAG: whether it is complete is for the caller
// to know.
func (r *Repo) Pin(ctx context.Context, c cid.Cid, name string) error {
	return r.PinFor(ctx, "", c, name)
}

// Unpin removes the pin of c, if there is one. Those of other owners stay.
func (r *Repo) Unpin(c cid.Cid) error { return r.UnpinFor("", c) }

// PinFor is Pin for another owner, named by lower-case letters, who has one pin of a
// DAG beside those of others.
func (r *Repo) PinFor(ctx context.Context, owner string, c cid.Cid, name string) error {
	if err := r.Blocks.Sync(ctx); err != nil {
		return fmt.Errorf("pin %s: %w", c, err)
	}
	return r.PutRecord(pinKind, pinKey(owner, c), []byte(name))
}

// UnpinFor removes the owner's pin of c, if there is one.
func (r *Repo) UnpinFor(owner string, c cid.Cid) error {
	return r.DeleteRecord(pinKind, pinKey(owner, c))
}

func pinKey(owner string, c cid.Cid) string {
	if owner == "" {
		return c.String()
	}
	return c.String() + ownerMark + owner
}

// Pins returns the pins of all owners, sorted by CID, in a time that depends on their
// number alone.
func (r *Repo) Pins() ([]PinInfo, error) {
	keys, err := r.Records(pinKind)
	if err != nil {
		return nil, err
	}
	pins := make([]PinInfo, 0, len(keys))
	for _, key := range keys {
		text, owner, _ := strings.Cut(key, ownerMark)
		c, err := cid.Decode(text)
		if err != nil {
			return nil, fmt.Errorf("pin %q: %w", key, err)
		}
		name, err := r.Record(pinKind, key)
		if err != nil {
			return nil, err
		}
		if name != nil { // else it was removed meanwhile
			pins = append(pins, PinInfo{c, owner, string(name)})
		}
	}
	return pins, nil
}

// Pinned reports whether the repository itself has a pin of the DAG at c.
func (r *Repo) Pinned(c cid.Cid) (bool, error) {
	_, err := os.Stat(r.records.path(pinKind, pinKey("", c)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
