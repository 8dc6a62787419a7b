package savepoints

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// Records of a takeover that is to be finished.
const (
	// continuedKind has the size of the log at which this host began to write it.
	continuedKind = "continued"
	// takeoverKind has the takeover with which a new log is to begin.
	takeoverKind = "takeover"
)

// ContinueOptions says how a log is continued on another host than before.
type ContinueOptions struct {
	// Keys are those of the log; if zero, those that ImportKeys left in the
	// repository.
	Keys Keys
	// Sources are asked for the log, as at [FetchOptions]; archives have none. There
	// may be none if the repository has a copy of the log.
	Sources []string
	// Unwitnessed allows to continue a log whose trust policy has no quorum of
	// witnesses: if what was found is not the newest head, it forks. Nor does it then
	// matter that the head is older than the policy allows, or that a public ledger that
	// the policy names cannot be asked.
	Unwitnessed bool
	acceptStale bool // of NewLog, which does not write the log that is found
	// Report, if not nil, gets a line for a person now and then.
	Report func(format string, args ...any)
}

// Continue makes the repository in dir, which may be absent or a reader's, the one that
// writes a log. Before anything is signed, the newest head that the sources show is
// verified and a quorum of witnesses has to cosign it, that is to say that it has seen
// nothing newer: the host that wrote the log may not be dead. Then a takeover is
// appended for each policy of the log.
//
// The error wraps ErrLogExists if the repository has a log, anchor.ErrNoQuorum if
// the witnesses cannot be reached, ErrUnwitnessed if there are none and that was not
// allowed, anchor.ErrRollback or anchor.ErrFork with the evidence if they have seen
// another log than the sources show, or this repository has, and ErrKeys. Nothing has been
// signed then, and it can be tried again.
func Continue(ctx context.Context, dir string, o ContinueOptions) (*Bank, error) {
	b, err := OpenReader(ctx, dir)
	if err != nil {
		return nil, err
	}
	err = b.prepareToContinue(ctx, o)
	if err = errors.Join(err, b.Close()); err != nil {
		return nil, fmt.Errorf("continue log: %w", err)
	}
	return openAndTakeOver(ctx, dir)
}

// openAndTakeOver opens a repository and finishes the takeover that is prepared in it.
func openAndTakeOver(ctx context.Context, dir string) (*Bank, error) {
	b, err := Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	err = b.write(ctx, func(*ledger) error { return nil })
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, publishTimeout)
		defer cancel()
		// What is signed is published sooner or later; see KeepPublished.
		if _, publishErr := b.Publish(limited); mustStop(publishErr) {
			err = publishErr
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over: %w", err), b.Close())
	}
	return b, nil
}

// prepareToContinue does all that comes before the first signature, and puts the key in
// its place last.
func (b *Bank) prepareToContinue(ctx context.Context, o ContinueOptions) error {
	if err := hasNoKey(b.repo); err != nil {
		return err
	}
	keys := o.Keys
	if keys.files == nil {
		data, err := b.repo.ReadFile(importedFile)
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNoLogKey
		}
		if err != nil {
			return err
		}
		if keys, err = readKeys(bytes.NewReader(data)); err != nil {
			return err
		}
	}
	_, p, err := keys.open()
	if err != nil {
		return err
	}
	if !p.Quorum && !o.Unwitnessed {
		return fmt.Errorf("%w: the trust policy of %s names no quorum. If another host still writes the log, or a source shows an old copy, going on from here forks it for ever; --unwitnessed says that this cannot be",
			ErrUnwitnessed, p.Origin)
	}
	if p.PrivateIDs && keys.files[policyKeyFile] == nil {
		return fmt.Errorf("%w: %s names policies by hashes under a key (%s) that is not among these; what \"key export\" wrote has it", ErrKeys, p.Origin, policyKeyFile)
	}
	if keys.files[nameKeyFile] == nil && len(names(p)) > 0 && o.Report != nil {
		o.Report("log %s: the key of its IPNS name (%s) is not here, so the name stays behind", p.Origin, nameKeyFile)
	}
	defer b.repo.Blocks.Hold().Release()
	keys, v, err := b.newestSigned(ctx, keys, o)
	if err != nil {
		return err
	}
	if _, p, err = keys.open(); err != nil {
		return err
	}
	if p.Quorum {
		limited, cancel := context.WithTimeout(ctx, publishTimeout)
		defer cancel()
		if _, err := v.Cosign(limited, p, witness.Clients(p, witness.ClientOptions{}), v.Head().Size); err != nil {
			return err
		}
	}
	h, err := historyOf(ctx, v)
	if err != nil {
		return err
	}
	if h.Frozen() {
		return frozenError{p.Origin}
	}
	return b.settleKeys(keys, h, v.Head())
}

