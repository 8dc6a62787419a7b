package pinning

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs-savepoint/ipfs-savepoint/dag"
)

func TestFilters(t *testing.T) {
	p := newPeer(t).start(Options{})
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	blocks := []dag.Block{dag.RawBlock([]byte("0")), dag.RawBlock([]byte("1"))}
	p.api.mu.Lock()
	for i, r := range []request{
		{ID: "a", Status: pinned, Pin: pin{Name: "Report.pdf", Meta: map[string]string{"app": "1", "x": "y"}}},
		{ID: "b", Status: failed, Pin: pin{Name: "report.pdf"}},
		{ID: "c", Status: pinned, Pin: pin{Name: "the report.pdf, old", Meta: map[string]string{"app": "2"}}},
		{ID: "d", Status: queued},
		{ID: "e", Status: pinned},
	} {
		r.Created, r.cid, r.notYet = start.Add(time.Duration(i)*time.Minute), blocks[i%2].CID, time.Now().Add(time.Hour)
		p.api.requests = append(p.api.requests, &r)
	}
	p.api.mu.Unlock()
	const every = "&status=queued,pinning,pinned,failed&limit=1000"
	for query, want := range map[string]string{
		"":                                      "e c a",
		"status=pinned":                         "e c a",
		"status=queued,failed":                  "d b",
		"status=queued&status=failed":           "d b",
		"limit=2":                               "e c",
		"x" + every:                             "e d c b a",
		"cid=" + blocks[1].CID.String() + every: "d b",
		"cid=" + aCID + every:                   "",
		"cid=" + aCID + "&cid=" + blocks[0].CID.String() + every:               "e c a",
		"name=report.pdf" + every:                                              "b",
		"name=report.pdf&match=exact" + every:                                  "b",
		"name=REPORT.pdf&match=iexact" + every:                                 "b a",
		"name=report&match=partial" + every:                                    "c b",
		"name=REPORT&match=ipartial" + every:                                   "c b a",
		"match=partial" + every:                                                "e d c b a",
		"before=2030-01-01T00:02:00Z" + every:                                  "b a",
		"after=2030-01-01T00:02:00Z" + every:                                   "e d",
		"after=2030-01-01T01:02:00%2B01:00" + every:                            "e d",
		"after=2030-01-01T00:00:00.5Z&before=2030-01-01T00:02:00.001Z" + every: "c b",
		"meta=" + url.QueryEscape(`{"app":"1"}`) + every:                       "a",
		"meta=" + url.QueryEscape(`{"app":"1","x":"z"}`) + every:               "",
		"meta=" + url.QueryEscape(`{}`) + every:                                "e d c b a",
	} {
		var list struct {
			Count   int         `json:"count"`
			Results []pinStatus `json:"results"`
		}
		p.call("GET", "/pins?"+query, "", &list)
		var got []string
		for _, r := range list.Results {
			got = append(got, r.RequestID)
		}
		all := strings.Fields(want)
		if !slices.Equal(got, all) || list.Results == nil {
			t.Errorf("%s: %v, not %v", query, got, all)
		}
		if query != "limit=2" && list.Count != len(all) || query == "limit=2" && list.Count != 3 {
			t.Errorf("%s: count %d", query, list.Count)
		}
	}
}

func FuzzDecodePin(f *testing.F) {
	for _, s := range []string{`{"cid":"` + aCID + `"}`, `{"cid":"` + aCID + `","name":"n","origins":["/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"],"meta":{"a":"b"}}`, `{"cid":""}`, `null`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, c, err := decodePin(bytes.NewReader(body))
		if err != nil {
			return
		}
		if dag.CheckCID(c) != nil || p.CID != c.String() || len(p.Origins) > maxOrigins {
			t.Fatalf("accepted: %+v", p)
		}
		// What is accepted is kept as it is, and accepted again.
		again, err := json.Marshal(p)
		must(t, err)
		q, d, err := decodePin(bytes.NewReader(again))
		if err != nil || d != c || q.Name != p.Name || !slices.Equal(q.Origins, p.Origins) || len(q.Meta) != len(p.Meta) {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{"", "cid=" + aCID, "status=pinned,failed&limit=7", "name=x&match=partial", "before=2030-01-01T00:00:00Z", `meta={"a":"b"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		flt, err := parseFilter(q)
		if err == nil && (flt.limit < 1 || flt.limit > maxLimit || len(flt.cids) > maxCIDs || len(flt.statuses) == 0) {
			t.Fatalf("%q: %+v", query, flt)
		}
		if err == nil {
			flt.matches(&request{Status: pinned})
		}
	})
}
