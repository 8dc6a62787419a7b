package savepoints

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/node"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints/entry"
)

// keyFiles are the files of a repository by which its log can be continued elsewhere.
var keyFiles = []string{logKeyFile, nextKeyFile, "ipns.key", instanceFile, policyKeyFile, trustFile, nextTrustFile}

// importedFile holds keys that were imported, until the log is continued.
const importedFile = "imported.keys"

// maxKeyFile bounds each of the files, in bytes.
const maxKeyFile = 64 << 10

// Keys are the files by which a log can be continued elsewhere. They are secret, and do not
// show what they hold when they are printed.
type Keys struct {
	files map[string][]byte
}

// String names the files.
func (k Keys) String() string {
	var names []string
	for _, name := range keyFiles {
		if k.files[name] != nil {
			names = append(names, name)
		}
	}
	return "keys of a log: " + strings.Join(names, ", ")
}

// GoString is String.
func (k Keys) GoString() string { return k.String() }

// LogKey returns keys that are no more than a log's secret key, as it is in log.key, and
// the log's trust policy. The error wraps ErrKeys or anchor.ErrPolicy.
func LogKey(skey, policy []byte) (Keys, error) {
	k := Keys{map[string][]byte{logKeyFile: skey, trustFile: policy}}
	_, _, err := k.open()
	return k, err
}

// open returns the signer and the trust policy of the keys, which must belong together.
func (k Keys) open() (anchor.Signer, *anchor.Policy, error) {
	signer, err := anchor.NewSigner(strings.TrimSpace(string(k.files[logKeyFile])))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrKeys, err)
	}
	p, err := anchor.ParsePolicy(k.files[trustFile])
	if err != nil {
		return nil, nil, err
	}
	if v := signer.Verifier(); v.Name() != p.Origin || v.KeyHash() != p.Key().KeyHash() {
		return nil, nil, fmt.Errorf("%w: the key of log %q is not the one that the trust policy of log %q names", ErrKeys, v.Name(), p.Origin)
	}
	return signer, p, nil
}

// settled returns the keys as they are once what a crash broke off is done. log.next.key
// alone tells what that is: if it is the key that the trust policy names, a rotation was
// ending; if it is another, a rotation is under way, and its policy, where it is missing, is
// made again. Without it none is.
func (k Keys) settled() Keys {
	files := maps.Clone(k.files)
	if _, err := LogKey(files[nextKeyFile], files[trustFile]); err == nil {
		files[logKeyFile] = files[nextKeyFile]
		delete(files, nextKeyFile)
	}
	switch {
	case files[nextKeyFile] == nil:
		delete(files, nextTrustFile)
	case files[nextTrustFile] == nil:
		// What a policy cannot be made of, check refuses.
		if policy, err := nextPolicy(files[trustFile], files[nextKeyFile]); err == nil {
			files[nextTrustFile] = policy
		}
	}
	return Keys{files}
}

// rotating reports whether a rotation is under way, or a crash left files of one: it is to
// be ended before another begins.
func (k Keys) rotating() bool {
	return k.files[nextKeyFile] != nil || bytes.Equal(k.files[nextTrustFile], k.files[trustFile])
}

// next returns settled keys as they are to be once the rotation that is under way has
// ended, and whether one is.
func (k Keys) next() (Keys, bool) {
	if k.files[nextKeyFile] == nil {
		return Keys{}, false
	}
	files := maps.Clone(k.files)
	files[logKeyFile], files[trustFile] = files[nextKeyFile], files[nextTrustFile]
	delete(files, nextKeyFile)
	delete(files, nextTrustFile)
	return Keys{files}, true
}

// check reports whether settled keys can be used.
func (k Keys) check() error {
	_, p, err := k.open()
	if err != nil {
		return err
	}
	next, rotating := k.next()
	if !rotating {
		return nil
	}
	_, q, err := next.open()
	if err == nil && q.Origin != p.Origin {
		err = fmt.Errorf("%w: the next key is of log %q, the present one of %q", ErrKeys, q.Origin, p.Origin)
	}
	if err != nil {
		return fmt.Errorf("the key that is to replace the present one (%s, %s): %w", nextKeyFile, nextTrustFile, err)
	}
	return nil
}

// Origin is the log that the keys are of.
func (k Keys) Origin() string {
	_, p, err := k.open()
	if err != nil {
		return ""
	}
	return p.Origin
}

// Recipient reads an age recipient, such as age1….
func Recipient(text string) (age.Recipient, error) {
	if anchor.HoldsSecret(text) {
		return nil, fmt.Errorf("%w: this is a secret key, where a recipient (age1…) belongs: \"age-keygen -y\" prints that of an identity", ErrUsage)
	}
	list, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil || len(list) != 1 {
		return nil, fmt.Errorf("%w: %q is not an age recipient", ErrUsage, text)
	}
	return list[0], nil
}

// ExportKeys writes the keys of the bank's own log, encrypted to each of the recipients:
// an armored age file (age-encryption.org/v1) of a tar archive of the files of the
// repository.
func (b *Bank) ExportKeys(w io.Writer, recipients ...age.Recipient) error {
	if b.own == nil {
		return fmt.Errorf("export keys: %w", b.noLog())
	}
	k, err := b.keys()
	if err == nil {
		k = k.settled()
		err = k.check() // what cannot be imported is no copy to rely on
	}
	if err != nil {
		return fmt.Errorf("export keys: %w", err)
	}
	armored := armor.NewWriter(w)
	sealed, err := age.Encrypt(armored, recipients...)
	if err != nil {
		return fmt.Errorf("%w: export keys: %w", ErrUsage, err)
	}
	if err := errors.Join(k.write(sealed), sealed.Close(), armored.Close()); err != nil {
		return fmt.Errorf("export keys: %w", err)
	}
	return nil
}

