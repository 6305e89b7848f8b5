package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
)

// ten is how many folders come into the inbox that has few.
const ten = 10

// answerTime is what a request takes.
const answerTime = 100 * time.Millisecond

// fairness: tens of thousands of whole folders in one inbox, and how long ten in
// another one wait from being complete to the start of their request: one by one
// while the many are looked at for the first time, all at once after that, and
// likewise where they are complete by having been quiet.
func (b *bench) fairness() (err error) {
	many := b.pick(50_000, 1_000)
	fmt.Printf("fairness: %d folders in one inbox, and %d that come into another; each request takes %s\n", many, ten, answerTime)
	root, err := b.spool("fairness")
	if err != nil {
		return err
	}
	full, few, made := filepath.Join(root, "inbox"), filepath.Join(root, "few"), filepath.Join(root, "made")
	if err := errors.Join(os.Mkdir(few, 0o770), os.Mkdir(made, 0o770), crowd(full, many)); err != nil {
		return err
	}
	unix.Sync() // writing these back is nobody's time
	seen := &arrivals{at: map[string]time.Time{}}
	url, stop, err := serve(seen)
	if err != nil {
		return err
	}
	defer stop()
	const settle = time.Second
	d, err := b.start(root, url, fmt.Sprintf("concurrency: 4\ncompleteness: {settle: %s}\ninboxes:\n  - {name: many, path: %s}\n  - {name: few, path: %s}", settle, full, few))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := until("the first of the many", time.Minute, func() bool { return seen.count() > 0 }); err != nil {
		return err
	}
	for _, part := range []struct {
		name   string
		marker bool
		gap    time.Duration // between two; 0: all at once
	}{
		{"one by one, with a marker", true, 200 * time.Millisecond},
		{"all at once, with a marker", true, 0},
		{"one by one, by their quiet", false, 200 * time.Millisecond},
		{"all at once, by their quiet", false, 0},
	} {
		took, err := seen.come(made, few, part.marker, part.gap, settle)
		if err != nil {
			return err
		}
		if err := within(part.name+", median", median(took), 2, "s"); err != nil {
			return err
		}
		fmt.Printf("  %-46s %8.1f s\n", "most of these", slices.Max(took))
	}
	left := d.count("inbox")
	fmt.Printf("  %-46s %8d\n", "of the many are left", left)
	if left == 0 {
		return errors.New("there was nobody to be fair to")
	}
	return nil
}

// crowd makes n whole folders with a marker.
func crowd(inbox string, n int) error {
	front, face := sample.Front(), sample.Face()
	for i := range n {
		if err := sample.Write(filepath.Join(inbox, fmt.Sprintf("many%06d", i)), map[string][]byte{
			"FRONT.jpg": front, "FACE.jpg": face, "meta.yaml": []byte(sample.Meta(token(i), "LT", "PASSPORT")), ".ready": nil,
		}); err != nil {
			return err
		}
	}
	return nil
}

// arrivals is a server that knows when the request of each folder of the few
// began.
type arrivals struct {
	mu  sync.Mutex
	at  map[string]time.Time
	n   int
	few int // so far
}

var itsToken = regexp.MustCompile(`FAIR[0-9]{20}`)

func (s *arrivals) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	data, err := io.ReadAll(r.Body)
	s.mu.Lock()
	s.n++
	if token := itsToken.Find(data); err == nil && token != nil {
		s.at[string(token)] = begin
	}
	s.mu.Unlock()
	time.Sleep(answerTime)
}

func (s *arrivals) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// come has ten folders come, and returns how many seconds each waited once it
// was complete.
func (s *arrivals) come(made, inbox string, marker bool, gap, settle time.Duration) ([]float64, error) {
	complete := map[string]time.Time{}
	for range ten {
		s.few++
		token, name := fmt.Sprintf("FAIR%020d", s.few), fmt.Sprintf("few%06d", s.few)
		files := map[string][]byte{"FRONT.jpg": sample.Front(), "FACE.jpg": sample.Face(), "meta.yaml": []byte(sample.Meta(token, "LT", "PASSPORT"))}
		if marker {
			files[".ready"] = nil
		}
		if err := errors.Join(sample.Write(filepath.Join(made, name), files), os.Rename(filepath.Join(made, name), filepath.Join(inbox, name))); err != nil {
			return nil, err
		}
		if complete[token] = time.Now(); !marker {
			complete[token] = complete[token].Add(settle)
		}
		time.Sleep(gap)
	}
	var took []float64
	err := until("all of the few are sent", time.Minute, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		took = took[:0]
		for token, at := range complete {
			if began, sent := s.at[token]; sent {
				took = append(took, began.Sub(at).Seconds())
			}
		}
		return len(took) == ten
	})
	return took, err
}
