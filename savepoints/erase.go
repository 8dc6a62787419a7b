package savepoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"github.com/ipfs/go-cid"
)

// erasingKind has the documents whose bytes are to be removed, a CID a line, from before
// the log says so until it is done.
const erasingKind = "erasing"

// Erased says what an erasure did.
type Erased struct {
	// Documents are the CIDs of the documents, each once, rising bytewise.
	Documents []cid.Cid
	// Entries are the log entries that say so and were appended now.
	Entries []int64
	// Savepoints are the save points here that have one of the documents.
	Savepoints []cid.Cid
	// Blocks is how many IPFS blocks the documents consisted of that nothing else needs,
	// and that are gone now; Kept is how many others need, and are here still.
	Blocks, Kept int
	// KeptFor says who else in the repository needs some of these: the bytes are here as long
	// as one of them is.
	KeptFor []Keeper
}

// Keeper is something in a repository that needs bytes of an erased document, and that
// the erasing log has no say in.
type Keeper struct {
	CID    cid.Cid // a save point, or the root of what was pinned
	Origin string  // of the log that the save point is in; empty if it is an owner's pin
	Owner  string  // of the pin, as [node.PinInfo] has it
}

// Erase says in the log that documents of a save point of the bank's own are gone, and
// removes their bytes from the repository's files, sealed ones too. A document is the same
// in all save points that have the same bytes: it is gone from all of them. Directories
// and the nodes of large documents stay, and with them every CID and proof: of the document its CID, its
// name and its length. Raw IPFS blocks stay that another document uses, a log, or a
// DAG that reaches them otherwise than as this document. Nor do bytes go that a save point
// of another log needs, even of one that the own log took a policy over from, or the pin of
// another owner: the result names these. Others that have copies remove nothing because of it.
//
// The log comes first. A document that it names already is not named again: to erase once
// more finishes what a crash left, as opening the repository does, and removes what came
// back, by an import perhaps. Until it is said nothing is removed.
//
// The error wraps ErrUsage if the save point is of another log or a document is empty,
// entry.ErrFrozen if the log would have to say something and is frozen,
// dag.ErrNoDocument, or node.ErrDamaged: either before anything is done, since some directory cannot be read
// and so what it needs is not known; or at the end, if a part of a file cannot be read and
// may hold such bytes.
func (b *Bank) Erase(ctx context.Context, s Savepoint, paths ...string) (Erased, error) {
	if b.ledger != nil && s.Origin != b.Origin() {
		return Erased{}, fmt.Errorf("%w: save point %s is of log %s, which is not written here", ErrUsage, s.CID, s.Origin)
	}
	var out Erased
	err := b.write(ctx, func(l *ledger) (err error) {
		if out.Documents, err = b.documentsAt(ctx, s, paths); err != nil {
			return err
		}
		if l.history.Frozen() && len(l.unsaid(out.Documents)) > 0 {
			return fmt.Errorf("%w, so it cannot say that anything else is erased: nothing was removed", entry.ErrFrozen)
		}
		if err := b.beginKeeping(ctx); err != nil {
			return err
		}
		defer b.endKeeping()
		out, err = l.erase(ctx, out)
		return err
	})
	if err != nil {
		err = fmt.Errorf("erase from %s: %w", s.CID, err)
	}
	return out, err
}

// documentsAt returns the CIDs of documents, each once, sorted.
func (b *Bank) documentsAt(ctx context.Context, s Savepoint, paths []string) ([]cid.Cid, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("%w: no document is named", ErrUsage)
	}
	var documents []cid.Cid
	for _, path := range paths {
		doc, err := dag.Lookup(ctx, b.repo.Blocks, s.Manifest.State, path)
		if err != nil {
			return nil, err
		}
		if doc.Bytes == 0 {
			return nil, fmt.Errorf("%w: document %q is empty: there is nothing to erase", ErrUsage, path)
		}
		documents = append(documents, doc.Link.CID)
	}
	return sortCIDs(documents), nil
}

// sortCIDs sorts bytewise, as entries want it, and leaves out what is there twice.
func sortCIDs(cids []cid.Cid) []cid.Cid {
	slices.SortFunc(cids, func(x, y cid.Cid) int { return strings.Compare(x.KeyString(), y.KeyString()) })
	return slices.Compact(cids)
}

