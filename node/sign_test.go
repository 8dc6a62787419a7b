package node

import (
	"errors"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

// A record that is signed here is kept, served and read by others, and is nobody else's.
func TestSignName(t *testing.T) {
	r, err := Create(ctx, filepath.Join(t.TempDir(), "repo"))
	must(t, err)
	t.Cleanup(func() { r.Close() })
	key, err := NewNameKey()
	must(t, err)
	name, err := NameOf(key)
	must(t, err)
	root := dag.RawBlock([]byte("root")).CID
	want := Name{Value: "/ipfs/" + root.String(), Sequence: 7 << 16, Expires: time.Now().Add(time.Hour).UTC(), TTL: time.Minute}
	signed, err := SignName(key, want)
	must(t, err)
	must(t, r.PutName(name, signed.Record))

	gateway, err := r.Gateway(nil)
	must(t, err)
	web := httptest.NewServer(gateway)
	t.Cleanup(web.Close)
	remote, err := r.Dial(web.URL)
	must(t, err)
	t.Cleanup(func() { remote.Close() })
	got, err := remote.ReadName(ctx, name)
	must(t, err)
	if got.Name != name || got.Value != want.Value || got.Sequence != want.Sequence || got.TTL != want.TTL || !got.Expires.Equal(want.Expires) {
		t.Errorf("%+v", got)
	}
	if c, err := got.Root(); err != nil || c != root {
		t.Errorf("%s %v", c, err)
	}

	other, err := NewNameKey()
	must(t, err)
	otherName, err := NameOf(other)
	must(t, err)
	if _, err := OpenName(otherName, signed.Record); !errors.Is(err, ErrName) {
		t.Errorf("another name's: %v", err)
	}
	if _, err := remote.ReadName(ctx, otherName); !errors.Is(err, dag.ErrNotFound) {
		t.Errorf("a name that is not held: %v", err)
	}
	want.Expires = time.Now().Add(-time.Hour)
	expired, err := SignName(key, want)
	must(t, err)
	if _, err := OpenName(name, expired.Record); !errors.Is(err, ErrName) {
		t.Errorf("expired: %v", err)
	}
	for _, value := range []string{"", "x", "/ipfs/" + root.String() + "/below", "/ipns/" + name} {
		n := Name{Value: value}
		if _, err := n.Root(); !errors.Is(err, ErrName) {
			t.Errorf("%q stands for a CID: %v", value, err)
		}
	}
	if _, err := SignName([]byte("nonsense"), want); !errors.Is(err, ErrName) {
		t.Error(err)
	}
}
