package savepoints

import (
	"context"
)

// newestHeld returns the newest save point of a policy in another log that the bank
// holds; nil if there is none, or if the other log is not trusted.
func (b *Bank) newestHeld(ctx context.Context, origin, policy string) (*Savepoint, error) {
	var newest *Savepoint
	err := b.receipts(ctx, func(s Savepoint, err error) (bool, error) {
		if err != nil || s.Origin != origin || !(Ref{Policy: policy}).matches(s.Entry, b.naming(origin)) {
			return true, nil
		}
		if b.naming(origin).Private {
			if s, err = b.withManifest(ctx, s); err != nil || s.Manifest.Policy.ID != policy {
				return true, ctx.Err()
			}
		}
		newest = &s
		return true, nil
	})
	return newest, err
}
