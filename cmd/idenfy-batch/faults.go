//go:build faults

package main

import (
	"os"

	"idenfy-batch/internal/durable"
)

// A build with -tags faults can be told to leave syncs out: to show that the
// power-cut test finds the loss, and to measure what syncs cost. It is never
// released.
var _ = func() bool {
	skip := map[string]func(durable.Op) bool{
		"nosync": func(op durable.Op) bool {
			return op == durable.OpSyncDir || op == durable.OpSync || op == durable.OpBegin
		},
	}[os.Getenv("IDENFY_BATCH_FAULTS")]
	if skip != nil {
		durable.Inject(func(op durable.Op, _ string, do func() error) error {
			if skip(op) {
				return nil
			}
			return do()
		})
	}
	return skip != nil
}()
