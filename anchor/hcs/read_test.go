package hcs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs/hcstest"
)

func read(t testing.TB, k key, o hcs.Options, nodes ...http.Handler) (hcs.Report, error) {
	t.Helper()
	return hcs.Read(context.Background(), k.policy, topicID, serve(t, nodes...), o)
}

// announced is a topic with heads between other messages: of size 3, of another log,
// of size 7, and then what anybody can do who has no key: repeat.
func announced(t testing.TB, k key) topic {
	t.Helper()
	three, seven := message(t, k.head(t, 3, "")), message(t, k.head(t, 7, ""))
	stranger := message(t, newKey(t, k.signer.Name()).head(t, 9, ""))
	return chatter(4).add(three).add(stranger).add(seven).add([]byte("{}")).add(three).add(seven)
}

func TestNewestHead(t *testing.T) {
	k := newKey(t, "log.example/newest")
	all := announced(t, k)
	var sizes []int64
	each := func(s hcs.Sighting) error { sizes = append(sizes, s.Head.Size); return nil }
	r, err := read(t, k, hcs.Options{Each: each}, all, all, all)
	must(t, err)
	n := r.Newest
	if n == nil || n.Head.Size != 7 || n.Head.Origin != "log.example/newest" || n.Head.Root != rootCID ||
		n.Position != all[6].Position || !n.Time.Equal(all[6].Time) || n.Mirrors != 3 {
		t.Fatalf("newest %+v", n)
	}
	if r.Heads != 4 || r.Untrusted != 1 || r.Foreign != 5 || r.Topic != topicID {
		t.Fatalf("%+v", r)
	}
	if last := all[9]; r.Last != last.Position || r.Agreed != last.Position || !r.LastTime.Equal(last.Time) {
		t.Fatalf("%+v", r)
	}
	if !slices.Equal(sizes, []int64{3, 7, 3, 7}) {
		t.Fatalf("sizes %v", sizes)
	}
	for _, m := range r.Mirrors {
		if m.Err != nil || m.Behind || m.Last != r.Last {
			t.Fatalf("%+v", m)
		}
	}
}

func TestEmptyTopic(t *testing.T) {
	r, err := read(t, newKey(t, "log.example/empty"), hcs.Options{}, topic{}, topic{})
	must(t, err)
	if r.Newest != nil || r.Last != (hcs.Position{}) || !r.LastTime.IsZero() {
		t.Fatalf("%+v", r)
	}
}

// A mirror without the tail is found out by the other, whose head counts: it is signed.
func TestMirrorBehind(t *testing.T) {
	k := newKey(t, "log.example/behind")
	all := announced(t, k)
	for _, shown := range []int{0, 1, 3, 6, 9} {
		t.Run(fmt.Sprint(shown), func(t *testing.T) {
			r, err := read(t, k, hcs.Options{}, all[:shown], all)
			must(t, err)
			behind, other := r.Mirrors[0], r.Mirrors[1]
			if !behind.Behind || behind.Last.Sequence != int64(shown) || behind.Err != nil || other.Behind {
				t.Fatalf("%+v", r.Mirrors)
			}
			if r.Last != all[9].Position || r.Agreed != behind.Last || r.Newest.Head.Size != 7 {
				t.Fatalf("%+v", r)
			}
			if want := 1 + shown/7; r.Newest.Mirrors != want {
				t.Fatalf("newest was shown by %d", r.Newest.Mirrors)
			}
		})
	}
}