// newestSigned is newestOf of the log that the keys are of, with the keys to go on with. A
// rotation that was under way when they were exported may have ended since: then the next
// key has signed the newest head and the present one has not, and it goes on alone.
func (b *Bank) newestSigned(ctx context.Context, k Keys, o ContinueOptions) (Keys, *anchor.View, error) {
	_, p, err := k.open()
	if err != nil {
		return Keys{}, nil, err
	}
	if next, rotating := k.next(); rotating {
		_, q, err := next.open()
		if err != nil {
			return Keys{}, nil, err
		}
		v, err := b.with(q).newestOf(ctx, q, o)
		if err == nil && accepts(q, v) && !accepts(p, v) {
			return next, v, nil
		}
		// No head that the next key signed has been published, or the log is found by
		// its present key as well.
		if !errors.Is(err, anchor.ErrUntrusted) {
			return k, v, err
		}
	}
	v, err := b.with(p).newestOf(ctx, p, o)
	return k, v, err
}

func accepts(p *anchor.Policy, v *anchor.View) bool {
	_, err := anchor.VerifyCheckpoint(p, v.Head().Checkpoint)
	return err == nil
}

// CanContinue returns nil if [Continue] has something to find the log of the keys at: a
// source that is no archive, a place that the trust policy names, or, with no source, a copy
// in the bank's repository. The sources are not asked. The error wraps ErrUsage, or is that
// of keys that cannot be used.
func (b *Bank) CanContinue(ctx context.Context, k Keys, sources []string) error {
	_, p, err := k.open()
	if err != nil {
		return err
	}
	return b.with(p).canFind(ctx, p, sources)
}

// canFind is CanContinue for a log of any key.
func (b *Bank) canFind(ctx context.Context, p *anchor.Policy, sources []string) error {
	if len(sources) == 0 {
		_, err := b.view(ctx, p)
		if errors.Is(err, ErrNotFound) {
			return fmt.Errorf("%w: the repository has no copy of log %s, and no source was named", ErrUsage, p.Origin)
		}
		return err
	}
	archives, places, err := sortSources(sources)
	if err == nil && len(archives) > 0 && len(places) == 0 && !NamesPlaces(p) {
		err = fmt.Errorf("%w: %s is a file, and holds no log", ErrUsage, archives[0])
	}
	return err
}

// newestOf returns the verified copy of a log, brought up to what the sources show.
func (b *Bank) newestOf(ctx context.Context, p *anchor.Policy, o ContinueOptions) (*anchor.View, error) {
	if err := b.canFind(ctx, p, o.Sources); err != nil {
		return nil, err
	}
	if len(o.Sources) == 0 {
		v, err := b.view(ctx, p)
		if err != nil {
			return nil, err
		}
		t := b.readTopic(ctx, p)
		defer t.stop()
		err = t.check(ctx, FetchOptions{Report: o.Report, AcceptStale: o.Unwitnessed}, v)
		if err == nil {
			err = b.extendsSeen(ctx, p, v)
		}
		if err != nil {
			return nil, b.advise(err)
		}
		return v, nil
	}
	fetch := FetchOptions{Policy: p, Sources: o.Sources, AcceptStale: o.Unwitnessed || o.acceptStale, Report: o.Report}
	_, sources, err := b.gather(ctx, fetch)
	defer closeAll(sources)
	if err != nil {
		return nil, err
	}
	d, err := b.discover(ctx, fetch, sources)
	if err != nil {
		return nil, err
	}
	if errors.Is(d.Stale, errWithheld) {
		return nil, b.advise(d.Stale) // going on from a smaller one forks, whoever is alive
	}
	fetch.report("log %s: size %d, verified", d.Head.Origin, d.Head.Size)
	return b.copied(ctx, p, d)
}

