package savepoints_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs/hcstest"
	"github.com/ipfs-savepoint/ipfs-savepoint/savepoints"
)

// publicLedger is a topic with mirror nodes that do as they are told.
type publicLedger struct {
	*hcstest.Topic
	mirrors []*mirrorNode
}

// mirrorNode is one of them.
type mirrorNode struct {
	topic  *hcstest.Topic
	url    string
	down   atomic.Bool
	left   atomic.Int64 // how many requests it answers before it goes down, if not 0
	change atomic.Pointer[func([]hcs.Message) []hcs.Message]
}

func (m *mirrorNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.down.Load() {
		http.NotFound(w, r)
		return
	}
	var change func([]hcs.Message) []hcs.Message
	if f := m.change.Load(); f != nil {
		change = *f
	}
	m.topic.Mirror(change).ServeHTTP(w, r)
	if m.left.Load() > 0 && m.left.Add(-1) == 0 {
		m.down.Store(true)
	}
}

func newPublicLedger(t *testing.T) *publicLedger {
	l := &publicLedger{Topic: hcstest.New()}
	for range 2 {
		m := &mirrorNode{topic: l.Topic}
		web := httptest.NewServer(m)
		t.Cleanup(web.Close)
		m.url = web.URL
		l.mirrors = append(l.mirrors, m)
	}
	return l
}

// values are what a trust policy says of the topic.
func (l *publicLedger) values() string {
	s := l.ID.String()
	for _, m := range l.mirrors {
		s += " " + m.url
	}
	return s
}

// publish puts the newest published head of a bank on the topic.
func (l *publicLedger) publish(t *testing.T, b *savepoints.Bank) anchor.Head {
	t.Helper()
	h, err := b.Head(ctx, "")
	must(t, err)
	_, err = l.Publish(time.Now(), h)
	must(t, err)
	return h
}

// lie makes the last of the mirror nodes, or all, show other messages.
func (l *publicLedger) lie(all bool, change func([]hcs.Message) []hcs.Message) {
	for i, m := range l.mirrors {
		if all || i == len(l.mirrors)-1 {
			m.change.Store(&change)
		}
	}
}

// newLedgerBank is a bank whose trust policy names the topic, with one save point, on it.
func newLedgerBank(t *testing.T, o savepoints.InitOptions) (*savepoints.Bank, *publicLedger) {
	t.Helper()
	l := newPublicLedger(t)
	o.Topic = l.values()
	b, err := savepoints.Init(ctx, filepath.Join(t.TempDir(), "bank"), o)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b, l
}

// discovering is a fresh host that asks a source.
type discovering struct {
	t *testing.T
	*savepoints.Bank
	o       savepoints.FetchOptions
	reports []string
}

func newDiscovering(t *testing.T, of *savepoints.Bank, sources ...string) *discovering {
	t.Helper()
	to, p := reader(t, of)
	d := &discovering{t: t, Bank: to}
	d.o = savepoints.FetchOptions{Policy: p, Sources: sources, Report: func(format string, args ...any) {
		d.reports = append(d.reports, fmt.Sprintf(format, args...))
	}}
	return d
}

func (d *discovering) finds(size int64, want savepoints.Freshness) {
	d.t.Helper()
	got, err := d.Discover(ctx, d.o)
	if err != nil || got.Head.Size != size || got.Freshness != want {
		d.t.Errorf("size %d, %s, %v; want %d, %s", got.Head.Size, got.Freshness, err, size, want)
	}
}

func (d *discovering) fails(want error) error {
	d.t.Helper()
	got, err := d.Discover(ctx, d.o)
	if !errors.Is(err, want) {
		d.t.Errorf("size %d, %s, %v; want %v", got.Head.Size, got.Freshness, err, want)
	}
	return err
}

// evidence requires that there is one file of it, named in the error, that proves its kind.
func (d *discovering) evidence(err error, kind string) {
	d.t.Helper()
	files, globErr := filepath.Glob(filepath.Join(d.Repo().Dir(), "evidence", "*.json"))
	must(d.t, globErr)
	if len(files) != 1 || err == nil || !strings.Contains(err.Error(), files[0]) {
		d.t.Fatalf("evidence %v, error %v", files, err)
	}
	text, readErr := os.ReadFile(files[0])
	must(d.t, readErr)
	if got, err := anchor.CheckEvidence(d.o.Policy, text); err != nil || got.Kind != kind {
		d.t.Errorf("%+v, %v", got, err)
	}
}

// copyRecord gives one host what another knows of the topic.
func copyRecord(from, to *discovering) error {
	key := savepoints.LogID(from.o.Policy.Origin)
	data, err := from.Repo().Record("topics", key)
	if err == nil && data == nil {
		err = errors.New("nothing is noted of the topic")
	}
	return errors.Join(err, to.Repo().PutRecord("topics", key, data))
}
