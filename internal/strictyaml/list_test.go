package strictyaml

import "testing"

func TestLists(t *testing.T) {
	a := Entry{{"name", "a"}, {"path", "/srv/a"}}
	b := Entry{{"name", "b"}, {"defaults", "{meta: optional}"}}
	for name, c := range map[string]struct{ from, with string }{
		"no key":                     {"root: /x\n", "root: /x\n\ninboxes:\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\n"},
		"no line break":              {"root: /x", "root: /x\n\ninboxes:\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\n"},
		"nothing":                    {"", "\ninboxes:\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\n"},
		"comments only":              {"# mine\n", "# mine\n\ninboxes:\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\n"},
		"empty":                      {"inboxes: []   # none yet\nroot: /x\n", "inboxes:   # none yet\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\nroot: /x\n"},
		"null":                       {"inboxes:\nroot: /x\n", "inboxes:\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\nroot: /x\n"},
		"null by its word":           {"inboxes: ~ # [] before\nroot: /x\n", "inboxes: # [] before\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\nroot: /x\n"},
		"empty, spaced":              {"inboxes: [ ]", "inboxes:\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\n"},
		"null, and [] is said of it": {"inboxes: # [] before\nroot: /x\n", "inboxes: # [] before\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\nroot: /x\n"},
		"null at the end":            {"inboxes:", "inboxes:\n  - name: a\n    path: /srv/a\n  - name: b\n    defaults: {meta: optional}\n"},
		"some": {
			"# one\ninboxes: # of all\n- name: z # old\n  defaults:\n    country: LT\n\n# two\nroot: /x\n",
			"# one\ninboxes: # of all\n- name: z # old\n  defaults:\n    country: LT\n- name: a\n  path: /srv/a\n- name: b\n  defaults: {meta: optional}\n\n# two\nroot: /x\n",
		},
		"at the end": {"inboxes:\n    - {name: z, path: /z}", "inboxes:\n    - {name: z, path: /z}\n    - name: a\n      path: /srv/a\n    - name: b\n      defaults: {meta: optional}\n"},
	} {
		got, err := Append([]byte(c.from), "inboxes", a, b)
		if err != nil || string(got) != c.with {
			t.Errorf("%s: %v\n%s", name, err, got)
			continue
		}
		for _, id := range []string{"a", "b", "none"} {
			if got, err = Drop(got, "inboxes", "name", id); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		var was, is struct {
			Root    string `yaml:"root"`
			Inboxes any    `yaml:"inboxes"`
		}
		_, _ = Decode([]byte(c.from), &was)
		if _, faults := Decode(got, &is); was.Root != is.Root || len(faults) > 1 { // it knows no lists of any kind
			t.Errorf("%s: %v\n%s", name, faults, got)
		}
		if name == "some" && string(got) != c.from {
			t.Errorf("%s: dropped, it is\n%s", name, got)
		}
	}
	got, err := Drop([]byte("inboxes: # ours\n  - name: a\n    path: /a\n# next\n"), "inboxes", "name", "a")
	if err != nil || string(got) != "inboxes: [] # ours\n# next\n" {
		t.Errorf("the last: %v\n%s", err, got)
	}
	for _, bad := range []string{"inboxes: [{name: z}]\n", "inboxes: {name: z}\n", "{inboxes: []}\n", "{root: /x}\n", "- x\n", "inboxes: [\n", "inboxes: [\n]\n", "inboxes:\n  []\n", "inboxes: &a []\n", "inboxes: 7\n"} {
		if got, err := Append([]byte(bad), "inboxes", a); err == nil {
			t.Errorf("%s becomes %s", bad, got)
		}
	}
}
