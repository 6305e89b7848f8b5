package batch

import (
	"time"

	"golang.org/x/time/rate"
)

// Limiter returns a limiter for perHour requests an hour and burst on top, so
// that no hour sees more than their sum. perHour 0 is no limit.
//
// What was sent within the last hour, by earlier runs, is taken from the
// burst, so that restarts don't add up.
func Limiter(perHour, burst, sent int) *rate.Limiter {
	l := rate.NewLimiter(Limit(perHour), burst)
	if perHour != 0 {
		l.AllowN(time.Now(), min(burst, sent))
	}
	return l
}

// Limit is perHour requests an hour; 0: no limit.
func Limit(perHour int) rate.Limit {
	if perHour == 0 {
		return rate.Inf
	}
	return rate.Limit(float64(perHour) / 3600)
}
