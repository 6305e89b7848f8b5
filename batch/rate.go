package batch

import (
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Limiter returns a limiter for perHour requests an hour and burst on top, so
// that no hour sees more than their sum. perHour 0 is no limit.
//
// What earlier runs have sent within the last hour, as their results tell, is
// taken from the burst, so that restarts don't add up.
func Limiter(perHour, burst int, s *spool.Spool) *rate.Limiter {
	if perHour == 0 {
		return rate.NewLimiter(rate.Inf, burst)
	}
	now := time.Now()
	limiter := rate.NewLimiter(rate.Limit(float64(perHour)/3600), burst)
	limiter.AllowN(now, min(burst, sent(s, now.Add(-time.Hour), burst)))
	return limiter
}

// sent counts the attempts since then, up to enough. A folder's ctime is that
// of its last move, or of the last write in it, so older ones need not be
// opened.
func sent(s *spool.Spool, since time.Time, enough int) int {
	n := 0
	for _, p := range []spool.Place{spool.Work, spool.Done, spool.Failed, spool.Hold} {
		names, err := s.List(p)
		if err != nil {
			continue // it would have stopped the start
		}
		for _, name := range names {
			info, err := os.Lstat(filepath.Join(s.Path(p), name))
			if err != nil {
				continue
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok && time.Unix(st.Ctim.Unix()).Before(since) {
				continue
			}
			n += attemptsSince(s.Path(p), name, since)
			if n >= enough {
				return n
			}
		}
	}
	return n
}

func attemptsSince(dir, name string, since time.Time) int {
	parent, err := os.OpenRoot(dir)
	if err != nil {
		return 0
	}
	defer parent.Close()
	root, err := drop.Open(parent, name)
	if err != nil {
		return 0
	}
	defer root.Close()
	res, err := sidecar.Read(root)
	if err != nil {
		return 0
	}
	n := 0
	for _, a := range res.Attempts {
		if a.State != sidecar.NotSent && a.Started.After(since) {
			n++
		}
	}
	return n
}
