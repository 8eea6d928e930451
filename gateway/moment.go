package gateway

import (
	"strconv"
	"strings"
	"time"
)

// ParseMoment reads a day, a time, or how long ago it was: 2026-01-31, 2026-01-31T12:00:00Z, 30d, 12h. Those without a
// zone are in that of now.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.DateTime, time.RFC3339} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	ago, err := time.ParseDuration(text)
	if days, is := strings.CutSuffix(text, "d"); is {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		ago = time.Duration(n) * 24 * time.Hour //nolint:gosec // of 16 bits
	}
	if err != nil || ago <= 0 {
		return time.Time{}, Invalid("not a time: %.100q", text).WithHint("2026-01-31 is one, 2026-01-31T12:00:00Z too, and 30d is 30 days ago.")
	}
	return now.Add(-ago), nil
}
