package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"idenfy-batch/internal/journal"
)

// chart is a drawing: places and widths in percent of its width, so that it fits
// any, heights in pixels, and text in the size of the page's. All numbers in it
// are in a table below it.
type chart struct {
	ID          string
	Title, Desc string
	Height      int
	Keys        []key // what the colours mean
	Lines       []line
	Boxes       []box
	Texts       []text
}

type key struct{ Colour, Name string }

type line struct {
	Y     int
	Label string
}

type box struct {
	X, W   string // percent
	Y, H   string // pixels
	Colour string
	Title  string
}

type text struct {
	X      string // percent
	Y      int
	Anchor string // start, middle or end
	Text   string
}

func percent(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + "%" }
func pixels(v float64) string  { return strconv.FormatFloat(v, 'f', 1, 64) }

// column is one of a chart of columns: parts stand on each other.
type column struct {
	Label, Title string
	Parts        []int
}

// Of charts of columns, in pixels: the room above the highest, for the columns, and for their labels; and for how many
// there is room at least.
const (
	above, room, below = 16, 160, 22
	fewest             = 8
)

// columns draws columns side by side, all as wide as there is room.
func columns(id, title, desc string, keys []key, list []column, labels int) *chart {
	c := &chart{ID: id, Title: title, Desc: desc, Height: above + room + below, Keys: keys}
	most := 1
	for _, col := range list {
		most = max(most, whole(col.Parts))
	}
	top := nice(most)
	for _, part := range []int{top, top / 2, 0} {
		c.Lines = append(c.Lines, line{above + room - room*part/top, number(part)})
	}
	if top == 1 {
		c.Lines = slices.Delete(c.Lines, 1, 2)
	}
	width := 100 / float64(max(len(list), fewest))
	every := (len(list) + labels - 1) / labels
	for i, col := range list {
		x, y := float64(i)*width, float64(above+room)
		for k, n := range col.Parts {
			if n == 0 {
				continue
			}
			h := max(float64(n)*room/float64(top), 1)
			y -= h
			c.Boxes = append(c.Boxes, box{percent(x + width*0.1), percent(width * 0.8), pixels(y), pixels(h), keys[k].Colour, col.Title + ", " + keys[k].Name + ": " + number(n)})
		}
		if i%every == 0 {
			c.Texts = append(c.Texts, label(x+width/2, len(list), col.Label))
		}
	}
	return c
}

// label puts the text of a column below it, and not beyond the edges.
func label(x float64, of int, s string) text {
	t := text{percent(x), above + room + 16, "middle", s}
	if of > 6 && x < 12 {
		t.X, t.Anchor = "0%", "start"
	} else if of > 6 && x > 88 {
		t.X, t.Anchor = "100%", "end"
	}
	return t
}

func whole(parts []int) (n int) {
	for _, p := range parts {
		n += p
	}
	return n
}

// nice is a round number that is not less.
func nice(n int) int {
	for step := 1; ; step *= 10 {
		for _, m := range []int{1, 2, 4, 6, 10} {
			if n <= m*step {
				return m * step
			}
		}
	}
}

// bar is one of a chart of bars.
type bar struct {
	Label, Colour string
	N             int
}

// Of charts of bars: how high one is, with its label above it; and how many there are.
const (
	barHeight = 38
	mostBars  = 12
	mostLabel = 34 // characters
)

// bars draws bars below each other, each with its label and number above it.
func bars(id, title, desc string, list []bar) *chart {
	if len(list) > mostBars {
		rest := bar{Label: fmt.Sprintf("%d others", len(list)-mostBars+1), Colour: "grey"}
		for _, b := range list[mostBars-1:] {
			rest.N += b.N
		}
		list = append(slices.Clone(list[:mostBars-1]), rest)
	}
	c := &chart{ID: id, Title: title, Desc: desc, Height: max(barHeight*len(list), 1)}
	most, sum := 1, 0
	for _, b := range list {
		most, sum = max(most, b.N), sum+b.N
	}
	for i, b := range list {
		y := i * barHeight
		name := b.Label
		if utf8.RuneCountInString(name) > mostLabel {
			name = string([]rune(name)[:mostLabel-1]) + "…"
		}
		c.Texts = append(c.Texts, text{"0%", y + 15, "start", name}, text{"100%", y + 15, "end", number(b.N)})
		c.Boxes = append(c.Boxes, box{"0%", "100%", pixels(float64(y + 21)), "8", "track", ""})
		if b.N > 0 {
			c.Boxes = append(c.Boxes, box{"0%", percent(max(100*float64(b.N)/float64(most), 0.3)), pixels(float64(y + 21)), "8", b.Colour, b.Label + ": " + number(b.N)})
		}
	}
	return c
}

