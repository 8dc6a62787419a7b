package savepoints

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/witness"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
	"golang.org/x/mod/sumdb/note"
)

// Files that are there while a log's key is replaced by another.
const (
	nextKeyFile   = "log.next.key"
	nextTrustFile = "trust.next.policy"
)

// nextSigner returns the key that is to replace another, if there is one.
func nextSigner(repo *node.Repo, now anchor.Signer) ([]anchor.Signer, error) {
	skey, err := repo.ReadFile(nextKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	next, err := anchor.NewSigner(strings.TrimSpace(string(skey)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", nextKeyFile, err)
	}
	if next.KeyHash() == now.KeyHash() {
		return nil, nil // it has replaced the other, and a crash left the file
	}
	return []anchor.Signer{next}, nil
}

// signs reports whether the log's heads are signed by a key. One of the keys is that of
// the trust policy, whatever moment of a rotation the files are of; if not, some of them
// are old copies, and nobody would believe what the others sign.
func (l *ledger) signs(key note.Verifier) bool {
	return slices.ContainsFunc(append([]anchor.Signer{l.signer}, l.more...), func(s anchor.Signer) bool {
		return s.Name() == key.Name() && s.KeyHash() == key.KeyHash()
	})
}

// RotateKey makes another key for the bank's own log. From then on both keys sign, and the
// log says so in a note. It returns the trust policy that names the new key and is
// otherwise as the present one: both are in force until [Bank.FinishRotation]. Where there
// is such a key already, but not its policy, it makes the policy of that key again. The
// error wraps ErrUsage if a rotation is under way or has ended since the repository was
// opened, ErrKeys if the files are not of one rotation, and entry.ErrFrozen if the log is
// frozen.
func (b *Bank) RotateKey(ctx context.Context) ([]byte, error) {
	var policy []byte
	err := b.write(ctx, func(l *ledger) error {
		var err error
		if policy, err = l.beginRotation(); err != nil {
			return err
		}
		if l.more, err = nextSigner(b.repo, l.signer); err != nil {
			return err
		}
		if err := l.open(ctx); err != nil {
			return err
		}
		n := &entry.Note{Common: l.common(), Text: "the log's key is to be replaced by " + vkeyOf(policy)}
		_, err = l.say(ctx, n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rotate log key: %w", err)
	}
	return policy, nil
}

// beginRotation writes the next key and the trust policy that names it, which it returns.
// A next key that is there is never replaced: it has signed, and may be what readers and
// the trust policy go by. If only its policy is missing, which may have been moved away, or
// which a crash came before, the key stays and its policy is written.
func (l *ledger) beginRotation() ([]byte, error) {
	b := l.b
	k, err := b.keys()
	if err != nil {
		return nil, err
	}
	_, begun := k.settled().next()
	again := begun && k.files[nextTrustFile] == nil
	if !again && (l.more != nil || k.rotating()) {
		return nil, fmt.Errorf("%w: a rotation of the key is under way; \"--finish\" ends it", ErrUsage)
	}
	// The next key is of use only if the log can say that there is one.
	if l.history.Frozen() {
		return nil, frozenError{b.own.Origin}
	}
	if !again {
		skey, _, err := anchor.GenerateKey(b.own.Origin)
		if err != nil {
			return nil, err
		}
		k.files[nextKeyFile] = []byte(skey + "\n")
		delete(k.files, nextTrustFile)
	}
	k = k.settled()
	if err := k.check(); err != nil {
		return nil, err
	}
	// The key comes before the policy that names it, and a policy whose key is gone goes
	// before both: they are never of two keys.
	if err := b.remove(nextTrustFile); err != nil {
		return nil, err
	}
	if err := b.repo.WriteFile(nextKeyFile, k.files[nextKeyFile]); err != nil {
		return nil, err
	}
	policy := k.files[nextTrustFile]
	return policy, b.repo.WriteFile(nextTrustFile, policy)
}

// nextPolicy returns a trust policy with a secret key's public one in its log line.
func nextPolicy(policy, skey []byte) ([]byte, error) {
	vkey, err := anchor.VerifierKey(strings.TrimSpace(string(skey)))
	if err != nil {
		return nil, err
	}
	return withKey(policy, vkey)
}

// withKey returns a trust policy with another key in its log line.
func withKey(policy []byte, vkey string) ([]byte, error) {
	var out strings.Builder
	for line := range strings.Lines(string(policy)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "log" {
			line = strings.Replace(line, f[1], vkey, 1)
		}
		out.WriteString(line)
	}
	p, err := anchor.ParsePolicy([]byte(out.String()))
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	if p.Key().KeyHash() != v.KeyHash() {
		return nil, fmt.Errorf("%w: its log line cannot be given another key", anchor.ErrPolicy)
	}
	return []byte(out.String()), nil
}

// FinishRotation drops the old key: the new one and its trust policy take its place. It
// takes effect when the repository is opened again. The error wraps ErrConflict if no
// published head satisfies the new policy yet, so that others could not go over to it, and
// anchor.ErrNoQuorum if too few of the witnesses cosign a head that the new key alone
// signed: without the old key nothing could be published then. Nothing is dropped in
// either case.
func (b *Bank) FinishRotation(ctx context.Context) error {
	err := b.write(ctx, func(l *ledger) error {
		k, err := b.keys()
		if err != nil {
			return err
		}
		if !k.rotating() {
			return fmt.Errorf("%w: no rotation of the key is under way", ErrUsage)
		}
		end := k.settled()
		if err := end.check(); err != nil {
			return err
		}
		if next, rotating := end.next(); rotating {
			if err := l.goesOver(ctx, next); err != nil {
				return err
			}
			end = next
		}
		// As long as heads are signed by both, any mixture of the files works.
		if err := b.repo.WriteFile(trustFile, end.files[trustFile]); err != nil {
			return err
		}
		if err := b.repo.WriteFile(logKeyFile, end.files[logKeyFile]); err != nil {
			return err
		}
		return errors.Join(b.remove(nextKeyFile), b.remove(nextTrustFile))
	})
	if err != nil {
		return fmt.Errorf("finish rotation of log key: %w", err)
	}
	return nil
}

// goesOver reports whether readers and witnesses of the log can do without its old key.
func (l *ledger) goesOver(ctx context.Context, next Keys) error {
	_, p, err := next.open()
	if err != nil {
		return err
	}
	_, ok, err := anchor.LoadHead(ctx, l.b.store, p)
	if errors.Is(err, anchor.ErrUntrusted) || err == nil && !ok {
		return fmt.Errorf("%w: no head that both keys signed has been published yet", ErrConflict)
	}
	if err != nil || !p.Quorum {
		return err
	}
	v, err := l.b.view(ctx, l.b.own)
	if err != nil {
		return err
	}
	// Witnesses that know the old key alone cosign what both signed.
	if v, err = v.SignedAlone(p); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, err = v.Cosign(limited, p, witness.Clients(p, witness.ClientOptions{}), v.Head().Size)
	if mustStop(err) {
		return l.stop(err)
	}
	if err != nil {
		return fmt.Errorf("the witnesses must know the new key first (%s; \"log witness --trust FILE\" takes it): %w", nextTrustFile, err)
	}
	return nil
}

// remove removes a file of the repository, if it is there.
func (b *Bank) remove(name string) error {
	err := os.Remove(filepath.Join(b.repo.Dir(), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
