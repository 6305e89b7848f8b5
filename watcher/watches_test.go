package watcher

import "testing"

// However many folders one inbox has, each other one gets its share, and all
// together never more than there are.
func TestWatches(t *testing.T) {
	for _, inboxes := range []int{1, 2, 7, 20, 100, 6000} {
		var all Watches
		all.change(inboxes, 0)
		own, total := make([]int, inboxes), 0
		take := func(n, most int) {
			for range most {
				if !all.take(own[n]) {
					return
				}
				own[n]++
				total++
			}
		}
		take(0, watchesAtOnce+1)
		if own[0] < watchesAtOnce-kept || inboxes == 1 && own[0] != watchesAtOnce {
			t.Errorf("%d inboxes: the first gets %d", inboxes, own[0])
		}
		for n := range own[1:] {
			take(n+1, watchesAtOnce)
			if least := kept / inboxes; own[n+1] < least {
				t.Errorf("%d inboxes: number %d gets %d, and its share is %d", inboxes, n+1, own[n+1], least)
			}
		}
		if total > watchesAtOnce || all.total != total {
			t.Errorf("%d inboxes: %d watched in all, counted %d", inboxes, total, all.total)
		}
		all.change(-1, -own[0])
		if inboxes > 1 && !all.take(own[1]) {
			t.Errorf("%d inboxes: what one gives back is not there for others", inboxes)
		}
	}
}
