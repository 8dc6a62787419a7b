package node

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipns"
	ipnspb "github.com/ipfs/boxo/ipns/pb"
	"github.com/ipfs/boxo/path"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
)

// owner is somebody who has the key of a name.
type owner struct {
	t    *testing.T
	key  crypto.PrivKey
	id   peer.ID
	name string
}

func newOwner(t *testing.T) owner {
	t.Helper()
	return ownerFrom(t, rand.Reader)
}

func ownerFrom(t *testing.T, random io.Reader) owner {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(random)
	must(t, err)
	id, err := peer.IDFromPrivateKey(key)
	must(t, err)
	return owner{t, key, id, ipns.NameFromPeer(id).String()}
}

func (o owner) sign(value string, sequence uint64, lifetime, ttl time.Duration, options ...ipns.Option) []byte {
	o.t.Helper()
	p, err := path.NewPath(value)
	must(o.t, err)
	rec, err := ipns.NewRecord(o.key, p, sequence, time.Now().Add(lifetime), ttl, options...)
	must(o.t, err)
	data, err := ipns.MarshalRecord(rec)
	must(o.t, err)
	return data
}

const someValue = "/ipfs/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

func TestNames(t *testing.T) {
	r := newRepo(t)
	o := newOwner(t)
	if _, err := r.Name(o.name); !errors.Is(err, ErrNoName) {
		t.Errorf("before: %v", err)
	}
	first := o.sign(someValue, 7, time.Hour, time.Minute)
	must(t, r.PutName(o.name, first))
	must(t, r.PutName(o.id.String(), first)) // the same name and record again
	for _, form := range []string{o.name, o.id.String(), "/ipns/" + o.name, peer.ToCid(o.id).String()} {
		n, err := r.Name(form)
		if err != nil || n.Name != o.name || n.Value != someValue || n.Sequence != 7 || n.TTL != time.Minute ||
			time.Until(n.Expires) > time.Hour || time.Until(n.Expires) < 50*time.Minute || !bytes.Equal(n.Record, first) {
			t.Errorf("%s: %+v, %v", form, n, err)
		}
	}
	other := newOwner(t)
	must(t, r.PutName(other.name, other.sign(someValue, 1, time.Hour, 0)))
	want := []string{o.name, other.name}
	slices.Sort(want)
	if names, err := r.Names(); err != nil || !slices.Equal(names, want) {
		t.Errorf("names %v, %v", names, err)
	}
	must(t, r.Close())
	r, err := Open(ctx, r.Dir())
	must(t, err)
	defer r.Close()
	if n, err := r.Name(o.name); err != nil || !bytes.Equal(n.Record, first) {
		t.Errorf("after it was opened again: %v", err)
	}
}

// The higher sequence wins, then the later end of validity; nothing goes back.
func TestNameGoesForward(t *testing.T) {
	r := newRepo(t)
	o := newOwner(t)
	steps := []struct {
		record []byte
		want   error
	}{
		{o.sign(someValue, 5, time.Hour, 0), nil},
		{o.sign(someValue, 4, 2*time.Hour, 0), ErrOlderName},
		{o.sign(someValue, 5, time.Minute, 0), ErrOlderName},
		{o.sign(someValue, 5, 3*time.Hour, 0), nil},
		{o.sign(someValue, 6, time.Minute, 0), nil},
		{o.sign(someValue, 5, 4*time.Hour, 0), ErrOlderName},
		{o.sign(someValue, 6, -time.Minute, 0), ErrName},
		{o.sign(someValue, 9, -time.Minute, 0), ErrName},
	}
	for i, s := range steps {
		before, _ := r.Record(nameKind, o.name)
		if err := r.PutName(o.name, s.record); !errors.Is(err, s.want) {
			t.Errorf("step %d: %v, want %v", i, err, s.want)
		}
		after, err := r.Record(nameKind, o.name)
		must(t, err)
		if want := map[bool][]byte{true: s.record, false: before}[s.want == nil]; !bytes.Equal(after, want) {
			t.Errorf("step %d: another record is held", i)
		}
	}
	// One that has expired meanwhile is not given, and still not gone back from.
	must(t, r.PutRecord(nameKind, o.name, o.sign(someValue, 8, -time.Second, 0)))
	if _, err := r.Name(o.name); !errors.Is(err, ErrNoName) {
		t.Errorf("an expired record: %v", err)
	}
	if n, err := r.HeldName(o.name); err != nil || n.Sequence != 8 {
		t.Errorf("what it said: %+v, %v", n, err)
	}
	if _, err := r.HeldName("example.org"); !errors.Is(err, ErrNoName) || errors.Is(err, ErrName) {
		t.Errorf("of what is no name nothing is held, and nothing is damaged: %v", err)
	}
	if err := r.PutName(o.name, o.sign(someValue, 7, time.Hour, 0)); !errors.Is(err, ErrOlderName) {
		t.Errorf("before an expired record: %v", err)
	}
	must(t, r.PutName(o.name, o.sign(someValue, 9, time.Hour, 0)))
}

