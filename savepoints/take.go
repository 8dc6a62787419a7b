package savepoints

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/node/segments"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// Document is one document of the state to be saved.
type Document struct {
	Path string
	// Open returns the document's bytes. It is called once.
	Open func() (io.ReadCloser, error)
}

// Source gives the documents of a state.
type Source interface {
	// Documents returns every document once, in any order.
	Documents(ctx context.Context) iter.Seq2[Document, error]
	// Consistency says, after all documents were read, how they were made to
	// belong to one moment.
	Consistency(ctx context.Context) (dag.Consistency, error)
}

// TakeOptions describes a save point to be taken.
type TakeOptions struct {
	Policy string // the policy's id; see CheckID
	// Blocks are the tags of the save-state blocks that execution passed. With
	// none the save point is a manual one.
	Blocks []string
	// Height counts the executed policy blocks; nil if the engine has no count.
	Height *uint64
	// Provider names what reads the state; "folder" if empty.
	Provider string
	Version  string // of this program, for the manifest
	// Witnessed is how long Take waits for the witnesses once the save point is on
	// disk; 0 is not at all. See [Bank.Publish].
	Witnessed time.Duration
	// Progress, if not nil, is called as documents are written.
	Progress func(documents, bytes uint64)
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Taken is a save point and what it cost.
type Taken struct {
	Savepoint
	Changed   uint64 // documents added, replaced or removed since the parent
	NewBlocks uint64 // IPFS blocks that were not there
	NewBytes  uint64
	Existing  bool // the save point had been taken before
	// Witnessed: the quorum of witnesses that the log's trust policy demands has
	// cosigned a head that holds the save point. Without a quorum it never is.
	Witnessed bool
}

// maxBlocks is how many save-state blocks one save point may be of.
const maxBlocks = 64

const pendingKind = "pending"

func pendingKey(k entry.PolicyKey) string { return hex.EncodeToString(k[:]) }

// Take saves the state that source gives as the next save point of a policy and
// anchors it in the bank's log. When it returns, documents, manifest, pin and
// signed log head are on disk. A take at the same height with the same state
// returns the save point that is there; with another state, or at a lower
// height, the error wraps ErrConflict. Nothing is written if a name cannot be
// used or two collide (dag.ErrName, dag.ErrNameCollision). A document that the log says is
// erased is refused, with an error that wraps ErrErased; its bytes, if the take
// brought them, are removed again.
//
// An error that wraps anchor.ErrNoQuorum comes with the save point, which was taken:
// it was to be witnessed (see [TakeOptions]), and is not yet.
func (b *Bank) Take(ctx context.Context, source Source, o TakeOptions) (Taken, error) {
	if o.Witnessed > 0 && b.own != nil && !b.own.Quorum {
		return Taken{}, fmt.Errorf("%w: the log's trust policy names no quorum of witnesses to wait for", ErrUsage)
	}
	t, err := b.take(ctx, source, o)
	if err == nil && o.Witnessed > 0 {
		err = b.publishWithin(ctx, t.LogIndex, o.Witnessed)
	}
	t.Witnessed = t.CID.Defined() && b.witnessed(t.LogIndex)
	return t, err
}

func (b *Bank) take(ctx context.Context, source Source, o TakeOptions) (Taken, error) {
	if b.ledger == nil {
		return Taken{}, fmt.Errorf("take: %w", b.noLog())
	}
	if err := o.check(); err != nil {
		return Taken{}, err
	}
	if f, ok := source.(*Folder); ok {
		if err := f.keepOut(b.repo.Dir()); err != nil {
			return Taken{}, err
		}
	}
	select {
	case b.taking <- struct{}{}:
		defer func() { <-b.taking }()
	case <-ctx.Done():
		return Taken{}, ctx.Err()
	}
	if err := b.ledger.ready(ctx); err != nil {
		return Taken{}, fmt.Errorf("take: %w", err)
	}
	// Until the pin, nothing else keeps what is put from being collected.
	defer b.repo.Blocks.Hold().Release()
	t := &take{b: b, o: o, sink: &countingSink{store: b.repo.Blocks}}
	if err := t.place(ctx); err != nil {
		return Taken{}, fmt.Errorf("take: %w", err)
	}
	return t.run(ctx, source)
}

func (o *TakeOptions) check() error {
	if err := CheckID("policy", o.Policy); err != nil {
		return err
	}
	o.Blocks = slices.Compact(slices.Sorted(slices.Values(o.Blocks)))
	if len(o.Blocks) > maxBlocks {
		return fmt.Errorf("%w: %d blocks, more than %d", ErrUsage, len(o.Blocks), maxBlocks)
	}
	for _, tag := range o.Blocks {
		if err := CheckID("block", tag); err != nil {
			return err
		}
	}
	if o.Provider == "" {
		o.Provider = "folder"
	}
	if !utf8.ValidString(o.Provider) || len(o.Provider) > dag.MaxIDLen {
		return fmt.Errorf("%w: provider %.40q is not UTF-8 of at most %d bytes", ErrUsage, o.Provider, dag.MaxIDLen)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// take is one take in progress.
type take struct {
	b      *Bank
	o      TakeOptions
	key    entry.PolicyKey
	epoch  uint64
	parent *Savepoint // without manifest
	sink   *countingSink
}

// place finds the policy's place in the log: what comes next follows parent.
func (t *take) place(ctx context.Context) error {
	h, told := t.b.ledger.history, false
	if t.key, told = t.b.naming(t.b.own.Origin).Key(t.b.instance, t.o.Policy); !told {
		return fmt.Errorf("%w: %s", ErrNoPolicyKey, policyKeyFile)
	}
	t.epoch, _ = h.EpochOf(t.key)
	if last := h.Last(t.key); last != nil {
		s, err := t.b.ledger.savepoint(last)
		t.parent = &s
		return err
	}
	if from := h.TakenFrom(t.key); from != nil {
		var err error
		t.parent, err = t.b.newestHeld(ctx, from.Origin, t.o.Policy)
		return err
	}
	return nil
}

func (t *take) run(ctx context.Context, source Source) (Taken, error) {
	if err := t.checkHeight(); err != nil {
		return Taken{}, err
	}
	if err := t.checkFrozen(); err != nil {
		return Taken{}, err
	}
	root, totals, err := t.writeState(ctx, source)
	if err != nil {
		return Taken{}, err
	}
	if existing, err := t.existing(ctx, root.CID); existing != nil || err != nil {
		if err != nil {
			return Taken{}, err
		}
		return Taken{Savepoint: *existing, Existing: true}, nil
	}
	changed, err := t.changed(ctx, root.CID, totals)
	if err != nil {
		return Taken{}, err
	}
	consistency, err := source.Consistency(ctx)
	if err != nil {
		return Taken{}, err
	}
	block, err := t.manifest(ctx, dag.Manifest{
		Version: dag.ManifestVersion, Profile: dag.Profile, Instance: t.b.instance,
		Policy: dag.Policy{ID: t.o.Policy}, Triggers: t.triggers(), Height: t.o.Height,
		State: root.CID, Totals: totals, Consistency: consistency,
		Provider: dag.Provider{Name: t.o.Provider, Plugins: []string{}},
		Tool:     dag.Tool{Name: "ipfs-savepoint", Version: t.o.Version},
	})
	if err != nil {
		return Taken{}, err
	}
	s, err := t.anchor(ctx, block)
	return Taken{Savepoint: s, Changed: changed, NewBlocks: t.sink.blocks, NewBytes: t.sink.bytes}, err
}

// checkHeight refuses a height that the policy has passed, before anything is read.
func (t *take) checkHeight() error {
	high := t.b.ledger.history.High(t.key)
	if t.o.Height == nil || high == nil {
		return nil
	}
	if last := *high.Entry.Height; *t.o.Height < last {
		return fmt.Errorf("%w: height %d, but policy %s was saved at height %d (%s)", ErrConflict, *t.o.Height, t.o.Policy, last, high.Entry.Savepoint)
	}
	return nil
}

// checkFrozen refuses what no entry could follow, before anything is read. What was saved
// at that height can still be found.
func (t *take) checkFrozen() error {
	high := t.b.ledger.history.High(t.key)
	again := t.o.Height != nil && high != nil && *high.Entry.Height == *t.o.Height
	if t.b.ledger.history.Frozen() && !again {
		return fmt.Errorf("take: %w", frozenError{t.b.Origin()})
	}
	return nil
}

// existing returns the save point that was taken at this height of this state.
func (t *take) existing(ctx context.Context, state cid.Cid) (*Savepoint, error) {
	high := t.b.ledger.history.High(t.key)
	if t.o.Height == nil || high == nil || *high.Entry.Height != *t.o.Height {
		return nil, nil
	}
	if _, retired := t.b.ledger.history.Retired(t.key, high.Entry.Sequence); retired {
		return nil, fmt.Errorf("%w: policy %s was saved at height %d, and that save point was retired (%s)",
			ErrConflict, t.o.Policy, *t.o.Height, high.Entry.Savepoint)
	}
	s, err := t.b.ledger.savepoint(high)
	if err != nil {
		return nil, err
	}
	if s, err = t.b.withManifest(ctx, s); err != nil {
		return nil, err
	}
	if s.Manifest.State != state {
		return nil, fmt.Errorf("%w: policy %s was saved at height %d with state %s, now it has %s",
			ErrConflict, t.o.Policy, *t.o.Height, s.Manifest.State, state)
	}
	return &s, nil
}

// writeState puts the documents and the directories. All names are checked
// before the first document is read.
func (t *take) writeState(ctx context.Context, source Source) (dag.Link, dag.Totals, error) {
	var docs []Document
	for doc, err := range source.Documents(ctx) {
		if err != nil {
			return dag.Link{}, dag.Totals{}, err
		}
		docs = append(docs, doc)
	}
	// Sorted paths keep the documents of each directory together.
	slices.SortFunc(docs, func(a, b Document) int { return cmp.Compare(a.Path, b.Path) })
	if err := dag.CheckPaths(paths(docs)); err != nil {
		return dag.Link{}, dag.Totals{}, err
	}
	state := dag.NewBuilder(t.sink)
	var totals dag.Totals
	for _, doc := range docs {
		link, n, err := t.writeDocument(ctx, doc)
		if err != nil {
			return dag.Link{}, totals, fmt.Errorf("document %q: %w", doc.Path, err)
		}
		if err := state.Add(ctx, doc.Path, link); err != nil {
			return dag.Link{}, totals, err
		}
		totals.Documents++
		totals.Bytes += n
		if t.o.Progress != nil {
			t.o.Progress(totals.Documents, totals.Bytes)
		}
	}
	root, err := state.Finish(ctx)
	return root, totals, err
}

func paths(docs []Document) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, doc := range docs {
			if !yield(doc.Path) {
				return
			}
		}
	}
}

func (t *take) writeDocument(ctx context.Context, doc Document) (dag.Link, uint64, error) {
	if err := ctx.Err(); err != nil {
		return dag.Link{}, 0, err
	}
	r, err := doc.Open()
	if err != nil {
		return dag.Link{}, 0, err
	}
	before := t.sink.blocks
	link, n, err := dag.WriteDocument(ctx, t.sink, r)
	if err = errors.Join(err, r.Close()); err == nil {
		err = t.b.ledger.refuseErased(ctx, link.CID, t.sink.blocks > before)
	}
	return link, n, err
}

// changed counts the documents that differ from the parent's. If the parent cannot
// be read all count as changed: it is no part of this save point.
func (t *take) changed(ctx context.Context, state cid.Cid, totals dag.Totals) (uint64, error) {
	if t.parent == nil {
		return totals.Documents, nil
	}
	changes := uint64(0)
	parent, err := t.b.withManifest(ctx, *t.parent)
	if err == nil {
		for _, diffErr := range dag.Diff(ctx, t.b.repo.Blocks, parent.Manifest.State, state) {
			if err = diffErr; err != nil {
				break
			}
			changes++
		}
	}
	if err != nil {
		return totals.Documents, ctx.Err()
	}
	return changes, nil
}

func (t *take) triggers() []dag.Trigger {
	if len(t.o.Blocks) == 0 {
		return []dag.Trigger{{Kind: dag.TriggerManual}}
	}
	var out []dag.Trigger
	for _, tag := range t.o.Blocks {
		out = append(out, dag.Trigger{Kind: dag.TriggerBlock, Tag: tag})
	}
	return out
}

// manifest completes the manifest with its place in the history and puts it. One
// that a crash left pending is used again if it says the same and the log has
// nothing newer, so that the save point keeps the CID that somebody may have seen;
// else its pin is removed, unless the note is an old one and the log has it.
func (t *take) manifest(ctx context.Context, m dag.Manifest) (dag.Block, error) {
	m.Epoch, m.Sequence = t.epoch, 1
	m.Time = t.b.ledger.now(t.o.Now)
	if t.parent != nil {
		m.Sequence = t.parent.Entry.Sequence + 1
		m.Parent = &dag.Parent{Savepoint: t.parent.CID, Sequence: t.parent.Entry.Sequence}
	}
	old, c, err := t.pending(ctx)
	if err != nil {
		return dag.Block{}, err
	}
	if old != nil {
		again := m
		again.Time = old.Time
		block, err := again.Block()
		if err != nil || block.CID == c && !old.Time.Before(t.b.ledger.history.Time()) {
			return block, err
		}
	}
	if c.Defined() && !t.b.ledger.history.Keeps(t.key, c) {
		if err := t.b.repo.Unpin(c); err != nil {
			return dag.Block{}, err
		}
	}
	block, err := m.Block()
	if err != nil {
		return dag.Block{}, err
	}
	return block, t.sink.Put(ctx, block)
}

// pending returns the manifest of this policy that was pinned and, as far as the
// log knows, not anchored.
func (t *take) pending(ctx context.Context) (*dag.Manifest, cid.Cid, error) {
	data, err := t.b.repo.Record(pendingKind, pendingKey(t.key))
	if err != nil || data == nil {
		return nil, cid.Undef, err
	}
	c, err := cid.Decode(string(data))
	if err != nil {
		return nil, cid.Undef, fmt.Errorf("pending save point: %w", err)
	}
	if t.parent != nil && t.parent.CID == c {
		return nil, cid.Undef, nil // anchored, and the note of it left behind
	}
	m, err := dag.ReadManifest(ctx, t.b.repo.Blocks, c)
	if errors.Is(err, dag.ErrNotFound) || errors.Is(err, dag.ErrHash) {
		return nil, c, nil // noted, and lost before it was synced, or damaged
	}
	return m, c, err
}

// anchor pins the manifest, appends its entry to the log and writes the receipt.
func (t *take) anchor(ctx context.Context, manifest dag.Block) (Savepoint, error) {
	m, err := dag.DecodeManifest(manifest.Data)
	if err != nil {
		return Savepoint{}, err
	}
	if err := t.b.repo.PutRecord(pendingKind, pendingKey(t.key), []byte(manifest.CID.String())); err != nil {
		return Savepoint{}, err
	}
	if err := t.b.repo.Pin(ctx, manifest.CID, t.o.Policy); err != nil {
		return Savepoint{}, err
	}
	e := entry.Of(t.b.own.Origin, m, manifest.CID, t.b.naming(t.b.own.Origin))
	index, record, err := t.b.ledger.append(ctx, &e)
	if err != nil {
		return Savepoint{}, fmt.Errorf("anchor %s: %w", manifest.CID, err)
	}
	// The save point is anchored from here on, whatever happens to the receipt.
	ctx = context.WithoutCancel(ctx)
	v, err := t.b.view(ctx, t.b.own)
	if err != nil {
		return Savepoint{}, err
	}
	s, err := t.b.ledger.receipt(ctx, v, index, record)
	if err == nil {
		t.b.ledger.done = index + 1
	}
	return s, err
}

// countingSink counts the IPFS blocks that the store did not hold. One that it
// holds is read: a save point must not rely on bytes that have rotted. A damaged
// one is put again.
type countingSink struct {
	store         *segments.Store
	blocks, bytes uint64
}

func (s *countingSink) Put(ctx context.Context, blocks ...dag.Block) error {
	return s.store.Heal(ctx, func(b dag.Block) {
		s.blocks++
		s.bytes += uint64(len(b.Data))
	}, blocks...)
}
