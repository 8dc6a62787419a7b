// Package hcstest has a topic of the Hedera Consensus Service for tests, and mirror nodes
// that show it. It imports no test framework, so that programs can be tested with it too.
package hcstest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
)

// PageMessages is how many messages a mirror node shows at once: few, so that there are
// pages.
const PageMessages = 3

// Topic is a topic as the ledger has it. It is safe for concurrent use.
type Topic struct {
	ID    hcs.EntityID
	Payer hcs.EntityID

	mu       sync.Mutex
	messages []hcs.Message
	queries  []string
}

// New returns a topic without messages.
func New() *Topic {
	return &Topic{ID: hcs.EntityID{Num: 4711}, Payer: hcs.EntityID{Num: 1001}}
}

// Add puts a message on the topic, at a consensus time.
func (t *Topic) Add(at time.Time, data []byte) hcs.Message {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := hcs.Message{Topic: t.ID, Payer: t.Payer, Time: at.UTC(), Data: data}
	m.Sequence = int64(len(t.messages)) + 1
	var previous hcs.RunningHash
	if m.Sequence > 1 {
		previous = t.messages[m.Sequence-2].RunningHash
	}
	m.RunningHash = m.Hash(previous)
	t.messages = append(t.messages, m)
	return m
}

// Publish puts a head on the topic.
func (t *Topic) Publish(at time.Time, h anchor.Head) (hcs.Message, error) {
	data, err := hcs.EncodeHead(h)
	if err != nil {
		return hcs.Message{}, err
	}
	return t.Add(at, data), nil
}

// Messages returns a copy of the messages.
func (t *Topic) Messages() []hcs.Message {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.messages)
}

// Queries returns what the mirror nodes were asked for: "gt:0", "gte:8".
func (t *Topic) Queries() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.queries)
}

// Mirror returns a mirror node. change, if not nil, changes what it shows.
func (t *Topic) Mirror(change func([]hcs.Message) []hcs.Message) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/topics/"+t.ID.String()+"/messages", func(w http.ResponseWriter, r *http.Request) {
		shown := t.Messages()
		if change != nil {
			shown = change(shown)
		}
		query := r.URL.Query().Get("sequencenumber")
		t.mu.Lock()
		t.queries = append(t.queries, query)
		t.mu.Unlock()
		op, n, _ := strings.Cut(query, ":")
		from, err := strconv.ParseInt(n, 10, 64)
		if err != nil || op != "gt" && op != "gte" {
			http.Error(w, "query", http.StatusBadRequest)
			return
		}
		if op == "gte" {
			from--
		}
		shown = shown[min(max(from, 0), int64(len(shown))):]
		next := ""
		if len(shown) > PageMessages {
			shown = shown[:PageMessages]
			next = fmt.Sprintf("%s?limit=100&order=asc&sequencenumber=gt:%d", r.URL.Path, from+PageMessages)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(Page(next, shown...)) // the reader may have gone
	})
	return mux
}

// Page returns a page as a mirror node writes it; next is the path of the one that follows,
// empty if there is none.
func Page(next string, messages ...hcs.Message) []byte {
	type object = map[string]any
	rows := []object{}
	for _, m := range messages {
		rows = append(rows, object{
			"chunk_info":           object{"initial_transaction_id": object{"account_id": m.Payer.String(), "nonce": 0}, "number": 1, "total": 1},
			"consensus_timestamp":  fmt.Sprintf("%d.%09d", m.Time.Unix(), m.Time.Nanosecond()),
			"message":              base64.StdEncoding.EncodeToString(m.Data),
			"payer_account_id":     m.Payer.String(),
			"running_hash":         m.RunningHash.String(),
			"running_hash_version": 3,
			"sequence_number":      m.Sequence,
			"topic_id":             m.Topic.String(),
		})
	}
	links := object{"next": nil}
	if next != "" {
		links["next"] = next
	}
	b, err := json.Marshal(object{"links": links, "messages": rows})
	if err != nil {
		panic(err) // there is nothing in it that cannot be encoded
	}
	return b
}