// Two topics that are alike up to a message, each of which is sound alone.
func TestMirrorsDisagree(t *testing.T) {
	k := newKey(t, "log.example/disagree")
	all := announced(t, k)
	for _, alike := range []int{0, 2, 3, 8} {
		t.Run(fmt.Sprint(alike), func(t *testing.T) {
			other := all[:alike].add([]byte("something else")).add([]byte("and more"))
			r, err := read(t, k, hcs.Options{}, all, all, other)
			wantError(t, err, hcs.ErrDisagree)
			var e *hcs.DisagreementError
			if !errors.As(err, &e) {
				t.Fatal(err)
			}
			if e.Mirrors != [2]string{r.Mirrors[0].Mirror, r.Mirrors[2].Mirror} || e.Previous.Sequence != int64(alike) || r.Last != e.Previous {
				t.Fatalf("%+v", e)
			}
			a, b := e.Messages[0], e.Messages[1]
			if a.Hash(e.Previous.RunningHash) != a.RunningHash || b.Hash(e.Previous.RunningHash) != b.RunningHash ||
				a.Sequence != b.Sequence || a.RunningHash == b.RunningHash || a.Sequence != int64(alike)+1 {
				t.Fatalf("no evidence: %+v", e)
			}
		})
	}
}

// Mirrors that are at one do not get through with what is no topic.
func TestBrokenChain(t *testing.T) {
	k := newKey(t, "log.example/chain")
	all := announced(t, k)
	changed := func(i int, change func(*hcs.Message)) topic {
		c := slices.Clone(all)
		c[i].Data = slices.Clone(c[i].Data)
		change(&c[i])
		return c
	}
	for name, c := range map[string]struct {
		shown    topic
		sequence int64
	}{
		"changed message":   {changed(6, func(m *hcs.Message) { m.Data[70] ^= 1 }), 7},
		"shorter message":   {changed(6, func(m *hcs.Message) { m.Data = m.Data[:70] }), 7},
		"changed payer":     {changed(6, func(m *hcs.Message) { m.Payer.Num++ }), 7},
		"changed time":      {changed(6, func(m *hcs.Message) { m.Time = m.Time.Add(1) }), 7},
		"changed hash":      {changed(6, func(m *hcs.Message) { m.RunningHash[47] ^= 1 }), 7},
		"changed last hash": {changed(9, func(m *hcs.Message) { m.RunningHash[0] ^= 1 }), 10},
		"changed number":    {changed(6, func(m *hcs.Message) { m.Sequence = 8 }), 7},
		"other topic":       {changed(6, func(m *hcs.Message) { m.Topic.Num++ }), 7},
		"gap":               {slices.Delete(slices.Clone(all), 6, 7), 7},
		"gap, renumbered":   {append(slices.Clone(all[:6]), changed(7, func(m *hcs.Message) { m.Sequence = 7 })[7]), 7},
		"first one missing": {all[1:], 1},
		"twice the same":    {append(slices.Clone(all[:7]), all[6:]...), 8},
		"reordered":         {append(slices.Clone(all[:6]), all[7], all[6], all[8], all[9]), 7},
		"gap, soundly made": {all[:6].addAs(8, []byte("something")), 7},
		"number below one":  {changed(0, func(m *hcs.Message) { m.Sequence = 0 }), 1},
	} {
		t.Run(name, func(t *testing.T) {
			node := fixed(hcstest.Page("", c.shown...))
			_, err := read(t, k, hcs.Options{}, node, node)
			wantError(t, err, hcs.ErrChain)
			var e *hcs.ChainError
			if !errors.As(err, &e) || e.Sequence != c.sequence {
				t.Fatalf("%v, want message %d", err, c.sequence)
			}
			// One sound mirror, or two, change nothing.
			_, err = read(t, k, hcs.Options{}, all, all, node)
			wantError(t, err, hcs.ErrChain)
		})
	}
	// A sound topic that is another one.
	_, err := hcs.Read(context.Background(), k.policy, hcs.EntityID{Num: 4712}, serve(t, all, all), hcs.Options{})
	wantError(t, err, hcs.ErrChain)
}

