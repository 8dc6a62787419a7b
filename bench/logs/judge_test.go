package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestJudge does to repositories what no fault may, and asks whether the judge of
// faults sees it.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(t *testing.T, r *trial)
		want string
	}{
		"nothing": {func(*testing.T, *trial) {}, ""},
		"an old copy is put back": {func(t *testing.T, r *trial) {
			r.putBack(t)
		}, "was acknowledged and is lost"},
		"an old copy is put back, and nobody saw the save point": {func(t *testing.T, r *trial) {
			r.putBack(t)
			clear(r.acknowledged)
		}, "does not extend"},
		"a byte is wrong": {func(t *testing.T, r *trial) {
			segment := filepath.Join(r.dir, "packs", "00000001.car")
			data, err := os.ReadFile(segment)
			must(t, err)
			data[bytes.Index(data, []byte(`{"document":`))] ^= 1
			must(t, os.WriteFile(segment, data, 0o600))
		}, "verify --all"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTrial(t, 0, false)
			c.do(t, r)
			if err := r.judge(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("it says %v", err)
			}
		})
	}
}

// putBack takes two save points, remembers the heads, and puts a copy back that is
// older than both.
func (r *trial) putBack(t *testing.T) {
	t.Helper()
	old := r.dir + "-old"
	must(t, os.CopyFS(old, os.DirFS(r.dir)))
	for range 2 {
		out, err := r.run(r.changed()...)
		must(t, err)
		r.printed(out)
		must(t, r.headNow())
	}
	must(t, os.RemoveAll(r.dir))
	must(t, os.Rename(old, r.dir))
	must(t, os.Chmod(r.dir, 0o700))
}
