package savepoints

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs/go-cid"
)

// Ref says which save point is meant: by its CID, or within a policy by its
// sequence, as the latest, or as the latest at a save-state block.
type Ref struct {
	CID      cid.Cid
	Policy   string
	Sequence uint64 // 0: the latest
	Block    string // not empty: only those taken at this save-state block
}

// CheckID reports whether id can name a policy or a save-state block: it has the
// form of an id (dag.IsID) and is not a CID. The error wraps ErrUsage.
func CheckID(what, id string) error {
	if !dag.IsID(id) {
		return fmt.Errorf("%w: %s %q is not 1 to %d of A-Z a-z 0-9 . _ - or %%XX", ErrUsage, what, id, dag.MaxIDLen)
	}
	if _, err := cid.Decode(id); err == nil {
		return fmt.Errorf("%w: %s %q is a CID", ErrUsage, what, id)
	}
	return nil
}

// ParseRef reads a CID, POLICY@N, POLICY@latest or POLICY:BLOCKTAG. The error
// wraps ErrUsage.
func ParseRef(s string) (Ref, error) {
	if c, err := cid.Decode(s); err == nil {
		return Ref{CID: c}, nil
	}
	if policy, at, ok := strings.Cut(s, "@"); ok {
		if err := CheckID("policy", policy); err != nil {
			return Ref{}, err
		}
		if at == "latest" {
			return Ref{Policy: policy}, nil
		}
		n, err := strconv.ParseUint(at, 10, 63)
		if err != nil || n == 0 {
			return Ref{}, fmt.Errorf("%w: %q is neither a sequence nor \"latest\"", ErrUsage, at)
		}
		return Ref{Policy: policy, Sequence: n}, nil
	}
	if policy, tag, ok := strings.Cut(s, ":"); ok {
		if err := CheckID("policy", policy); err != nil {
			return Ref{}, err
		}
		if err := CheckID("block", tag); err != nil {
			return Ref{}, err
		}
		return Ref{Policy: policy, Block: tag}, nil
	}
	return Ref{}, fmt.Errorf("%w: %q is neither a CID nor POLICY@N, POLICY@latest, POLICY:BLOCKTAG", ErrUsage, s)
}

func (r Ref) String() string {
	switch {
	case r.CID.Defined():
		return r.CID.String()
	case r.Block != "":
		return r.Policy + ":" + r.Block
	case r.Sequence > 0:
		return fmt.Sprintf("%s@%d", r.Policy, r.Sequence)
	}
	return r.Policy + "@latest"
}
