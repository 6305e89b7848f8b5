package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/telemetry"
)

// ignoredStatus is what status says of what lies in an inbox and is no folder.
type ignoredStatus struct {
	Inbox string `json:"inbox"`
	Name  string `json:"name"`
	Kind  string `json:"kind"` // file, link or special
}

// readIgnored names it, by inbox.
func readIgnored(cfg *config.Config) []ignoredStatus {
	list := []ignoredStatus{}
	for _, in := range cfg.Drops() {
		entries, _ := os.ReadDir(in.Path) // said with the place
		for _, e := range entries {
			if !e.IsDir() && !drop.Junk(e.Name()) && !drop.Temporary(e.Name()) {
				list = append(list, ignoredStatus{Inbox: in.Name, Name: meta.Show(e.Name()), Kind: drop.Kind(e.Type())})
			}
		}
	}
	slices.SortFunc(list, func(a, b ignoredStatus) int {
		return cmp.Or(cmp.Compare(a.Inbox, b.Inbox), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// printIgnored tells it, inbox by inbox.
func printIgnored(out io.Writer, list []ignoredStatus, all bool) {
	for len(list) > 0 {
		n := slices.IndexFunc(list, func(i ignoredStatus) bool { return i.Inbox != list[0].Inbox })
		if n < 0 {
			n = len(list)
		}
		fmt.Fprintf(out, "\nin %s, and left alone, since it is no folder; each submission has to be a folder of its own:\n", (&telemetry.Inbox{Name: list[0].Inbox}).Called())
		for i := range list[:n] {
			if i == shown && !all {
				fmt.Fprintf(out, "  and %d more; --all shows them\n", n-shown)
				break
			}
			fmt.Fprintf(out, "  %s (%s)\n", list[i].Name, list[i].Kind)
		}
		list = list[n:]
	}
}

// printReceipts tells which receipts can't be written.
func printReceipts(out io.Writer, list []telemetry.ReceiptTrouble) {
	for _, t := range list {
		fmt.Fprintf(out, "RECEIPTS of %s can't be written as they should be, since %s: %s. Folders go on; what is owed is written when that is mended\n",
			(&telemetry.Inbox{Name: t.Inbox}).Called(), t.Since.Local().Format(time.DateTime), meta.Show(t.Reason))
	}
}
