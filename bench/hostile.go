package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/hostile"
	"idenfy-batch/internal/sandbox"
)

// hostile: two hundred good folders by themselves, and among all that an
// uploader can do. They lie there when the daemon starts.
func (b *bench) hostile() error {
	n := b.pick(200, 50)
	fmt.Printf("hostile: %d folders of three images of 100000 bytes, by themselves and among hostile ones\n", n)
	var without, with, ratios, costs []float64
	hostiles := 0
	for i := range b.pick(7, 1) {
		took, cpu := map[bool]float64{}, map[bool]float64{}
		for _, others := range []bool{i%2 == 1, i%2 == 0} { // by turns first: what came before costs the next
			unix.Sync() // likewise
			end, used, made, err := b.among(fmt.Sprintf("hostile%d-%v", i, others), n, others)
			if err != nil {
				return err
			}
			took[others], cpu[others], hostiles = end.Seconds(), used.Seconds(), max(hostiles, made)
		}
		without, with, ratios, costs = append(without, took[false]), append(with, took[true]), append(ratios, took[true]/took[false]), append(costs, cpu[true]/cpu[false])
	}
	fmt.Printf("  %-46s %8.2f s\n  %-46s %8.2f s\n", "by themselves, from the start to the last in done", median(without), fmt.Sprintf("among %d hostile ones", hostiles), median(with))
	if b.quick {
		fmt.Printf("  %-46s %8.2f\n", "ratio", median(ratios))
		return nil
	}
	fmt.Printf("  %-46s %.2f\n", "ratios", ratios)
	fmt.Printf("  %-46s %8.2f (of %d pairs: %.2f)\n", "the same of the daemon's processor time", median(costs), len(costs), costs)
	return ratio("ratio of times, with to without", median(ratios), 1.2)
}

// ratio is within, to two places.
func ratio(what string, got, limit float64) error {
	verdict, err := "within", error(nil)
	if got > limit {
		verdict, err = "OVER", fmt.Errorf("%s: %.2f is over the limit of %.2f", what, got, limit)
	}
	fmt.Printf("  %-46s %8.2f, %s the limit of %.2f\n", what, got, verdict, limit)
	return err
}

// among has the daemon serve n good folders, and returns how long that took, how
// much of its processor time, and among how many hostile ones.
func (b *bench) among(name string, n int, others bool) (took, cpu time.Duration, hostiles int, err error) {
	root, err := b.spool(name)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	s := sandbox.New(sandbox.Options{Key: "key", Secret: "secret"})
	url, stop, err := s.Start()
	if err != nil {
		return 0, 0, 0, err
	}
	defer stop()
	if others {
		yard, err := hostile.NewYard(filepath.Join(root, "inbox"), filepath.Join(root, "yard"), os.Getgid())
		if err != nil {
			return 0, 0, 0, err
		}
		defer func() { err = errors.Join(err, yard.Close(root)) }()
		// Root's bench uploads as somebody else, who has to get there.
		if err := errors.Join(os.Chmod(b.dir, 0o711), os.Chmod(root, 0o755), os.Chmod(filepath.Join(root, "inbox"), os.ModeSetgid|0o777)); err != nil {
			return 0, 0, 0, err
		}
		made, err := yard.Make(yard.Cases())
		if err != nil {
			return 0, 0, 0, err
		}
		hostiles = len(made)
		s.Decide(yard.Treat())
		yard.Begin()
		defer yard.Stop()
	}
	if err := fill(root, n, 100_000, nil); err != nil {
		return 0, 0, 0, err
	}
	begin := time.Now()
	d, err := b.start(root, url, "completeness: {settle: 1s}\nshutdown_grace: 1s")
	if err != nil {
		return 0, 0, 0, err
	}
	good := regexp.MustCompile(`^case\d{5}$`)
	err = until("all good ones in done", 5*time.Minute, func() bool {
		names, err := os.ReadDir(filepath.Join(root, "done"))
		return err == nil && len(names) >= n && len(slices.DeleteFunc(names, func(e os.DirEntry) bool { return !good.MatchString(e.Name()) })) == n
	})
	took = time.Since(begin)
	if err == nil {
		cpu, err = d.cpu()
	}
	for i := range n {
		if seen := s.Token(token(i)); err == nil && (seen.Requests != 1 || seen.Processed != 1) {
			err = fmt.Errorf("folder %d: %d requests, %d times processed", i, seen.Requests, seen.Processed)
		}
	}
	return took, cpu, hostiles, errors.Join(err, d.stop())
}
