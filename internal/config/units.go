package config

import (
	"encoding"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration as written in the file, where a day (d) is one of
// 24 hours.
type Duration time.Duration

var _ encoding.TextUnmarshaler = (*Duration)(nil)

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	days, rest, found := strings.Cut(string(text), "d")
	if !found {
		days, rest = "0", string(text)
	} else if rest == "" {
		rest = "0"
	}
	n, err1 := strconv.ParseUint(days, 10, 16)
	v, err2 := time.ParseDuration(rest)
	total := time.Duration(n)*24*time.Hour + v // of 65,535 days and 290 years
	if err1 != nil || err2 != nil || v < 0 || total < 0 {
		return errors.New("has to be a duration such as 5s, 10m, 24h or 30d")
	}
	*d = Duration(total)
	return nil
}

// Size is a number of bytes as written in the file.
type Size int64

var units = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1},
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range units {
		number, ok := strings.CutSuffix(string(text), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > (1<<53)/u.factor {
			break
		}
		*s = Size(n * u.factor)
		return nil
	}
	return errors.New("has to be a size such as 20MB or 512KiB")
}
