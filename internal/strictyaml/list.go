package strictyaml

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Entry is a mapping that is an entry of a list: its keys, with what stands at
// them, in their order.
type Entry [][2]string

// Append puts entries at the end of the list at a top-level key, and Drop takes
// those away of which the key id has a value. Nothing else of the text changes,
// so that comments stay. Who calls them holds the new text against the old one:
// what is written in an unusual way comes back as it was, or wrong.
func Append(data []byte, key string, entries ...Entry) ([]byte, error) {
	lines, l, err := find(data, key)
	if err != nil {
		return nil, err
	}
	indent := "  "
	switch {
	case l.key == 0:
		if n := len(lines); n > 0 && !strings.HasSuffix(lines[n-1], "\n") {
			lines[n-1] += "\n"
		}
		lines = append(lines, "\n", key+":\n")
		l.last = len(lines)
	case len(l.entries) > 0:
		indent = strings.Repeat(" ", l.column-1)
	default:
		line := lines[l.key-1]
		if l.empty > 0 {
			line = strings.TrimRight(line[:l.column-1], " ") + line[l.column-1+l.empty:]
		}
		lines[l.key-1] = strings.TrimRight(line, "\r\n") + "\n"
	}
	if !strings.HasSuffix(lines[l.last-1], "\n") {
		lines[l.last-1] += "\n"
	}
	var text strings.Builder
	for _, entry := range entries {
		for i, field := range entry {
			fmt.Fprintf(&text, "%s%s%s: %s\n", indent, map[bool]string{true: "- ", false: "  "}[i == 0], field[0], field[1])
		}
	}
	return []byte(strings.Join(slices.Insert(lines, l.last, text.String()), "")), nil
}

// Drop is described at Append.
func Drop(data []byte, key, id, value string) ([]byte, error) {
	lines, l, err := find(data, key)
	if err != nil {
		return nil, err
	}
	for _, e := range l.entries {
		for i := 0; i+1 < len(e.Content); i += 2 {
			if e.Content[i].Value != id || e.Content[i+1].Value != value {
				continue
			}
			lines = slices.Delete(lines, e.Line-1, last(e))
			if len(l.entries) == 1 {
				line := lines[l.key-1]
				at := strings.Index(line, ":") + 1
				lines[l.key-1] = line[:at] + " []" + line[at:]
			}
			return []byte(strings.Join(lines, "")), nil
		}
	}
	return data, nil
}

// list is where a list stands in the text.
type list struct {
	key, last int // lines, from 1: of its key, or 0, and the last of its own
	column    int // of the entries' dashes, or of what says that there are none, from 1
	empty     int // how long that is: [] or null; 0: it is left out
	entries   []*yaml.Node
}

func find(data []byte, key string) (lines []string, l list, err error) {
	lines = slices.Collect(strings.Lines(string(data)))
	root, fault := parse(data)
	if fault != nil {
		return nil, l, fault
	}
	if root == nil {
		return lines, l, nil
	}
	for i := 0; root.Kind == yaml.MappingNode && i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		if k.Value != key {
			continue
		}
		empty := v.Kind == yaml.SequenceNode && len(v.Content) == 0 || v.Kind == yaml.ScalarNode && v.ShortTag() == "!!null"
		if !empty && (v.Kind != yaml.SequenceNode || v.Style&yaml.FlowStyle != 0) || root.Style&yaml.FlowStyle != 0 {
			return nil, l, fmt.Errorf("line %d: %s is not written as a list with a line that begins with - for each entry; write it so, and try again", k.Line, key)
		}
		l = list{key: k.Line, last: k.Line, column: v.Column}
		if !empty {
			l.entries, l.last = v.Content, last(v)
			return lines, l, nil
		}
		rest := ""
		if line := lines[k.Line-1]; v.Line == k.Line && v.Column <= len(line) {
			rest = line[v.Column-1:]
		}
		switch word := cmp.Or(v.Value, "["); {
		case v.Kind == yaml.ScalarNode && v.Value == "":
		case !strings.HasPrefix(rest, word), word == "[" && !strings.Contains(rest, "]"):
			return nil, l, fmt.Errorf("line %d: %s is empty in a way that can't be changed here; write %s: [] and try again", k.Line, key, key)
		case word == "[":
			l.empty = strings.Index(rest, "]") + 1
		default:
			l.empty = len(word)
		}
		return lines, l, nil
	}
	if root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 {
		return nil, l, errors.New("the file is not written as a line for each key")
	}
	return lines, l, nil
}

// last is the last line that a node has something in.
func last(n *yaml.Node) int {
	line := n.Line + strings.Count(n.Value, "\n")
	for _, c := range n.Content {
		line = max(line, last(c))
	}
	return line
}
