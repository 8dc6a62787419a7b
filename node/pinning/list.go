package pinning

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

const (
	defaultLimit = 10
	maxLimit     = 1000
	maxCIDs      = 10
)

// filter is what a list is asked for.
type filter struct {
	cids          []cid.Cid
	name          func(string) bool
	statuses      []status
	before, after time.Time
	limit         int
	meta          map[string]string
}

// parseFilter reads the query of a list. The error wraps errBad.
func parseFilter(q url.Values) (filter, error) {
	f := filter{limit: defaultLimit, statuses: []status{pinned}, name: func(string) bool { return true }}
	for _, read := range []func(url.Values) error{f.readCIDs, f.readName, f.readStatuses, f.readTimes, f.readRest} {
		if err := read(q); err != nil {
			return f, fmt.Errorf("%w: %w", errBad, err)
		}
	}
	return f, nil
}

// values are those of a parameter that may be repeated; some clients send one value
// with commas.
func values(q url.Values, key string) []string {
	var out []string
	for _, v := range q[key] {
		out = append(out, strings.Split(v, ",")...)
	}
	return out
}

func (f *filter) readCIDs(q url.Values) error {
	for _, text := range values(q, "cid") {
		c, err := cid.Decode(text)
		if err != nil {
			return fmt.Errorf("cid %.100q: %w", text, err)
		}
		f.cids = append(f.cids, c)
	}
	if len(f.cids) > maxCIDs {
		return fmt.Errorf("%d CIDs, more than %d", len(f.cids), maxCIDs)
	}
	return nil
}

func (f *filter) readName(q url.Values) error {
	name := q.Get("name")
	if n := utf8.RuneCountInString(name); n > maxName {
		return fmt.Errorf("a name of %d characters, more than %d", n, maxName)
	}
	lower := strings.ToLower(name)
	var match func(string) bool
	switch how := q.Get("match"); how {
	case "", "exact":
		match = func(s string) bool { return s == name }
	case "iexact":
		match = func(s string) bool { return strings.ToLower(s) == lower }
	case "partial":
		match = func(s string) bool { return strings.Contains(s, name) }
	case "ipartial":
		match = func(s string) bool { return strings.Contains(strings.ToLower(s), lower) }
	default:
		return fmt.Errorf("match %.100q is not exact, iexact, partial or ipartial", how)
	}
	if name != "" {
		f.name = match
	}
	return nil
}

func (f *filter) readStatuses(q url.Values) error {
	if !q.Has("status") {
		return nil
	}
	f.statuses = nil
	for _, text := range values(q, "status") {
		s := status(text)
		if !s.valid() {
			return fmt.Errorf("status %.100q is not queued, pinning, pinned or failed", text)
		}
		f.statuses = append(f.statuses, s)
	}
	return nil
}

func (f *filter) readTimes(q url.Values) error {
	for key, to := range map[string]*time.Time{"before": &f.before, "after": &f.after} {
		text := q.Get(key)
		if text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		*to = t
	}
	return nil
}

func (f *filter) readRest(q url.Values) error {
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return fmt.Errorf("limit %.100q is not a number from 1 to %d", text, maxLimit)
		}
		f.limit = n
	}
	if text := q.Get("meta"); text != "" {
		if err := json.Unmarshal([]byte(text), &f.meta); err != nil {
			return fmt.Errorf("meta: %w", err)
		}
	}
	return nil
}

func (f *filter) matches(r *request) bool {
	if len(f.cids) > 0 && !slices.Contains(f.cids, r.cid) ||
		!slices.Contains(f.statuses, r.Status) || !f.name(r.Pin.Name) ||
		!f.before.IsZero() && !r.Created.Before(f.before) ||
		!f.after.IsZero() && !r.Created.After(f.after) {
		return false
	}
	for key, value := range f.meta {
		if got, ok := r.Pin.Meta[key]; !ok || got != value {
			return false
		}
	}
	return true
}
