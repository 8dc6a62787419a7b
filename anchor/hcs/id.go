package hcs

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// EntityID names a topic or an account of the ledger.
type EntityID struct {
	Shard, Realm, Num int64
}

// ParseEntityID reads the form "shard.realm.num", in decimal without leading zeros.
func ParseEntityID(s string) (EntityID, error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return EntityID{}, fmt.Errorf("entity id %q is not of the form shard.realm.num", s)
	}
	var n [3]int64
	for i, p := range parts {
		var ok bool
		if n[i], ok = parseDecimal(p); !ok {
			return EntityID{}, fmt.Errorf("entity id %q is not of the form shard.realm.num", s)
		}
	}
	return EntityID{n[0], n[1], n[2]}, nil
}

// String returns "shard.realm.num".
func (e EntityID) String() string { return fmt.Sprintf("%d.%d.%d", e.Shard, e.Realm, e.Num) }

// parseTime reads a consensus timestamp: seconds since 1970, a point, nine digits of
// nanoseconds.
func parseTime(s string) (time.Time, error) {
	seconds, nanos, _ := strings.Cut(s, ".")
	sec, ok := parseDecimal(seconds)
	n, err := strconv.ParseUint(nanos, 10, 32)
	// Eleven digits reach the year 5138; more would not fit every use of a time.
	if !ok || err != nil || len(nanos) != 9 || len(seconds) > 11 {
		return time.Time{}, fmt.Errorf("consensus timestamp %q is not seconds.nanoseconds", s)
	}
	return time.Unix(sec, int64(n)).UTC(), nil
}

// parseDecimal reads a number in its one form.
func parseDecimal(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}
