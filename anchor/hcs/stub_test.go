package hcs_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs/hcstest"
	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var (
	topicID = hcs.EntityID{Num: 4711}
	payerID = hcs.EntityID{Num: 1001}
	rootCID = cid.MustParse("bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354")
)

// topic is a topic as the ledger would have it.
type topic []hcs.Message

// add returns the topic with one more message, a second later.
func (t topic) add(data []byte) topic { return t.addAs(int64(len(t))+1, data) }

// addAs returns the topic with one more message, of any number.
func (t topic) addAs(sequence int64, data []byte) topic {
	m := hcs.Message{Topic: topicID, Payer: payerID, Time: time.Unix(1_700_000_000+int64(len(t)), 42).UTC(), Data: data}
	m.Sequence = sequence
	var previous hcs.RunningHash
	if len(t) > 0 {
		previous = t[len(t)-1].RunningHash
	}
	m.RunningHash = m.Hash(previous)
	return append(t[:len(t):len(t)], m)
}

// chatter returns a topic of n messages that are not ours.
func chatter(n int) (t topic) {
	for i := range n {
		t = t.add(fmt.Appendf(nil, "message %d", i+1))
	}
	return t
}

// ServeHTTP answers as a mirror node does, with at most three messages a page.
func (t topic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	op, n, _ := strings.Cut(q.Get("sequencenumber"), ":")
	from, err := strconv.ParseInt(n, 10, 64)
	if err != nil || q.Get("order") != "asc" || q.Get("limit") != "100" || (op != "gt" && op != "gte") {
		http.Error(w, "query "+r.URL.RawQuery, http.StatusBadRequest)
		return
	}
	if op == "gte" {
		from--
	}
	rest := t[min(max(from, 0), int64(len(t))):]
	next := ""
	if len(rest) > 3 {
		rest = rest[:3]
		next = fmt.Sprintf("%s?limit=100&order=asc&sequencenumber=gt:%d", r.URL.Path, rest[2].Sequence)
	}
	w.Write(hcstest.Page(next, rest...))
}

// fixed answers every request with the same body.
type fixed []byte

func (b fixed) ServeHTTP(w http.ResponseWriter, _ *http.Request) { w.Write(b) }

// changing answers with what the bytes are at the time.
type changing []byte

func (b *changing) ServeHTTP(w http.ResponseWriter, _ *http.Request) { w.Write(*b) }

// serve runs mirror nodes on loopback and returns their URLs.
func serve(t testing.TB, nodes ...http.Handler) (urls []string) {
	t.Helper()
	for _, h := range nodes {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		urls = append(urls, s.URL)
	}
	return urls
}

// key is the key of a log.
type key struct {
	signer anchor.Signer
	policy *anchor.Policy
}

func newKey(t testing.TB, origin string) key {
	t.Helper()
	skey, vkey, err := anchor.GenerateKey(origin)
	must(t, err)
	signer, err := anchor.NewSigner(skey)
	must(t, err)
	policy, err := anchor.ParsePolicy(anchor.FormatPolicy(vkey))
	must(t, err)
	return key{signer, policy}
}

// head signs a head of size n, whose tree is told apart by seed. Further signers
// cosign it.
func (k key) head(t testing.TB, n int64, seed string, more ...note.Signer) anchor.Head {
	t.Helper()
	h := anchor.Head{
		Origin: k.signer.Name(), Size: n, Root: rootCID,
		RootHash: tlog.Hash(sha256.Sum256(fmt.Append(nil, seed, n))),
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", h.Origin, n, h.RootHash)
	signed, err := note.Sign(&note.Note{Text: text}, append([]note.Signer{k.signer}, more...)...)
	must(t, err)
	h.Checkpoint = signed
	return h
}

// head is a head as a message has it.
func head(checkpoint []byte, root cid.Cid) anchor.Head {
	return anchor.Head{Checkpoint: checkpoint, Root: root}
}

// message returns the topic message of a head.
func message(t testing.TB, h anchor.Head) []byte {
	t.Helper()
	b, err := hcs.EncodeHead(h)
	must(t, err)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want one that is %q", err, want)
	}
}
