package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// syncs: the daemon beside itself with every sync left out. Once with uploads
// that are on the disk already, as after settle on a quiet machine, and once
// with uploads that are in memory only.
func (b *bench) syncs() error {
	n := b.pick(1000, 100)
	faulty, err := b.build("idenfy-batch-faults", "-tags", "faults")
	if err != nil {
		return err
	}
	url, stop, err := serve(&sink{})
	if err != nil {
		return err
	}
	defer stop()
	usual := b.bin
	defer func() { b.bin = usual }()
	b.bin = faulty
	for _, onDisk := range []bool{true, false} {
		kind := map[bool]string{true: "on the disk already", false: "in memory only"}[onDisk]
		fmt.Printf("syncs: %d folders of three images of %d bytes, %d at once, uploads %s\n", n, imageSize, inFlight, kind)
		var ratios []float64
		rates := map[string][]float64{}
		for pair := range b.pick(3, 1) {
			took := map[string]time.Duration{}
			for _, faults := range []string{"nosync", ""} {
				root, err := b.spool(fmt.Sprintf("syncs-%v-%d-%s", onDisk, pair, faults))
				if err != nil {
					return err
				}
				unix.Sync() // what ran before is nobody's time
				if err := fill(root, n, imageSize, map[string][]byte{".ready": nil}); err != nil {
					return err
				}
				if onDisk {
					unix.Sync()
				}
				if err := os.Setenv("IDENFY_BATCH_FAULTS", faults); err != nil {
					return err
				}
				if took[faults], _, err = b.drain(root, url, n); err != nil {
					return err
				}
				rates[faults] = append(rates[faults], float64(n)/took[faults].Seconds())
				if err := os.RemoveAll(root); err != nil {
					return err
				}
			}
			ratios = append(ratios, took["nosync"].Seconds()/took[""].Seconds())
		}
		fmt.Printf("  %-46s %8.1f folders/s\n  %-46s %8.1f folders/s\n  %-46s %8.2f (of %d pairs: %.2f)\n",
			"without syncs", median(rates["nosync"]), "as it is", median(rates[""]), "ratio", median(ratios), len(ratios), ratios)
	}
	return os.Unsetenv("IDENFY_BATCH_FAULTS")
}