// colours of words that are known; others get one of the rest.
var colours = map[string]string{
	"accepted": "green", "rejected": "red", "invalid": "purple", "incomplete": "brown", "gave_up": "pink", "unknown": "amber", "pending": "blue",
	"APPROVED": "green", "DENIED": "red", "SUSPECTED": "amber", "REVIEWING": "purple", "ACTIVE": "purple", "EXPIRED": "brown", Waiting: "blue", NotFinal: "purple", None: "grey",
	"inbox": "blue", "work": "purple", "done": "green", "failed": "red", "hold": "amber",
}

func colour(word string) string { return cmp.Or(colours[word], "pink") }

// said is a word as it is told on a page.
func said(word string) string {
	switch word {
	case "gave_up":
		return "given up"
	case "unknown":
		return "unknown (hold)"
	case Waiting:
		return "waiting for it"
	case NotFinal:
		return "not final"
	case None:
		return "none"
	default:
		return show(word)
	}
}

func barsOf(list []Sum) (all []bar) {
	for _, s := range list {
		all = append(all, bar{said(s.Name), colour(s.Name), s.Folders})
	}
	return all
}

// mostColumns is how many columns still can be told apart on a narrow screen.
const mostColumns = 92

// byDay draws groups by their days, or, where these are too many, by weeks or
// months; by is which of their counts, in the order of words.
func byDay(id, title string, days []Group, words []Sum, by func(*Group) map[string]int) *chart {
	keys := make([]key, 0, len(words))
	for _, w := range words {
		keys = append(keys, key{colour(w.Name), said(w.Name)})
	}
	list, unit := columnsOf(days, words, by)
	return columns(id, title, fmt.Sprintf("Columns: folders by %s, divided by what became of them. The table of days below has the numbers.", unit), keys, list, 4)
}

func columnsOf(days []Group, words []Sum, by func(*Group) map[string]int) (list []column, unit string) {
	first := slices.IndexFunc(days, func(g Group) bool { return g.Day != "" })
	if first < 0 {
		return nil, "day"
	}
	begin, end := dayOf(days[first].Day), dayOf(days[len(days)-1].Day)
	unit, layout, next := "day", "2 Jan", func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }
	switch n := int(end.Sub(begin).Hours()/24) + 1; {
	case n > 7*mostColumns:
		begin = begin.AddDate(0, 0, 1-begin.Day())
		unit, layout, next = "month", "Jan 2006", func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }
	case n > mostColumns:
		unit, layout, next = "week", "Jan 2006", func(t time.Time) time.Time { return t.AddDate(0, 0, 7) }
	}
	days = days[first:]
	for t := begin; !t.After(end) && len(list) < 1000; t = next(t) {
		day, until := t.Format(time.DateOnly), next(t).Format(time.DateOnly)
		c := column{Label: t.Format(layout), Title: day, Parts: make([]int, len(words))}
		if unit != "day" {
			c.Title = unit + " from " + day
		}
		for len(days) > 0 && days[0].Day < until {
			for i, w := range words {
				c.Parts[i] += by(&days[0])[w.Name]
			}
			days = days[1:]
		}
		list = append(list, c)
	}
	return list, unit
}

func dayOf(s string) time.Time {
	t, _ := time.Parse(time.DateOnly, s) // it was written so
	return t
}

func ofOutcomes(g *Group) map[string]int { return g.Outcomes }
func ofVerdicts(g *Group) map[string]int { return g.Verdicts }

// ofWaits draws how long something took.
func ofWaits(id, title string, w *Waits) *chart {
	var list []bar
	for _, b := range w.Bars {
		name := "longer"
		if b.UpTo > 0 {
			name = "up to " + Span(b.UpTo)
		}
		list = append(list, bar{name, "blue", b.Folders})
	}
	return bars(id, title, "Bars: how many folders waited how long. The table below has the numbers.", list)
}

func ofReasons(list []Reason) *chart {
	all := make([]bar, 0, len(list))
	for _, r := range list {
		all = append(all, bar{show(r.Code), "purple", r.Folders})
	}
	return bars("reasons", "Reasons", "Bars: how many folders had each reason. The table below has the numbers.", all)
}

// ofHours draws the hours of today, of which n have begun.
func ofHours(hours []journal.Hour, begin time.Time, n int) *chart {
	sum := map[string]int{}
	for _, h := range hours {
		sum[string(h.Outcome)] += h.Lives
	}
	words := sums(sum, outcomes, nil)
	keys, at := make([]key, 0, len(words)), map[string]int{}
	for i, w := range words {
		keys, at[w.Name] = append(keys, key{colour(w.Name), said(w.Name)}), i
	}
	list := make([]column, n)
	for i := range list {
		t := begin.Add(time.Duration(i) * time.Hour)
		list[i] = column{t.Format("15:04"), "from " + t.Format("15:04"), make([]int, len(words))}
	}
	for _, h := range hours {
		if h.N >= 0 && h.N < n {
			list[h.N].Parts[at[string(h.Outcome)]] += h.Lives
		}
	}
	return columns("hours", "Today, by hour", "Columns: submissions by the hour in which they were begun, divided by what became of them so far.", keys, list, 6)
}

// number is one with its thousands apart.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
