package strictyaml_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"idenfy-batch/internal/strictyaml"
)

type day struct{ time.Time }

func (d *day) UnmarshalText(text []byte) (err error) {
	d.Time, err = time.Parse(time.DateOnly, string(text))
	return err
}

type doc struct {
	Name  string   `yaml:"name"`
	Tags  []string `yaml:"tags"`
	Days  []day    `yaml:"days"`
	Grid  [][]int  `yaml:"grid"`
	Boxes []box    `yaml:"boxes"`
}

type box struct {
	Name string `yaml:"name"`
	Size *int   `yaml:"size"`
	In   struct {
		Path string `yaml:"path"`
		Open bool   `yaml:"open"`
	} `yaml:"in"`
	Boxes []box `yaml:"boxes"`
}

func TestLists(t *testing.T) {
	const text = `name: x
tags: [a, b]
days:
  - 2024-02-29
grid: [[1, 2], [], [3]]
boxes:
  - name: first
    size: 7
    in: {path: /a, open: true}
  - name: second
    boxes:
      - name: inner
`
	var got doc
	lines, faults := strictyaml.Decode([]byte(text), &got)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	want := doc{Name: "x", Tags: []string{"a", "b"}, Days: []day{{time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)}}, Grid: [][]int{{1, 2}, nil, {3}}}
	seven := 7
	first := box{Name: "first", Size: &seven}
	first.In.Path, first.In.Open = "/a", true
	want.Boxes = []box{first, {Name: "second", Boxes: []box{{Name: "inner"}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for key, line := range map[string]int{
		"boxes": 6, "boxes[0]": 7, "boxes[0].in.path": 9, "boxes[1].boxes[0].name": 12, "grid[2][0]": 5,
		"boxes[1].in.path": 10, "boxes[7].name": 6, "nothing": 0, "": 0,
	} {
		if got := lines.Near(key); got != line {
			t.Errorf("%s is near line %d, want %d", key, got, line)
		}
	}
}

// A list that is given takes the place of the one before; one that is not keeps it.
func TestListDefaults(t *testing.T) {
	for text, want := range map[string][]string{"": {"a"}, "tags:": {"a"}, "tags: null": {"a"}, "tags: []": nil, "tags: [b]": {"b"}} {
		got := doc{Tags: []string{"a"}}
		if _, faults := strictyaml.Decode([]byte(text), &got); len(faults) > 0 {
			t.Error(faults)
		}
		if diff := cmp.Diff(want, got.Tags); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

// All faults at once, each with its line and the path of its key.
func TestFaults(t *testing.T) {
	const text = `tags: {a: b}
days: [2024-02-29, 2024-02-30, [1]]
grid: [[1, two], 3, null]
boxes:
  - naam: first
    size: large
    in: {path: [a], open: maybe, pth: /a}
  -
  - just a word
  - &anchor {name: x}
  - {name: a, name: b}
  - - name: nested
  - {name: *anchor}
  - ~
  - boxes: none
`
	want := []string{
		"tags", "line 1: tags has to be a list (each entry after a dash, or [] for none), not keys with values",
		"days[1]", "line 2: days[1]: parsing time \"2024-02-30\": day out of range",
		"days[2]", "line 2: days[2] has to be a single value, not a list",
		"grid[0][1]", "line 3: grid[0][1] has to be a whole number",
		"grid[1]", "line 3: grid[1] has to be a list (each entry after a dash, or [] for none), not a single value",
		"grid[2]", "line 3: grid[2] is empty; write what belongs there, or take the dash out",
		"boxes[0].naam", `line 5: unknown key "boxes[0].naam"; did you mean "name"?`,
		"boxes[0].size", "line 6: boxes[0].size has to be a whole number",
		"boxes[0].in.path", "line 7: boxes[0].in.path has to be a single value, not a list",
		"boxes[0].in.open", "line 7: boxes[0].in.open has to be true or false",
		"boxes[0].in.pth", `line 7: unknown key "boxes[0].in.pth"; did you mean "path"?`,
		"boxes[1]", "line 8: boxes[1] is empty; write what belongs there, or take the dash out",
		"boxes[2]", "line 9: boxes[2] has to be keys with values (key: value), not a single value",
		"boxes[3]", "line 10: boxes[3]: anchors and aliases (& and *) are not supported; write the value out, in quotes if it begins with such a character",
		"boxes[4].name", "line 11: the key boxes[4].name is given twice",
		"boxes[5]", "line 12: boxes[5] has to be keys with values (key: value), not a list",
		"boxes[6].name", "line 13: boxes[6].name: anchors and aliases (& and *) are not supported; write the value out, in quotes if it begins with such a character",
		"boxes[7]", "line 14: boxes[7] is empty; write what belongs there, or take the dash out",
		"boxes[8].boxes", "line 15: boxes[8].boxes has to be a list (each entry after a dash, or [] for none), not a single value",
	}
	var d doc
	_, faults := strictyaml.Decode([]byte(text), &d)
	var got []string
	for _, f := range faults {
		got = append(got, f.Key, f.Error())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParent(t *testing.T) {
	for key, want := range map[string]string{"": "", "a": "", "a.b": "a", "a[0]": "a", "a[0].b": "a[0]", "a[0][1]": "a[0]"} {
		if got := strictyaml.Parent(key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

// Whatever the text, faults can be shown, and their lines are in it.
func FuzzDecode(f *testing.F) {
	f.Add("name: x\ntags: [a]\nboxes:\n  - {name: a, in: {path: b}}\n  -\n")
	f.Add("boxes: [[[]], {boxes: [{boxes: []}]}]\ngrid: [[1], [x]]\n")
	f.Add("boxes: &a [*a]\n? [a]\n: b\n<<: {name: x}\n")
	f.Add("a: b: c")
	f.Add("--- \n...\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		var d, again doc
		lines, faults := strictyaml.Decode([]byte(text), &d)
		most := strings.Count(text, "\n") + strings.Count(text, "\r") + strings.Count(text, "\u0085") + strings.Count(text, "\u2028") + strings.Count(text, "\u2029") + 1
		for _, fault := range faults {
			if fault.Message == "" || fault.Code == "" || fault.Line < 0 || fault.Line > most+1 {
				t.Errorf("%+v of %d lines", fault, most)
			}
			if utf8.ValidString(text) && !utf8.ValidString(fault.Error()) {
				t.Errorf("%q", fault.Error())
			}
			if len(lines) > 0 && fault.Key != "" && lines.Near(fault.Key) > most {
				t.Errorf("%s is near line %d of %d", fault.Key, lines.Near(fault.Key), most)
			}
		}
		_, more := strictyaml.Decode([]byte(text), &again)
		if !slices.Equal(faults, more) || !cmp.Equal(d, again) {
			t.Errorf("twice: %v, %v", faults, more)
		}
	})
}
