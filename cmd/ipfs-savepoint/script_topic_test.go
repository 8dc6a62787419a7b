package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs/hcstest"
	"github.com/ipfs/go-cid"
	"github.com/rogpeppe/go-internal/testscript"
)

// topic is a topic of a public ledger with two mirror nodes, of which the second one
// may lie.
type topic struct {
	*hcstest.Topic
	lie atomic.Value // string
}

// topicKey finds it among the script's values.
type topicKey struct{}

func newTopic() *topic {
	t := &topic{Topic: hcstest.New()}
	t.lie.Store("none")
	return t
}

func scriptTopic(ts *testscript.TestScript) *topic { return ts.Value(topicKey{}).(*topic) }

// cmdTopic starts mirror nodes of a topic and puts what a trust policy says of it into an
// environment variable.
func cmdTopic(ts *testscript.TestScript, _ bool, args []string) {
	t := scriptTopic(ts)
	values := t.ID.String()
	for _, h := range []http.Handler{t.Mirror(nil), http.HandlerFunc(t.second)} {
		srv := httptest.NewServer(h)
		ts.Defer(srv.Close)
		values += " " + srv.URL
	}
	ts.Setenv(args[0], values)
}

func (t *topic) second(w http.ResponseWriter, r *http.Request) {
	var change func([]hcs.Message) []hcs.Message
	switch t.lie.Load() {
	case "down":
		http.NotFound(w, r)
		return
	case "tamper":
		change = func(m []hcs.Message) []hcs.Message {
			m[0].Data = []byte("nothing")
			return m
		}
	case "other":
		change = func(m []hcs.Message) []hcs.Message {
			other := hcstest.New()
			for range m {
				other.Add(m[0].Time, []byte("nothing"))
			}
			return other.Messages()
		}
	}
	t.Mirror(change).ServeHTTP(w, r)
}

// cmdAnnounce puts the head on standard output, of "log head --json", on the topic.
func cmdAnnounce(ts *testscript.TestScript, _ bool, _ []string) {
	root, err := cid.Decode(lookupText(ts, "rootCid", "stdout"))
	ts.Check(err)
	h := anchor.Head{Checkpoint: []byte(lookupText(ts, "checkpoint", "stdout")), Root: root}
	_, err = scriptTopic(ts).Publish(time.Now(), h)
	ts.Check(err)
}

// cmdMirrorLie says what the second mirror node does from now on: none, down, tamper, other.
func cmdMirrorLie(ts *testscript.TestScript, _ bool, args []string) {
	scriptTopic(ts).lie.Store(args[0])
}