func TestReadingOn(t *testing.T) {
	k := newKey(t, "log.example/after")
	all := announced(t, k)
	for after := range len(all) + 1 {
		var o hcs.Options
		if after > 0 {
			o.After = all[after-1].Position
		}
		r, err := read(t, k, o, all, all)
		must(t, err)
		if r.Heads+r.Untrusted+r.Foreign != int64(len(all)-after) || r.Last != all[9].Position || r.Agreed != r.Last {
			t.Fatalf("after %d: %+v", after, r)
		}
		if (r.Newest != nil) != (after < 10) || r.Mirrors[0].Last != r.Last {
			t.Fatalf("after %d: %+v", after, r)
		}
	}

	// A position that is not the topic's.
	o := hcs.Options{After: all[4].Position}
	o.After.RunningHash[0] ^= 1
	_, err := read(t, k, o, all, all)
	wantError(t, err, hcs.ErrChain)

	// A mirror that does not lead to a known position is no mirror of the topic.
	o = hcs.Options{After: all[8].Position}
	_, err = read(t, k, o, all[:8], all)
	wantError(t, err, hcs.ErrTruncated)
	wantError(t, err, anchor.ErrUnavailable)
	r, err := read(t, k, o, all[:8], all, all)
	must(t, err)
	wantError(t, r.Mirrors[0].Err, hcs.ErrTruncated)
}

func TestForkOnTopic(t *testing.T) {
	k := newKey(t, "log.example/fork")
	all := chatter(1).add(message(t, k.head(t, 5, "one"))).add(message(t, k.head(t, 5, "two")))
	_, err := read(t, k, hcs.Options{}, all, all)
	var e *anchor.ForkError
	if !errors.As(err, &e) || e.Old.RootHash == e.New.RootHash || e.Root != e.New.RootHash || e.Old.Size != 5 {
		t.Fatalf("%v", err)
	}
	for _, h := range []anchor.Head{e.Old, e.New} {
		_, err := anchor.VerifyCheckpoint(k.policy, h.Checkpoint)
		must(t, err)
	}
}

// A fork need not be of the newest head.
func TestForkBelowNewest(t *testing.T) {
	k := newKey(t, "log.example/below")
	all := chatter(1)
	for size := range int64(8) {
		all = all.add(message(t, k.head(t, size+1, "one")))
	}
	all = all.add(message(t, k.head(t, 3, "one"))).add(message(t, k.head(t, 3, "two"))).add(message(t, k.head(t, 9, "one")))
	r, err := read(t, k, hcs.Options{}, all, all)
	var e *anchor.ForkError
	if !errors.As(err, &e) || e.Old.Size != 3 || e.Old.RootHash == e.New.RootHash || e.Root != e.New.RootHash {
		t.Fatalf("%v", err)
	}
	if r.Newest.Head.Size != 8 || r.Last != all[10].Position {
		t.Errorf("%+v", r)
	}
	for _, h := range []anchor.Head{e.Old, e.New} {
		got, err := anchor.VerifyCheckpoint(k.policy, h.Checkpoint)
		if err != nil || got.RootHash != h.RootHash {
			t.Errorf("evidence: %v", err)
		}
	}
}

func TestEachStops(t *testing.T) {
	k := newKey(t, "log.example/each")
	all := announced(t, k)
	stop := errors.New("enough")
	r, err := read(t, k, hcs.Options{Each: func(hcs.Sighting) error { return stop }}, all, all)
	wantError(t, err, stop)
	if r.Last != all[4].Position {
		t.Fatalf("%+v", r)
	}
}

func TestMirrorLists(t *testing.T) {
	k := newKey(t, "log.example/mirrors")
	for name, urls := range map[string][]string{
		"none":             nil,
		"one":              {"https://a.example"},
		"one twice":        {"https://a.example", "https://A.example/other"},
		"one of two ports": {"https://a.example", "https://a.example:443"},
		"other ports":      {"https://a.example:8443", "https://a.example:9443"},
		"with a dot":       {"https://a.example", "https://a.example."},
		"with a user":      {"https://a.example", "https://me@a.example"},
		"one address":      {"https://192.0.2.1", "https://[::ffff:192.0.2.1]:443"},
		"one IPv6 address": {"https://[2001:db8::1]", "https://[2001:0db8:0:0::1]"},
		"only a port":      {"https://a.example", "https://:443"},
		"plain http":       {"https://a.example", "http://b.example"},
		"no scheme":        {"https://a.example", "b.example"},
		"no host":          {"https://a.example", "https:///b"},
		"with query":       {"https://a.example", "https://b.example?x=1"},
		"not a URL":        {"https://a.example", "https://b.example\n"},
		"another scheme":   {"https://a.example", "file:///etc/passwd"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := hcs.Read(context.Background(), k.policy, topicID, urls, hcs.Options{})
			wantError(t, err, hcs.ErrMirrors)
		})
	}
	_, err := hcs.Read(context.Background(), nil, topicID, []string{"https://a.example", "https://b.example"}, hcs.Options{})
	wantError(t, err, anchor.ErrPolicy)
	_, err = read(t, key{policy: &anchor.Policy{}}, hcs.Options{}, announced(t, k), announced(t, k))
	wantError(t, err, anchor.ErrPolicy)
}