// keys reads the files of the repository as they are.
func (b *Bank) keys() (Keys, error) {
	k := Keys{map[string][]byte{}}
	for _, name := range keyFiles {
		data, err := b.repo.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Keys{}, err
		}
		k.files[name] = data
	}
	return k, nil
}

func (k Keys) write(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, name := range keyFiles {
		data := k.files[name]
		if data == nil {
			continue
		}
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := t.Write(data); err != nil {
			return err
		}
	}
	return t.Close()
}

// OpenKeys reads what ExportKeys wrote. The error wraps ErrKeys: it is another file, is
// damaged, or is for other identities.
func OpenKeys(r io.Reader, identities ...age.Identity) (Keys, error) {
	buffered := bufio.NewReader(r)
	in := io.Reader(buffered)
	if head, _ := buffered.Peek(len(armor.Header)); string(head) == armor.Header {
		in = armor.NewReader(buffered)
	}
	plain, err := age.Decrypt(in, identities...)
	if err != nil {
		return Keys{}, fmt.Errorf("%w: %w", ErrKeys, err)
	}
	return readKeys(plain)
}

// readKeys reads the tar archive. What was exported after a crash in the middle of a
// rotation is settled.
func readKeys(r io.Reader) (Keys, error) {
	k := Keys{map[string][]byte{}}
	t := tar.NewReader(io.LimitReader(r, int64(len(keyFiles)+1)*2*maxKeyFile))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Keys{}, fmt.Errorf("%w: %w", ErrKeys, err)
		}
		if !slices.Contains(keyFiles, h.Name) || k.files[h.Name] != nil || h.Size > maxKeyFile {
			return Keys{}, fmt.Errorf("%w: it holds %.80q", ErrKeys, h.Name)
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return Keys{}, fmt.Errorf("%w: %w", ErrKeys, err)
		}
		k.files[h.Name] = data
	}
	k = k.settled()
	return k, k.check()
}

// ImportKeys keeps the keys of a log in a bank that has none of its own, and the log's
// trust policy. The log is not written before it is continued; see [Continue]. The error
// wraps ErrLogExists if the repository has a log.
func (b *Bank) ImportKeys(k Keys) error {
	if err := hasNoKey(b.repo); err != nil {
		return fmt.Errorf("import keys: %w", err)
	}
	if err := k.check(); err != nil {
		return fmt.Errorf("import keys: %w", err)
	}
	if err := b.Keep(k.files[trustFile]); err != nil {
		return fmt.Errorf("import keys: %w", err)
	}
	var out bytes.Buffer
	if err := k.write(&out); err != nil {
		return err
	}
	return b.repo.WriteFile(importedFile, out.Bytes())
}

// noLog says why the bank has no log of its own that can be written.
func (b *Bank) noLog() error {
	if data, err := b.repo.ReadFile(importedFile); err == nil {
		if k, err := readKeys(bytes.NewReader(data)); err == nil {
			return fmt.Errorf("%w: the keys of %s were imported; \"take --from SOURCE\" finds the log first", ErrNotContinued, k.Origin())
		}
	}
	return ErrNoLogKey
}

// PublicKeys are the public parts of a repository's keys.
type PublicKeys struct {
	// Origin and Log are the name and the public key (c2sp.org/signed-note, "Verifier
	// keys") of the log; empty if it has none of its own.
	Origin, Log string
	// NextLog is the key that is to replace Log; empty if none is.
	NextLog string
	// PeerID is the libp2p identity.
	PeerID string
	// PrivateIDs: the log names policies by a keyed hash.
	PrivateIDs bool
}

// PublicKeys returns the public parts of the bank's keys.
func (b *Bank) PublicKeys() (PublicKeys, error) {
	id, err := b.repo.PeerID()
	out := PublicKeys{PeerID: id}
	if err != nil || b.own == nil {
		return out, err
	}
	k, err := b.keys()
	if err != nil {
		return out, err
	}
	k = k.settled()
	out.Origin, out.Log, out.PrivateIDs = b.own.Origin, vkeyOf(k.files[trustFile]), b.own.PrivateIDs
	if next, rotating := k.next(); rotating {
		out.NextLog = vkeyOf(next.files[trustFile])
	}
	return out, nil
}

// vkeyOf returns the log's key in a trust policy.
func vkeyOf(policy []byte) string {
	for line := range strings.Lines(string(policy)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "log" {
			return f[1]
		}
	}
	return ""
}

// newPolicyKey makes the key under which the ids of policies are private. One that is
// there is left: it may be what entries of another log of this instance were named by.
func newPolicyKey(repo *node.Repo) error {
	_, err := repo.ReadFile(policyKeyFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var key [entry.SecretSize]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	return repo.WriteFile(policyKeyFile, []byte(hex.EncodeToString(key[:])+"\n"))
}

// readHex reads a file of the repository that holds so many bytes in hexadecimal.
func readHex(repo *node.Repo, name string, size int) ([]byte, error) {
	text, err := repo.ReadFile(name)
	if err != nil {
		return nil, err
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(raw) != size {
		return nil, fmt.Errorf("file %s does not hold %d bytes in hexadecimal", name, size)
	}
	return raw, nil
}
