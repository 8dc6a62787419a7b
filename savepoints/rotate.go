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
// otherwise as the present one: both are in force until [Bank.FinishRotation]. The error
// wraps ErrUsage if a rotation is under way.
func (b *Bank) RotateKey(ctx context.Context) ([]byte, error) {
	var policy []byte
	err := b.write(ctx, func(l *ledger) error {
		if l.more != nil {
			return fmt.Errorf("%w: a rotation of the key is under way; \"--finish\" ends it", ErrUsage)
		}
		now, err := b.repo.ReadFile(trustFile)
		if err != nil {
			return err
		}
		skey, vkey, err := anchor.GenerateKey(b.own.Origin)
		if err != nil {
			return err
		}
		if policy, err = withKey(now, vkey); err != nil {
			return err
		}
		if err := b.repo.WriteFile(nextTrustFile, policy); err != nil {
			return err
		}
		if err := b.repo.WriteFile(nextKeyFile, []byte(skey+"\n")); err != nil {
			return err
		}
		if l.more, err = nextSigner(b.repo, l.signer); err != nil {
			return err
		}
		if err := l.open(ctx); err != nil {
			return err
		}
		n := &entry.Note{Common: l.common(), Text: "the log's key is to be replaced by " + vkey}
		_, err = l.say(ctx, n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rotate log key: %w", err)
	}
	return policy, nil
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
// published head satisfies the new policy yet, so that others could not go over to it.
func (b *Bank) FinishRotation(ctx context.Context) error {
	err := b.write(ctx, func(*ledger) error {
		policy, err := b.repo.ReadFile(nextTrustFile)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: no rotation of the key is under way", ErrUsage)
		}
		if err != nil {
			return err
		}
		skey, err := b.repo.ReadFile(nextKeyFile)
		if errors.Is(err, fs.ErrNotExist) && string(policy) == b.trustText() {
			return b.remove(nextTrustFile) // a crash left no more than that to do
		}
		if err != nil {
			return err
		}
		p, err := anchor.ParsePolicy(policy)
		if err != nil {
			return err
		}
		if _, ok, err := anchor.LoadHead(ctx, b.store, p); errors.Is(err, anchor.ErrUntrusted) || err == nil && !ok {
			return fmt.Errorf("%w: no head that both keys signed has been published yet", ErrConflict)
		} else if err != nil {
			return err
		}
		// As long as heads are signed by both, any mixture of the files works.
		if err := b.repo.WriteFile(trustFile, policy); err != nil {
			return err
		}
		if err := b.repo.WriteFile(logKeyFile, skey); err != nil {
			return err
		}
		return errors.Join(b.remove(nextKeyFile), b.remove(nextTrustFile))
	})
	if err != nil {
		return fmt.Errorf("finish rotation of log key: %w", err)
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

// trustText is the trust policy of the own log as it is on disk; empty if it cannot be
// read.
func (b *Bank) trustText() string {
	text, err := b.repo.ReadFile(trustFile)
	if err != nil {
		return ""
	}
	return string(text)
}