// A mirror whose base URL has a path, over TLS.
func TestMirrorUnderPath(t *testing.T) {
	k := newKey(t, "log.example/path")
	all := announced(t, k)
	s := httptest.NewTLSServer(http.StripPrefix("/provider/key", onlyPath("/api/v1/topics/0.0.4711/messages", all)))
	t.Cleanup(s.Close)
	urls := append(serve(t, onlyPath("/api/v1/topics/0.0.4711/messages", all)), s.URL+"/provider/key/")
	r, err := hcs.Read(context.Background(), k.policy, topicID, urls, hcs.Options{Transport: s.Client().Transport})
	must(t, err)
	if r.Agreed != all[9].Position {
		t.Fatalf("%+v", r)
	}
}

func onlyPath(path string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// endless goes on with a topic, soundly, for as long as it is asked.
type endless struct {
	mu    sync.Mutex
	all   topic
	shown int
}

func (e *endless) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.all) < e.shown+100 {
		e.all = e.all.add([]byte("more"))
	}
	page := e.all[e.shown : e.shown+100]
	e.shown += 100
	w.Write(hcstest.Page(r.URL.Path+"?limit=100&page=next", page...))
}

// A mirror that fails, in whatever way, costs bounded time, is reported beside two
// others, and is missed beside one.
func TestFailingMirrors(t *testing.T) {
	k := newKey(t, "log.example/failing")
	all := announced(t, k)
	path := "/api/v1/topics/0.0.4711/messages"
	link := func(next string) http.Handler { return fixed(hcstest.Page(next, all[:3]...)) }
	for name, node := range map[string]func() http.Handler{
		"not found": func() http.Handler { return http.NotFoundHandler() },
		"redirect": func() http.Handler {
			return http.RedirectHandler(serve(t, fixed(hcstest.Page("", all...)))[0]+path, http.StatusFound)
		},
		"not JSON":    func() http.Handler { return fixed("<html>") },
		"empty":       func() http.Handler { return fixed("") },
		"other JSON":  func() http.Handler { return fixed("{}") },
		"no links":    func() http.Handler { return fixed(`{"messages":[]}`) },
		"no messages": func() http.Handler { return fixed(`{"links":{"next":null}}`) },
		"cut":         func() http.Handler { return fixed(hcstest.Page("", all...)[:500]) },
		"hash version 2": func() http.Handler {
			return fixed(strings.Replace(string(hcstest.Page("", all...)), `version":3`, `version":2`, 1))
		},
		"payer in another form": func() http.Handler {
			return fixed(strings.Replace(string(hcstest.Page("", all...)), `"0.0.1001"`, `"0.0.01001"`, -1))
		},
		"no payer": func() http.Handler {
			return fixed(strings.Replace(string(hcstest.Page("", all...)), `"0.0.1001"`, `null`, -1))
		},
		"huge": func() http.Handler {
			return fixed(append(hcstest.Page("", all...), bytes.Repeat([]byte(" "), hcs.MaxPage)...))
		},
		"too many":      func() http.Handler { return fixed(hcstest.Page("", chatter(101)...)) },
		"empty forever": func() http.Handler { return fixed(hcstest.Page(path + "?limit=100&order=asc&sequencenumber=gt:0")) },
		"endless":       func() http.Handler { return &endless{all: all} },
		"link to another host": func() http.Handler {
			return link("https://evil.example" + path + "?sequencenumber=gt:3")
		},
		"link without scheme": func() http.Handler { return link("//evil.example" + path + "?sequencenumber=gt:3") },
		"link to a file":      func() http.Handler { return link("file:" + path + "?sequencenumber=gt:3") },
		"link to another topic": func() http.Handler {
			return link("/api/v1/topics/0.0.4712/messages?sequencenumber=gt:3")
		},
		"link to the first page": func() http.Handler { return link(path) },
		"empty link":             func() http.Handler { return fixed(`{"messages":[],"links":{"next":""}}`) },
		"silent":                 func() http.Handler { return http.HandlerFunc(silent) },
		"byte by byte":           func() http.Handler { return http.HandlerFunc(drip) },
		"broken connection":      func() http.Handler { return http.HandlerFunc(abort) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Those that are silent are asked three times; the others have that time too.
			o := hcs.Options{MaxMessages: 500, MirrorTimeout: 20 * time.Second, RequestTimeout: time.Second}
			r, err := read(t, k, o, all, node())
			wantError(t, err, anchor.ErrUnavailable)
			if r.Mirrors[1].Err == nil || !strings.Contains(err.Error(), r.Mirrors[1].Mirror) {
				t.Fatalf("%v, %+v", err, r)
			}
			r, err = read(t, k, o, all, node(), all)
			must(t, err)
			if r.Mirrors[1].Err == nil || r.Newest.Head.Size != 7 || r.Agreed != all[9].Position {
				t.Fatalf("%+v", r)
			}
		})
	}
}

