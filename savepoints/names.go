package savepoints

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs/go-cid"
)

const (
	// nameKeyFile holds the key of the IPNS name under which the log is found. It is
	// neither the log's nor the node's: who has it can lead readers astray, to what they
	// do not believe, and no more.
	nameKeyFile = "ipns.key"
	// nameScheme begins a URL of a trust policy that is an IPNS name.
	nameScheme = "ipns://"
	// nameLife is how long a record is valid: what nobody signs any more should be found
	// long after.
	nameLife = 365 * 24 * time.Hour
	// nameTTL is how long others may use a record without a look for a newer one.
	nameTTL = time.Minute
	// nameRefresh is the age at which a record is signed anew though nothing changed.
	nameRefresh = 24 * time.Hour
)

// nameSequence is the sequence number of a record for a head that is as old as age. It
// rises with the log, whichever host signs: nothing else has to be remembered.
func nameSequence(size int64, age time.Duration) uint64 {
	return uint64(size)<<16 | uint64(min(max(age/time.Minute, 0), 1<<16-1))
}

// nameSize is the size of the log of which a record speaks.
func nameSize(n node.Name) int64 { return int64(n.Sequence >> 16) }

// names returns the IPNS names of a policy's log.
func names(p *anchor.Policy) []string {
	var out []string
	for _, u := range p.URLs {
		if name, ok := strings.CutPrefix(u, nameScheme); ok {
			out = append(out, name)
		}
	}
	return out
}

// places returns where else a policy says that its log is read.
func places(p *anchor.Policy) []string {
	return slices.DeleteFunc(slices.Concat(p.URLs, p.Mirrors), func(u string) bool { return !isPlace(u) })
}

// NamesPlaces reports whether a trust policy says where its log is read, so that no
// other source need be given.
func NamesPlaces(p *anchor.Policy) bool { return len(places(p)) > 0 }