// erase says in the log what is not said there yet, and does it. The caller holds keeping.
func (l *ledger) erase(ctx context.Context, out Erased) (Erased, error) {
	uses, keepers, err := l.b.uses(ctx, out.Documents)
	if err != nil {
		return out, err
	}
	out.KeptFor = keepers
	if out.Savepoints, err = l.b.receiptsOf(ctx, uses.Roots); err != nil {
		return out, err
	}
	due, err := l.due()
	if err != nil {
		return out, err
	}
	if err := l.setDue(append(due, out.Documents...)); err != nil {
		return out, err
	}
	out.Entries, err = l.sayErased(ctx, out.Documents)
	if err != nil {
		return out, err
	}
	out.Blocks, out.Kept = len(uses.Sole), uses.Shared
	return out, l.eraseDue(ctx)
}

// unsaid returns the documents that the log does not name as erased yet.
func (l *ledger) unsaid(documents []cid.Cid) []cid.Cid {
	return slices.DeleteFunc(slices.Clone(documents), func(c cid.Cid) bool {
		_, said := l.history.Erased(c)
		return said
	})
}

// sayErased appends what the log does not say yet, in as few entries as it takes.
func (l *ledger) sayErased(ctx context.Context, documents []cid.Cid) (indexes []int64, err error) {
	// Until the heads are stored, nothing else keeps their tiles from being collected.
	defer l.b.repo.Blocks.Hold().Release()
	unsaid := l.unsaid(documents)
	for len(unsaid) > 0 {
		e := &entry.Erase{Common: l.common(), Documents: unsaid[:1]}
		record, err := entry.Encode(e)
		if err != nil {
			return indexes, err
		}
		// A CID takes two bytes more than its own, and the head of a longer list two.
		room := (entry.MaxSize - len(record) - 2) / (e.Documents[0].ByteLen() + 2)
		n := min(len(unsaid), 1+max(0, room))
		e.Documents, unsaid = unsaid[:n], unsaid[n:]
		index, _, err := l.append(ctx, e)
		if err != nil {
			return indexes, err
		}
		indexes = append(indexes, index)
	}
	// What is said must be known to who reads, whatever becomes of ctx.
	return indexes, l.finish(context.WithoutCancel(ctx), nil)
}