// Each limit ends a reading that nothing else would end.
func TestLimits(t *testing.T) {
	k := newKey(t, "log.example/limits")
	all := announced(t, k)
	// Without these a limit that does not hold would show by a test that never ends.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const never = 10 * time.Minute
	for name, c := range map[string]struct {
		o    hcs.Options
		node http.Handler
		want string
	}{
		"messages": {hcs.Options{MaxMessages: 500, MirrorTimeout: never, RequestTimeout: never}, &endless{all: all}, "more than 500 messages"},
		"mirror":   {hcs.Options{MaxMessages: 1 << 40, MirrorTimeout: 300 * time.Millisecond, RequestTimeout: never}, &endless{all: all}, "deadline"},
		"request":  {hcs.Options{MirrorTimeout: never, RequestTimeout: 50 * time.Millisecond}, http.HandlerFunc(silent), "deadline"},
		"page":     {hcs.Options{MirrorTimeout: never, RequestTimeout: never}, fixed(hcstest.Page("/api/v1/topics/0.0.4711/messages?page=next")), "no messages, and a link"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := hcs.Read(ctx, k.policy, topicID, serve(t, all, c.node), c.o)
			wantError(t, err, anchor.ErrUnavailable)
			if ctx.Err() != nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
		})
	}
}

// silent, drip and abort begin an answer and never end it.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func drip(w http.ResponseWriter, r *http.Request) {
	for {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(10 * time.Millisecond):
			w.Write([]byte(" "))
			w.(http.Flusher).Flush()
		}
	}
}

func abort(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	w.Write([]byte(`{"links"`))
	panic(http.ErrAbortHandler)
}

// A mirror that is busy is asked again.
func TestBusyMirror(t *testing.T) {
	k := newKey(t, "log.example/busy")
	all := announced(t, k)
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		first := true
		busy := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if first {
				first = false
				w.WriteHeader(status)
				return
			}
			all.ServeHTTP(w, r)
		})
		r, err := read(t, k, hcs.Options{}, all, busy)
		must(t, err)
		if first || r.Agreed != all[9].Position {
			t.Fatalf("%+v", r)
		}
	}
}

// A caller that gives up gets back at once, and no request is left behind.
func TestCancelled(t *testing.T) {
	k := newKey(t, "log.example/cancel")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked, done := make(chan struct{}), make(chan struct{})
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(done)
	})
	urls := serve(t, announced(t, k), hang)
	go func() {
		<-asked
		cancel()
	}()
	_, err := hcs.Read(ctx, k.policy, topicID, urls, hcs.Options{})
	wantError(t, err, context.Canceled)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the request goes on")
	}
}
