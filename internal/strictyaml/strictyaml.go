// Package strictyaml owns reading a small YAML mapping strictly: into a
// struct, with every fault found at once, each with its line and, for a
// misspelt key, a suggestion.
//
// Anchors and aliases are refused, so the cost is linear in the input.
package strictyaml

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The codes of faults.
const (
	Syntax       = "yaml_syntax"
	NotAMapping  = "not_a_mapping"
	UnknownKey   = "unknown_key"
	DuplicateKey = "duplicate_key"
	WrongType    = "wrong_type"
	BadValue     = "bad_value"
	Alias        = "alias"
)

// Fault is one thing that is wrong. Its message never holds a value, which
// may be a secret, only keys.
type Fault struct {
	Code    string
	Key     string // path, such as inboxes[1].path; empty for the whole document
	Line    int    // from 1; 0 where there is none
	Message string // without the line
}

func (f Fault) Error() string {
	if f.Line == 0 {
		return f.Message
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Message)
}

// Lines tells the line of each key and list entry that was found, by its path,
// such as api.timeout or inboxes[1].path.
type Lines map[string]int

// Near returns the line of key, or, where it is not given, of what it would
// belong to; 0: of nothing.
func (l Lines) Near(key string) int {
	for ; key != ""; key = Parent(key) {
		if line := l[key]; line > 0 {
			return line
		}
	}
	return 0
}

// Parent returns the path of what key belongs to; empty: the document.
func Parent(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// Decode reads one YAML document into the struct that into points to. Fields
// are named by their yaml tags, and may be strings, bools, ints, structs,
// slices of these, pointers to these (nil means: not given) and
// encoding.TextUnmarshalers.
// What is not given, or null, keeps its value. An empty document is a mapping
// without keys.
func Decode(data []byte, into any) (Lines, []Fault) {
	d := &decoder{lines: Lines{}}
	root, fault := parse(data)
	if fault != nil {
		return d.lines, []Fault{*fault}
	}
	if root != nil {
		d.structure(root, "", reflect.ValueOf(into).Elem())
	}
	return d.lines, d.faults
}

func parse(data []byte) (*yaml.Node, *Fault) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err == nil {
		err = dec.Decode(&second)
		if err == nil {
			return nil, &Fault{Code: Syntax, Line: second.Line, Message: "a second document begins here; there may be only one"}
		}
		if errors.Is(err, io.EOF) {
			return doc.Content[0], nil
		}
	}
	return nil, syntaxFault(err)
}

const noAlias = "anchors and aliases (& and *) are not supported; write the value out, in quotes if it begins with such a character"

// syntaxFault takes the line out of the parser's message, and whatever of the
// text it quotes.
func syntaxFault(err error) *Fault {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	f := &Fault{Code: Syntax}
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if n, rest, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(n); err == nil {
				f.Line, msg = line, rest
			}
		}
	}
	if strings.HasPrefix(msg, "unknown anchor") {
		f.Code, msg = Alias, noAlias
	}
	f.Message = "not valid YAML: " + msg
	return f
}

type decoder struct {
	lines  Lines
	faults []Fault
}

func (d *decoder) fault(code, key string, n *yaml.Node, format string, args ...any) {
	d.faults = append(d.faults, Fault{Code: code, Key: key, Line: n.Line, Message: fmt.Sprintf(format, args...)})
}

func (d *decoder) structure(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		what := "the document"
		if path != "" {
			what = path
		}
		d.fault(NotAMapping, path, n, "%s has to be keys with values (key: value), not %s", what, kind(n))
		return
	}
	fields := map[string]reflect.Value{}
	var names []string
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		fields[name] = v.Field(i)
		names = append(names, name)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.fault(UnknownKey, path, key, "a key has to be a plain word, not %s", kind(key))
			continue
		}
		full := join(path, key.Value)
		field, ok := fields[key.Value]
		switch {
		case !ok:
			d.fault(UnknownKey, full, key, "unknown key %s%s", show(full), suggest(key.Value, names))
			continue
		case seen[key.Value]:
			d.fault(DuplicateKey, full, key, "the key %s is given twice", full)
			continue
		}
		seen[key.Value] = true
		d.lines[full] = key.Line
		d.value(value, full, field)
	}
}

func (d *decoder) value(n *yaml.Node, path string, v reflect.Value) {
	switch {
	case n.Anchor != "" || n.Kind == yaml.AliasNode:
		d.fault(Alias, path, n, "%s: %s", path, noAlias)
		return
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, path, v.Elem())
		return
	}
	text, isText := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	if v.Kind() == reflect.Struct && !isText {
		d.structure(n, path, v)
		return
	}
	if v.Kind() == reflect.Slice && !isText {
		d.list(n, path, v)
		return
	}
	if n.Kind != yaml.ScalarNode {
		d.fault(WrongType, path, n, "%s has to be a single value, not %s", path, kind(n))
		return
	}
	switch {
	case isText:
		if err := text.UnmarshalText([]byte(n.Value)); err != nil {
			d.fault(BadValue, path, n, "%s: %v", path, err)
		}
	case v.Kind() == reflect.String:
		v.SetString(n.Value)
	case v.Kind() == reflect.Bool:
		var b bool
		if n.ShortTag() != "!!bool" || n.Decode(&b) != nil {
			d.fault(WrongType, path, n, "%s has to be true or false", path)
			return
		}
		v.SetBool(b)
	default:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil {
			d.fault(WrongType, path, n, "%s has to be a whole number", path)
			return
		}
		v.SetInt(i)
	}
}

// list reads the entries of a list. An empty one is nil.
func (d *decoder) list(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.fault(WrongType, path, n, "%s has to be a list (each entry after a dash, or [] for none), not %s", path, kind(n))
		return
	}
	v.SetZero()
	for i, entry := range n.Content {
		full := fmt.Sprintf("%s[%d]", path, i)
		d.lines[full] = entry.Line
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		if entry.Kind == yaml.ScalarNode && entry.ShortTag() == "!!null" && entry.Anchor == "" {
			d.fault(WrongType, full, entry, "%s is empty; write what belongs there, or take the dash out", full)
			continue
		}
		d.value(entry, full, v.Index(i))
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	default:
		return "a single value"
	}
}

// show quotes a key that came from outside, and shortens it: a line without
// its colon makes a key of a whole text.
func show(key string) string {
	const most = 40
	if r := []rune(key); len(r) > most {
		key = string(r[:most]) + "…"
	}
	return strconv.Quote(key)
}

func suggest(key string, names []string) string {
	best, distance := "", max(2, len(key)/3)+1
	for _, name := range names {
		d := levenshtein(strings.ToLower(key), strings.ToLower(name))
		if len(key) > 2 && strings.HasPrefix(strings.ToLower(name), strings.ToLower(key)) {
			d = 1 // its beginning, as in key for key_file
		}
		if d < distance {
			best, distance = name, d
		}
	}
	if best == "" {
		return "; the keys are " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// levenshtein counts the single-byte edits from a to b. Keys that are far too
// long for any name are not compared.
func levenshtein(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
