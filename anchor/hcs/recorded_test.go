package hcs_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"

	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs"
	"github.com/ipfs-savepoint/ipfs-savepoint/anchor/hcs/hcstest"
)

// recorded are answers of public mirror nodes as others have published them: the first
// in the ledger's documentation ("Query Messages with Mirror Node", testnet), the others
// in the test data of an explorer (mainnet; the last is one message of the topic).
var recorded = map[string]int{
	"0.0.4603900": 3,
	"0.0.5671138": 1,
	"0.0.5679050": 1,
}

func readRecorded(t testing.TB, topic string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "topic-"+topic+".json"))
	must(t, err)
	return b
}

// The running hash is what the ledger's nodes computed.
func TestRecordedTopics(t *testing.T) {
	k := newKey(t, "log.example/recorded")
	for name, n := range recorded {
		t.Run(name, func(t *testing.T) {
			body := readRecorded(t, name)
			messages, next, err := hcs.ParsePage(body)
			must(t, err)
			if len(messages) != n || next != "" {
				t.Fatalf("%d messages, next %q", len(messages), next)
			}
			var previous hcs.RunningHash
			for _, m := range messages {
				if got := m.Hash(previous); got != m.RunningHash {
					t.Fatalf("message %d: computed %v, recorded %v", m.Sequence, got, m.RunningHash)
				}
				previous = m.RunningHash
			}

			id, err := hcs.ParseEntityID(name)
			must(t, err)
			r, err := hcs.Read(context.Background(), k.policy, id, serve(t, fixed(body), fixed(body)), hcs.Options{})
			must(t, err)
			if last := messages[n-1]; r.Foreign != int64(n) || r.Last != last.Position || r.Agreed != last.Position || !r.LastTime.Equal(last.Time) {
				t.Fatalf("%+v", r)
			}
		})
	}
}

// Whatever byte is changed, with all mirrors at one: it is noticed, or it means nothing.
func TestEveryChangedByte(t *testing.T) {
	k := newKey(t, "log.example/recorded")
	body := readRecorded(t, "0.0.4603900")
	id := hcs.EntityID{Num: 4603900}
	current := bytes.Clone(body)
	urls := serve(t, (*changing)(&current), (*changing)(&current))
	read := func() (hcs.Report, error) {
		return hcs.Read(context.Background(), k.policy, id, urls, hcs.Options{})
	}
	want, err := read()
	must(t, err)

	// The bytes of all values that the running hash covers, and it.
	covered := map[int]bool{}
	values := regexp.MustCompile(`"(?:consensus_timestamp|message|payer_account_id|running_hash|running_hash_version|sequence_number|topic_id)": "?([^",\n]+)`)
	for _, at := range values.FindAllSubmatchIndex(body, -1) {
		for i := at[2]; i < at[3]; i++ {
			covered[i] = true
		}
	}
	if len(covered) < 3*(20+12+11+64+1+1+11) {
		t.Fatalf("%d bytes found", len(covered))
	}
	for i := range body {
		for _, flip := range []byte{0x01, 0x20, 0x80} {
			copy(current, body)
			current[i] ^= flip
			got, err := read()
			if err == nil && (covered[i] || !reflect.DeepEqual(got, want)) {
				t.Errorf("byte %d, %q changed to %q, goes unnoticed: %+v", i, body[i], current[i], got)
			}
		}
	}
}

// FuzzPage looks for pages that parse to something else than they say.
func FuzzPage(f *testing.F) {
	for name := range recorded {
		f.Add(readRecorded(f, name))
	}
	f.Add(hcstest.Page("/api/v1/topics/0.0.4711/messages?limit=100&order=asc&sequencenumber=gt:2", chatter(2)...))
	f.Fuzz(func(t *testing.T, body []byte) {
		messages, next, err := hcs.ParsePage(body)
		if err != nil {
			return
		}
		again, nextAgain, err := hcs.ParsePage(hcstest.Page(next, messages...))
		must(t, err)
		if nextAgain != next || len(again) != len(messages) || (len(again) > 0 && !reflect.DeepEqual(again, messages)) {
			t.Fatalf("%+v %q, and again %+v %q", messages, next, again, nextAgain)
		}
	})
}

// FuzzDecodeHead looks for messages that have a second form.
func FuzzDecodeHead(f *testing.F) {
	f.Add(message(f, newKey(f, "log.example/fuzz").head(f, 3, "")))
	f.Add([]byte(`{"p":"ipfs-savepoint","v":1,"cp":"a\"\\\n","root":"` + rootCID.String() + `"}`))
	f.Add([]byte("Message 1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		checkpoint, root, err := hcs.DecodeHead(data)
		if err != nil {
			wantError(t, err, hcs.ErrForeign)
			return
		}
		if again := message(t, head(checkpoint, root)); !bytes.Equal(again, data) {
			t.Fatalf("%q is encoded as %q", data, again)
		}
	})
}