func TestNameRefuses(t *testing.T) {
	r := newRepo(t)
	o, other := newOwner(t), newOwner(t)
	good := o.sign(someValue, 1, time.Hour, 0, ipns.WithV1Compatibility(true))
	change := func(f func(*ipnspb.IpnsRecord)) []byte {
		var rec ipnspb.IpnsRecord
		must(t, proto.Unmarshal(good, &rec))
		f(&rec)
		data, err := proto.Marshal(&rec)
		must(t, err)
		return data
	}
	for what, data := range map[string][]byte{
		"nothing":             nil,
		"no record":           []byte("nonsense"),
		"somebody else's":     other.sign(someValue, 1, time.Hour, 0),
		"no signature V2":     change(func(r *ipnspb.IpnsRecord) { r.SignatureV2 = nil }),
		"wrong signature V2":  change(func(r *ipnspb.IpnsRecord) { r.SignatureV2[3] ^= 1 }),
		"no data":             change(func(r *ipnspb.IpnsRecord) { r.Data = nil }),
		"other data":          change(func(r *ipnspb.IpnsRecord) { r.Data[len(r.Data)-1] ^= 1 }),
		"other V1 value":      change(func(r *ipnspb.IpnsRecord) { r.Value = []byte("/ipfs/bafkqaaa") }),
		"more than 10 KiB":    change(func(r *ipnspb.IpnsRecord) { r.PubKey = make([]byte, ipns.MaxRecordSize) }),
		"expired":             o.sign(someValue, 1, -time.Second, 0),
		"expired and renewed": change(func(r *ipnspb.IpnsRecord) { r.Validity = []byte(time.Now().Add(time.Hour).Format(time.RFC3339Nano)) }),
	} {
		if err := r.PutName(o.name, data); !errors.Is(err, ErrName) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, name := range []string{"", "example.com", "../pins/x", "bafkqaaa", someValue} {
		if err := r.PutName(name, good); !errors.Is(err, ErrName) {
			t.Errorf("name %q: %v", name, err)
		}
		if _, err := r.Name(name); !errors.Is(err, ErrNoName) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if names, err := r.Names(); err != nil || len(names) > 0 {
		t.Errorf("held: %v, %v", names, err)
	}
	if kept, err := filepath.Glob(filepath.Join(r.Dir(), metaDir, "*", "*")); err != nil || len(kept) > 0 {
		t.Errorf("on disk: %v, %v", kept, err)
	}
	// Damaged on disk it is not given to anybody.
	must(t, r.PutName(o.name, good))
	must(t, r.PutRecord(nameKind, o.name, change(func(r *ipnspb.IpnsRecord) { r.SignatureV2[3] ^= 1 })))
	if _, err := r.Name(o.name); !errors.Is(err, ErrNoName) {
		t.Errorf("damaged: %v", err)
	}
}

// Whatever bytes are offered as a record, only one that its owner signed is held.
func FuzzPutName(f *testing.F) {
	t := &testing.T{}
	o := ownerFrom(t, bytes.NewReader(make([]byte, 64))) // the same in all processes
	good := o.sign(someValue, 1, time.Hour, time.Minute, ipns.WithV1Compatibility(true))
	f.Add(good)
	f.Add(o.sign(someValue, 2, time.Hour, 0))
	f.Add([]byte{})
	r, err := Create(ctx, filepath.Join(f.TempDir(), "repo"))
	must(f, err)
	f.Cleanup(func() { r.Close() })
	f.Fuzz(func(t *testing.T, record []byte) {
		if err := r.PutName(o.name, record); err != nil && !errors.Is(err, ErrName) && !errors.Is(err, ErrOlderName) {
			t.Fatal(err)
		}
		held, err := r.Name(o.name)
		if errors.Is(err, ErrNoName) {
			return
		}
		if err != nil || held.Value != someValue || held.Sequence > 2 {
			t.Fatalf("held: %+v, %v", held, err)
		}
	})
}
