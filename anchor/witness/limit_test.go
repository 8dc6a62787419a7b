package witness

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
)

// A log's share is of heads that make its tree grow. Nobody else can use it up: not with
// garbage, nor with what the log has signed and shown, which is answered as often as it comes.
func TestRateLimit(t *testing.T) {
	l, other := newLog(t, "log.example/a").grow(t, "a", 40), newLog(t, "log.example/b").grow(t, "b", 10)
	thief := newLog(t, "log.example/a").grow(t, "a", 10)
	_, url := newServer(t, &memHeads{m: map[string][]byte{}}, ServerOptions{Rate: 1e-9, Burst: 2}, l, other)
	repeated := l.request(t, 10, 10)
	for i, step := range []struct {
		body []byte
		want int
	}{
		{thief.request(t, 0, 10), 403},
		{thief.request(t, 0, 10), 403},
		{thief.request(t, 0, 10), 403},
		{l.request(t, 0, 10), 200},
		{l.request(t, 0, 10), 409},
		{l.request(t, 0, 10), 409},
		{request{10, nil, l.checkpoint(t, 20)}.encode(), 422},
		{repeated, 200},
		{repeated, 200},
		{repeated, 200}, // more often than its share
		{repeated, 200},
		{l.request(t, 10, 20), 200},
		{l.request(t, 20, 30), 429},
		{l.request(t, 20, 20), 200},
		{other.request(t, 0, 10), 200},
	} {
		if status, _, body := post(t, url, step.body); status != step.want {
			t.Errorf("%d: %d %q, not %d", i, status, body, step.want)
		}
	}
}

// A head that is shown again is signed anew only if that gives another cosignature.
func TestRepetition(t *testing.T) {
	l := newLog(t, "log.example/a").grow(t, "a", 10)
	heads := &memHeads{m: map[string][]byte{}}
	s, url := newServer(t, heads, ServerOptions{}, l)
	_, _, first := post(t, url, l.request(t, 0, 10))
	last, err := s.latest(ctx, s.logs["log.example/a"])
	must(t, err)
	if got := string(signatureLine(last.own)); got != first {
		t.Errorf("%q is answered again, not %q", got, first)
	}
	at, err := torchwood.CosignatureTimestamp(last.own)
	must(t, err)
	for after, want := range map[time.Duration]bool{-1: false, 0: true, time.Second - 1: true, time.Second: false, time.Hour: false} {
		if got := last.current(time.Unix(at, 0).Add(after)); got != want {
			t.Errorf("%s after it was made: %v", after, got)
		}
	}
	if (cosigned{}).current(time.Unix(0, 0)) {
		t.Error("what was never made is current")
	}
	// More than the burst of heads that grow are all answered.
	body := l.request(t, 10, 10)
	var again string
	for i := range 400 {
		var status int
		if status, _, again = post(t, url, body); status != 200 {
			t.Fatalf("%d: %d", i, status)
		}
	}
	_, err = note.Open(append(l.checkpoint(t, 10), again...), note.VerifierList(s.signer.Verifier()))
	must(t, err)
}

// An address has a share of requests, whatever they ask for.
func TestAddressLimit(t *testing.T) {
	l := newLog(t, "log.example/a").grow(t, "a", 10)
	s, url := newServer(t, &memHeads{m: map[string][]byte{}}, ServerOptions{AddressRate: 1e-9, AddressBurst: 3}, l)
	for i, want := range []int{400, 400, 400, 429} {
		if status, _, _ := post(t, url, []byte("garbage")); status != want {
			t.Errorf("%d: %d, not %d", i, status, want)
		}
	}
	resp, err := http.Get(url + "/" + originHash("log.example/a") + "/checkpoint")
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("another method: %s", resp.Status)
	}
	r := httptest.NewRequest(http.MethodPost, "/add-checkpoint", bytes.NewReader(l.request(t, 0, 10)))
	w := httptest.NewRecorder()
	// Of two addresses one at least is not in the bucket of loopback.
	for _, r.RemoteAddr = range []string{"192.0.2.1:1000", "192.0.2.2:1000"} {
		if s.addresses.of(r.RemoteAddr) != s.addresses.of("127.0.0.1:1") {
			break
		}
	}
	if s.ServeHTTP(w, r); w.Code != 200 {
		t.Errorf("another address: %d", w.Code)
	}
}

func TestAddresses(t *testing.T) {
	a := newAddresses()
	for _, same := range [][2]string{
		{"192.0.2.1:1", "192.0.2.1:2"},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:2"},
		{"[2001:db8:0:1::1]:1", "[2001:db8:0:1:ffff::2]:1"},
		{"[fe80::1%eth0]:1", "[fe80::2%eth1]:1"},
		{"a socket", "a socket"},
	} {
		if a.of(same[0]) != a.of(same[1]) {
			t.Errorf("%q: of two addresses", same)
		}
	}
	different := map[*bucket]bool{}
	for i := range 100 {
		different[a.of(fmt.Sprintf("192.0.2.%d:1", i))] = true
		different[a.of(fmt.Sprintf("[2001:db8:0:%x::1]:1", i))] = true
	}
	// 200 of 4,096 make five pairs on average.
	if len(different) < 150 {
		t.Errorf("200 addresses have %d buckets", len(different))
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	now := time.Unix(1000, 0)
	for i, step := range []struct {
		after time.Duration
		want  bool
	}{
		{0, true}, {0, true}, {0, false},
		{time.Second / 4, false}, {time.Second / 4, true}, {0, false}, // two a second
		{-time.Hour, false}, {time.Second / 2, true}, // a clock that goes back gives nothing
		{time.Hour, true}, {0, true}, {0, false}, // no more than the burst
	} {
		now = now.Add(step.after)
		if got := b.take(now, 2, 2); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

// Another text of the same tree, with extension lines, is signed for itself, at once too.
func TestRepetitionOfAnotherText(t *testing.T) {
	l := newLog(t, "log.example/a").grow(t, "a", 10)
	s, url := newServer(t, &memHeads{m: map[string][]byte{}}, ServerOptions{}, l)
	if status, _, body := post(t, url, l.request(t, 0, 10)); status != 200 {
		t.Fatalf("%d %q", status, body)
	}
	text, _, _ := strings.Cut(string(l.checkpoint(t, 10)), "\n\n")
	for range 20 { // within one second, and over its end
		for _, text := range []string{text + "\nextension\n", text + "\n"} {
			status, _, body := post(t, url, request{10, nil, l.sign(t, text)}.encode())
			if _, err := note.Open([]byte(text+"\n"+body), note.VerifierList(s.signer.Verifier())); status != 200 || err != nil {
				t.Fatalf("%q: %d %q: %v", text, status, body, err)
			}
		}
	}
}
