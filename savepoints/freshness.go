package savepoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// Freshness says what is known of whether the head that was read is the newest.
type Freshness string

const (
	// FreshnessUnknown: the trust policy names nobody who can say, or whom it names has
	// not seen that head yet.
	FreshnessUnknown Freshness = "unknown"
	// FreshnessWitnessed: a quorum of the policy's witnesses says that they have seen
	// nothing newer, now or within the policy's max-age.
	FreshnessWitnessed Freshness = "witnessed"
	// FreshnessLedger: nothing newer is on the topic of a public ledger that the policy
	// names, up to the last message that its mirror nodes show. If the policy has a
	// max-age, the newest head there is no older.
	FreshnessLedger Freshness = "ledger"
	// FreshnessStaleAccepted: it should be known and is not, and the caller took it all
	// the same.
	FreshnessStaleAccepted Freshness = "stale-accepted"
)

// Words says for a person what the value means for the log.
func (f Freshness) Words() string {
	switch f {
	case FreshnessWitnessed:
		return "its log is the newest that the witnesses know"
	case FreshnessLedger:
		return "its log is the newest that the public ledger knows"
	case FreshnessStaleAccepted:
		return "its log may not be the newest, which was accepted"
	}
	return "whether its log is the newest is not known (nobody who could say was asked, or has seen it)"
}

// freshen finds out whether the head is the newest.
func (b *Bank) freshen(ctx context.Context, o FetchOptions, d *Discovery, t *topicReading) error {
	d.Freshness = FreshnessUnknown
	err := d.Stale
	if err == nil && !o.Policy.Quorum {
		err = checkAge(ctx, o.Policy, d.view)
	}
	if err == nil {
		d.Freshness, err = b.vouch(ctx, o, d.view, t)
	}
	if errors.Is(err, anchor.ErrStale) && o.AcceptStale {
		d.Freshness, d.Stale, err = FreshnessStaleAccepted, err, nil
	}
	return err
}

// vouch asks those whom the policy names whether a log, which was checked against the
// topic, is the newest: the witnesses, and where they cannot say, the ledger.
func (b *Bank) vouch(ctx context.Context, o FetchOptions, v *anchor.View, t *topicReading) (Freshness, error) {
	var stale error
	if o.Policy.Quorum {
		stale = b.askWitnesses(ctx, o, v)
		if stale == nil || !errors.Is(stale, anchor.ErrStale) {
			return FreshnessWitnessed, stale
		}
	}
	newest, err := t.says(v.Head())
	switch {
	case newest:
		return FreshnessLedger, nil
	case stale != nil || err != nil:
		return FreshnessUnknown, errors.Join(stale, err)
	}
	return FreshnessUnknown, nil
}

// askWitnesses asks whether a larger head was seen than v's.
func (b *Bank) askWitnesses(ctx context.Context, o FetchOptions, v *anchor.View) error {
	limited, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	asked, err := v.Cosign(limited, o.Policy, o.witnesses(), v.Head().Size)
	for _, r := range asked.Reports {
		if err == nil && mustStop(r.Err) {
			o.report("witness %s contradicts a quorum of the others, and shows nothing: %v", r.Witness, r.Err)
		}
	}
	if err == nil || mustStop(err) || ctx.Err() != nil {
		return cmp.Or(ctx.Err(), err)
	}
	p := o.Policy
	if p.MaxAge > 0 && anchor.CosignedSince(p, v.Head(), time.Now().Add(-p.MaxAge)) {
		return nil
	}
	return fmt.Errorf("%w: the witnesses of log %s do not say that size %d is the newest: %w", anchor.ErrStale, p.Origin, v.Head().Size, err)
}

func (o FetchOptions) witnesses() []anchor.Witness {
	if o.Witnesses != nil {
		return o.Witnesses
	}
	return witness.Clients(o.Policy, witness.ClientOptions{})
}

// checkAge compares the age that a policy without witnesses allows with what the newest
// entry says.
func checkAge(ctx context.Context, p *anchor.Policy, v *anchor.View) error {
	size := v.Head().Size
	if p.MaxAge == 0 {
		return nil
	}
	if size == 0 {
		return fmt.Errorf("%w: log %s is empty, its age is not known", anchor.ErrStale, p.Origin)
	}
	last, err := v.Bundle(ctx, (size-1)/anchor.BundleWidth)
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(last) {
		said, err := entry.Decode(e.Record)
		if err != nil {
			continue
		}
		return withinAge(p, said.Base().Time)
	}
	return fmt.Errorf("%w: none of the newest entries of log %s says when it was made", anchor.ErrStale, p.Origin)
}