// due returns the documents that are to be erased, or are being so.
func (l *ledger) due() ([]cid.Cid, error) {
	data, err := l.b.repo.Record(erasingKind, LogID(l.b.own.Origin))
	if err != nil {
		return nil, err
	}
	var out []cid.Cid
	for line := range strings.Lines(string(data)) {
		c, err := cid.Decode(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("%w: what is to be erased: %w", ErrDamaged, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func (l *ledger) setDue(documents []cid.Cid) error {
	key := LogID(l.b.own.Origin)
	if len(documents) == 0 {
		return l.b.repo.DeleteRecord(erasingKind, key)
	}
	var text strings.Builder
	for _, c := range sortCIDs(documents) {
		fmt.Fprintln(&text, c)
	}
	return l.b.repo.PutRecord(erasingKind, key, []byte(text.String()))
}

// eraseDue removes what is due and the log says; what a crash kept from being said is
// not due any more. The caller holds keeping.
func (l *ledger) eraseDue(ctx context.Context) error {
	documents, err := l.due()
	if err != nil || len(documents) == 0 {
		return err
	}
	documents = slices.DeleteFunc(documents, func(c cid.Cid) bool {
		_, said := l.history.Erased(c)
		return !said
	})
	uses, _, err := l.b.uses(ctx, documents)
	if err != nil {
		return err
	}
	if len(uses.Sole) > 0 {
		l.b.erasures.removals++
		if err := l.b.repo.Blocks.Erase(ctx, uses.Sole...); err != nil {
			return err
		}
	}
	return l.setDue(nil)
}

// refuseErased refuses a document that has come again. If it came just now its bytes are
// removed; if they were here they stay, as only Erase removes them.
func (l *ledger) refuseErased(ctx context.Context, document cid.Cid, came bool) error {
	index, erased := l.history.Erased(document)
	if !erased {
		return nil
	}
	refused := fmt.Errorf("%w, as log entry %d says: it cannot be saved again", ErrErased, index)
	if !came {
		return refused
	}
	due, err := l.due()
	if err == nil {
		err = l.setDue(append(due, document))
	}
	if err == nil {
		err = l.remove(ctx)
	}
	return errors.Join(refused, err)
}

// finishErasing removes what a crash left.
func (b *Bank) finishErasing(ctx context.Context) error {
	if b.ledger == nil {
		return nil
	}
	due, err := b.repo.Record(erasingKind, LogID(b.own.Origin))
	if err != nil || due == nil {
		return err
	}
	return b.write(ctx, func(l *ledger) error { return l.remove(ctx) })
}

// remove is eraseDue for who does not hold keeping.
func (l *ledger) remove(ctx context.Context) error {
	if err := l.b.beginKeeping(ctx); err != nil {
		return err
	}
	defer l.b.endKeeping()
	return l.eraseDue(ctx)
}

// resumeErasing removes what a crash left, when the bank is opened. Of what is absent
// already, but of whose bytes there may be rests in files that cannot be read, Erase and
// Collect take care: to rewrite files each time would be too much.
func (l *ledger) resumeErasing(ctx context.Context) error {
	documents, err := l.due()
	if err != nil || len(documents) == 0 {
		return err
	}
	uses, _, err := l.b.uses(ctx, documents)
	if err != nil {
		return err
	}
	for _, c := range uses.Sole {
		if here, err := l.b.repo.Blocks.Has(ctx, c); here || err != nil {
			return errors.Join(err, l.eraseDue(ctx))
		}
	}
	return nil
}

// uses finds out what else here needs the bytes of documents. They go from the save points
// of the bank's own log, and from pins of the repository that are no save point's; what
// other logs and owners keep is theirs.
func (b *Bank) uses(ctx context.Context, documents []cid.Cid) (dag.Uses, []Keeper, error) {
	own, keepers, err := b.holders()
	if err != nil {
		return dag.Uses{}, nil, err
	}
	kept, err := b.logRoots(ctx)
	if err != nil {
		return dag.Uses{}, nil, err
	}
	for _, k := range keepers {
		kept = append(kept, k.CID)
	}
	uses, err := dag.Sole(ctx, b.repo.Blocks, documents, own, sortCIDs(kept))
	if errors.Is(err, dag.ErrNotFound) || errors.Is(err, dag.ErrHash) {
		err = fmt.Errorf("%w: what it needs is not known, and nothing can be removed until it is whole again: %w", ErrDamaged, err)
	}
	keepers = slices.DeleteFunc(keepers, func(k Keeper) bool { return !slices.Contains(uses.Kept, k.CID) })
	return uses, keepers, err
}

// holders returns what is pinned here: for the bank's own log, and for others.
func (b *Bank) holders() (own []cid.Cid, keepers []Keeper, err error) {
	pins, err := b.repo.Pins()
	if err != nil {
		return nil, nil, err
	}
	logs, damaged, err := b.receiptLogs()
	for _, key := range damaged {
		if !strings.HasPrefix(key, LogID(b.Origin())[:16]) {
			err = fmt.Errorf("%w: receipt %s: what it keeps is not known", ErrDamaged, key)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	for _, p := range pins {
		if p.Owner != "" {
			keepers = append(keepers, Keeper{CID: p.CID, Owner: p.Owner})
			continue
		}
		origins := logs[p.CID]
		if len(origins) == 0 || slices.Contains(origins, b.Origin()) {
			own = append(own, p.CID)
		}
		for _, origin := range origins {
			if origin != b.Origin() {
				keepers = append(keepers, Keeper{CID: p.CID, Origin: origin})
			}
		}
	}
	return sortCIDs(own), keepers, nil
}

// receiptLogs returns the save points here, trusted or not, with the logs that each is in,
// and the keys of receipts that are damaged.
func (b *Bank) receiptLogs() (out map[cid.Cid][]string, damaged []string, err error) {
	keys, err := b.repo.Records(receiptKind)
	if err != nil {
		return nil, nil, err
	}
	out = map[cid.Cid][]string{}
	for _, key := range keys {
		e, err := b.readReceipt(key)
		if errors.Is(err, ErrDamaged) {
			damaged = append(damaged, key)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if !slices.Contains(out[e.Savepoint], e.Origin) {
			out[e.Savepoint] = append(out[e.Savepoint], e.Origin)
		}
	}
	return out, damaged, nil
}

// receiptsOf returns those of some roots that are save points here.
func (b *Bank) receiptsOf(ctx context.Context, roots []cid.Cid) ([]cid.Cid, error) {
	held := map[cid.Cid]bool{}
	err := b.receipts(ctx, func(s Savepoint, err error) (bool, error) {
		if err == nil {
			held[s.CID] = true
		}
		return true, nil
	})
	return slices.DeleteFunc(roots, func(c cid.Cid) bool { return !held[c] }), err
}