// extendsSeen requires that the copy of a log has all that was seen of it here: going on from
// a smaller one forks.
func (b *Bank) extendsSeen(ctx context.Context, p *anchor.Policy, v *anchor.View) error {
	before, err := b.seen(p)
	if err != nil {
		return err
	}
	for _, h := range before.heads() {
		if err := v.Extends(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// copied copies a log, which is to be continued here, up to the head that was found.
func (b *Bank) copied(ctx context.Context, p *anchor.Policy, d Discovery) (*anchor.View, error) {
	var errs []error
	for _, shown := range d.heads {
		h, err := b.mirror(ctx, shown.prefix, p)
		switch {
		case err == nil && h.Size >= d.Head.Size:
			return b.view(ctx, p)
		case err == nil:
			err = fmt.Errorf("%w: it has only %d entries", anchor.ErrUnavailable, h.Size)
		}
		errs = append(errs, fmt.Errorf("%s: %w", shown.source.Name, err))
	}
	return nil, errors.Join(errs...)
}

// historyOf reads what a log says.
func historyOf(ctx context.Context, v *anchor.View) (*entry.History, error) {
	return readHistory(ctx, v, func(*entry.History, anchor.Entry, entry.Entry, bool) bool { return true })
}

// readHistory reads what a log says, and calls each after every entry that can be read:
// counts says that the history accepts it. It stops when each returns false.
func readHistory(ctx context.Context, v *anchor.View, each func(h *entry.History, e anchor.Entry, said entry.Entry, counts bool) bool) (*entry.History, error) {
	h := entry.NewHistory(v.Head().Origin)
	for e, err := range v.Entries(ctx, 0) {
		if err != nil {
			return nil, err
		}
		said, err := entry.Decode(e.Record)
		if err != nil {
			continue
		}
		if counts := h.Add(e.Index, said) == nil; !each(h, e, said, counts) {
			break
		}
	}
	return h, nil
}

// settleKeys writes the files of the log to be continued, its key last.
func (b *Bank) settleKeys(k Keys, h *entry.History, head anchor.Head) error {
	files := maps.Clone(k.files)
	if first, ok := h.Began(); ok {
		instance := hex.EncodeToString(first.Instance[:]) + "\n"
		if files[instanceFile] != nil && string(files[instanceFile]) != instance {
			return fmt.Errorf("%w: they are of another instance than the log", ErrKeys)
		}
		files[instanceFile] = []byte(instance)
	} else if files[instanceFile] == nil {
		var instance [16]byte
		if _, err := rand.Read(instance[:]); err != nil {
			return err
		}
		files[instanceFile] = []byte(hex.EncodeToString(instance[:]) + "\n")
	}
	if err := b.repo.PutRecord(continuedKind, LogID(head.Origin)[:16], strconv.AppendInt(nil, head.Size, 10)); err != nil {
		return err
	}
	skey := files[logKeyFile]
	delete(files, logKeyFile)
	for name, data := range files {
		if err := b.repo.WriteFile(name, data); err != nil {
			return err
		}
	}
	if err := b.repo.WriteFile(logKeyFile, skey); err != nil {
		return err
	}
	return b.remove(importedFile)
}

// takeOver appends the takeovers that are to be made: one for each policy that the log
// had when this host began to write it, or the one with which a new log begins.
func (l *ledger) takeOver(ctx context.Context) error {
	key := LogID(l.b.own.Origin)[:16]
	record, err := l.b.repo.Record(takeoverKind, key)
	if err != nil {
		return err
	}
	if record != nil {
		if err := l.beginAfter(ctx, key, record); err != nil {
			return err
		}
	}
	text, err := l.b.repo.Record(continuedKind, key)
	if err != nil || text == nil {
		return err
	}
	from, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return fmt.Errorf("record of the takeover: %w", err)
	}
	for _, k := range l.history.Policies() {
		if l.history.OpenedAt(k) >= from {
			continue
		}
		t := &entry.Takeover{Common: l.common(), Policy: k}
		epoch, _ := l.history.EpochOf(k)
		t.Epoch = epoch + 1
		if _, err := l.say(ctx, t); err != nil {
			return err
		}
	}
	return l.b.repo.DeleteRecord(continuedKind, key)
}

// beginAfter appends the takeover with which a new log begins, or a further policy goes on
// in it, and drops the record of it. One that the log cannot take, as it is frozen perhaps,
// is dropped too, and told once: it would keep everything else from being written.
func (l *ledger) beginAfter(ctx context.Context, key string, record []byte) error {
	e, err := entry.Decode(record)
	if err != nil {
		return err
	}
	t, ok := e.(*entry.Takeover)
	if !ok || t.Previous == nil {
		return fmt.Errorf("%w: record of the takeover", entry.ErrInvalid)
	}
	var refused error
	if _, known := l.history.EpochOf(t.Policy); !known {
		t.Time = l.now(time.Now)
		if err := l.check(t); err != nil {
			refused = fmt.Errorf("a takeover from log %s was begun here, and is given up: %w", t.Previous.Origin, err)
		} else if _, err := l.say(ctx, t); err != nil {
			return err
		}
	}
	return errors.Join(refused, l.b.repo.DeleteRecord(takeoverKind, key))
}

// hasNoKey refuses a repository that writes a log.
func hasNoKey(repo *node.Repo) error {
	_, err := repo.ReadFile(logKeyFile)
	if err == nil {
		return fmt.Errorf("%w: in %s", ErrLogExists, repo.Dir())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// newestHeld returns the newest save point of a policy in another log that the bank
// holds; nil if there is none, or if the other log is not trusted.
func (b *Bank) newestHeld(ctx context.Context, origin, policy string) (*Savepoint, error) {
	naming := b.naming(origin)
	var newest *Savepoint
	err := b.receipts(ctx, func(s Savepoint, err error) (bool, error) {
		if err != nil || s.Origin != origin || !(Ref{Policy: policy}).matches(s.Entry, naming) {
			return true, nil
		}
		if naming.Private {
			if s, err = b.withManifest(ctx, s); err != nil || s.Manifest.Policy.ID != policy {
				return true, ctx.Err()
			}
		}
		newest = &s
		return true, nil
	})
	return newest, err
}

// withoutPredecessors leaves out save points of logs from which the bank's own log took
// the policy over, where that has one too: the policy runs there now. Only the own log
// may say so: another one could claim any policy.
func (b *Bank) withoutPredecessors(ctx context.Context, candidates []Savepoint) ([]Savepoint, error) {
	own := func(s Savepoint) bool { return s.Origin == b.Origin() }
	others := func(s Savepoint) bool { return !own(s) }
	if !slices.ContainsFunc(candidates, own) || !slices.ContainsFunc(candidates, others) {
		return candidates, nil
	}
	v, err := b.view(ctx, b.own)
	if err != nil {
		return nil, err
	}
	policies := map[entry.PolicyKey]bool{}
	for _, s := range candidates {
		if own(s) {
			policies[s.Entry.Policy] = true
		}
	}
	predecessors := map[string]bool{}
	// A takeover from another log is the first that a log says of a policy.
	_, err = readHistory(ctx, v, func(h *entry.History, _ anchor.Entry, _ entry.Entry, _ bool) bool {
		for k := range policies {
			if _, known := h.EpochOf(k); !known {
				continue
			}
			if from := h.TakenFrom(k); from != nil {
				predecessors[from.Origin] = true
			}
			delete(policies, k)
		}
		return len(policies) > 0
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(candidates, func(s Savepoint) bool { return others(s) && predecessors[s.Origin] }), nil
}