// publishName makes the IPNS name of the own log stand for its published head. Without
// a key for a name it does nothing.
func (b *Bank) publishName(ctx context.Context) error {
	key, err := b.repo.ReadFile(nameKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name, err := node.NameOf(key)
	if err != nil {
		return fmt.Errorf("%s: %w", nameKeyFile, err)
	}
	data, err := b.repo.Head(ctx, anchor.HeadName(b.own.Origin))
	if err != nil || data == nil {
		return err
	}
	head, err := anchor.ReadStored(data)
	if err != nil {
		return err
	}
	now := time.Now()
	held, heldErr := b.repo.HeldName(name)
	damaged := errors.Is(heldErr, node.ErrName)
	switch {
	case heldErr != nil && !damaged && !errors.Is(heldErr, node.ErrNoName):
		return heldErr
	case nameSize(held) > head.Size:
		return fmt.Errorf("name %s: %w", name, &anchor.RollbackError{
			Old: anchor.Head{Origin: b.own.Origin, Size: nameSize(held)}, New: anchor.Head{Origin: b.own.Origin, Size: head.Size},
		})
	}
	next := nextName(head, held, now)
	if held.Value == next.Value && held.Expires.Sub(now) > nameLife-nameRefresh {
		return nil
	}
	signed, err := node.SignName(key, next)
	if err == nil {
		err = b.repo.PutName(name, signed.Record)
	}
	if err == nil && damaged {
		err = fmt.Errorf("%w: it was signed anew: %w", ErrDamaged, heldErr)
	}
	return err
}

// nextName is what a name is to say of a head from now on, after what it said before, if
// anything. It comes after that for everybody who compares the two, also if the clock went
// back: by a higher sequence, or else by a later end of validity.
func nextName(head anchor.Stored, held node.Name, now time.Time) node.Name {
	next := node.Name{
		Value: "/ipfs/" + head.Root.String(), TTL: nameTTL,
		Sequence: max(nameSequence(head.Size, now.Sub(head.Signed)), held.Sequence), Expires: now.Add(nameLife),
	}
	if next.Sequence == held.Sequence && !next.Expires.After(held.Expires) {
		next.Expires = held.Expires.Add(1)
	}
	return next
}

// publishedSize is the size of the largest head of the own log that a record of its name
// speaks of, as far as the repository holds one, be it that its time has passed. Of one that
// is damaged VerifyLog tells.
func (b *Bank) publishedSize() int64 {
	size := int64(0)
	for _, name := range names(b.own) {
		if n, err := b.repo.HeldName(name); err == nil {
			size = max(size, nameSize(n))
		}
	}
	return size
}

// verifyNames reads the records of a log's names that are held.
func (b *Bank) verifyNames(p *anchor.Policy) error {
	var errs []error
	for _, name := range names(p) {
		if _, err := b.repo.HeldName(name); err != nil && !errors.Is(err, node.ErrNoName) {
			errs = append(errs, fmt.Errorf("IPNS record that is held: %w", err))
		}
	}
	return errors.Join(errs...)
}

// askMirrors looks for a head of the own log that is larger, or another history, at the
// places that its trust policy names and under its name there. Who does not answer says
// nothing.
func (b *Bank) askMirrors(ctx context.Context) error {
	list := places(b.own)
	if len(list) == 0 {
		return nil
	}
	sources, _ := b.dial(ctx, list, FetchOptions{})
	defer closeAll(sources)
	own, err := b.view(ctx, b.own)
	if err != nil {
		return err
	}
	shown, _ := b.heads(ctx, FetchOptions{Policy: b.own}, sources)
	for _, h := range shown {
		if h.view.Head().Size > own.Head().Size {
			if err := h.view.Extends(ctx, own.Head()); errors.Is(err, anchor.ErrFork) {
				return &sourceError{h.source.Name, err}
			}
			return rolledBack(own.Head(), h.view.Head())
		}
		if err := own.Extends(ctx, h.view.Head()); mustStop(err) {
			return &sourceError{h.source.Name, err}
		}
	}
	return nil
}

// rolledBack says that this repository's own log is behind what was published of it.
func rolledBack(own, published anchor.Head) error {
	return &sourceError{"this repository is an old copy", &anchor.RollbackError{Old: published, New: own}}
}

// keepNames keeps the records of a followed log's names that sources have shown, with what
// they stand for, so that the names can be resolved here when the sources are gone.
func (b *Bank) keepNames(ctx context.Context, sources []*source, p *anchor.Policy) error {
	var errs []error
	for _, s := range sources {
		for _, name := range names(p) {
			n, ok := s.names[name]
			if held, err := b.repo.Name(name); !ok || err == nil && held.Sequence >= n.Sequence && string(held.Record) == string(n.Record) {
				continue
			}
			if err := b.keepName(ctx, s, n, p); err != nil {
				errs = append(errs, fmt.Errorf("name %s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (b *Bank) keepName(ctx context.Context, s *source, n node.Name, p *anchor.Policy) error {
	root, err := n.Root()
	if err != nil {
		return nil
	}
	defer b.repo.Blocks.Hold().Release()
	// Only what is a log's directory of this policy is fetched, and nothing beside it.
	v, err := anchor.OpenView(ctx, s.LogAt(root), p)
	if err != nil {
		return err
	}
	h := v.Head()
	if err := anchor.CheckDirectory(ctx, directorySource{b, s.Remote}, root, h.Size, int(logLimit(h).Documents)); err != nil {
		return err
	}
	if err := b.repo.Fetch(ctx, []*node.Remote{s.Remote}, root, nil); err != nil {
		return err
	}
	if err := b.repo.PutName(n.Name, n.Record); err != nil && !errors.Is(err, node.ErrOlderName) {
		return err
	}
	return nil
}

// directorySource reads the nodes of a directory here, or else from a remote one, and
// keeps them.
type directorySource struct {
	b *Bank
	r *node.Remote
}

func (s directorySource) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	data, err := s.b.repo.Blocks.Get(ctx, c)
	if !errors.Is(err, dag.ErrNotFound) && !errors.Is(err, dag.ErrHash) {
		return data, err
	}
	if data, err = s.r.Block(ctx, c); err != nil {
		return nil, err
	}
	return data, s.b.repo.Blocks.Put(ctx, dag.Block{CID: c, Data: data})
}

// nameRoots returns what the names of known logs stand for, where all of it is here.
func (b *Bank) nameRoots(ctx context.Context) ([]cid.Cid, error) {
	var roots []cid.Cid
	for _, p := range b.Policies() {
		for _, name := range names(p) {
			n, err := b.repo.Name(name)
			if err != nil {
				continue
			}
			root, err := n.Root()
			if err != nil {
				continue
			}
			missing, err := dag.Missing(ctx, b.repo.Blocks, root)
			if err != nil && !errors.Is(err, dag.ErrHash) {
				return nil, err
			}
			if err == nil && len(missing) == 0 {
				roots = append(roots, root)
			}
		}
	}
	return roots, nil
}
