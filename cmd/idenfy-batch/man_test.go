package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"idenfy-batch/internal/config"
)

var update = flag.Bool("update", false, "write the man pages anew")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every command has a help text with an example.
func TestHelp(t *testing.T) {
	all := newRoot().Commands()
	for _, c := range all {
		all = append(all, subCommands(c)...)
	}
	for _, c := range all {
		if c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s has no text or no example", c.Name())
		}
	}
}

// The man pages are made of the help texts and of the comments at the fields
// of the configuration. This test fails when they differ; -update writes them.
func TestManPages(t *testing.T) {
	for name, text := range map[string]string{"idenfy-batch.1": commandsPage(), "idenfy-batch.yaml.5": configPage(t)} {
		path := filepath.Join("../../docs/man", name)
		if *update {
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			must(t, os.WriteFile(path, []byte(text), 0o644))
		}
		if there, err := os.ReadFile(path); err != nil || string(there) != text {
			t.Errorf("%s is not what the code says (%v); write it anew: go test ./cmd/idenfy-batch -run TestManPages -update", path, err)
		}
	}
}

// roff is a man page in the making, see man(7).
type roff struct{ strings.Builder }

var special = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "…", "...")

func (r *roff) title(name, section string) {
	fmt.Fprintf(r, ".\\\" Made from the program's own texts; see CONTRIBUTING.md.\n.TH %s %s \"\" idenfy\\-batch\n", special.Replace(strings.ToUpper(name)), section)
}

func (r *roff) section(s string)    { fmt.Fprintf(r, ".SH %s\n", strings.ToUpper(s)) }
func (r *roff) subsection(s string) { fmt.Fprintf(r, ".SS %s\n", special.Replace(s)) }

// line writes text that must not be taken for a request.
func (r *roff) line(s string) {
	s = special.Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	r.WriteString(s + "\n")
}

// text writes paragraphs; what is indented stays as it is.
func (r *roff) text(s string) {
	verbatim := false
	set := func(v bool) {
		if v != verbatim {
			r.WriteString(map[bool]string{true: ".PP\n.nf\n.RS\n", false: ".RE\n.fi\n.PP\n"}[v])
		}
		verbatim = v
	}
	for line := range strings.Lines(strings.TrimRight(s, "\n") + "\n") {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			if !verbatim {
				r.WriteString(".PP\n")
			}
		case strings.HasPrefix(line, "  "):
			set(true)
			r.line(strings.TrimPrefix(line, "  "))
		default:
			set(false)
			r.line(line)
		}
	}
	set(false)
}

// term writes a term and what it means.
func (r *roff) term(term, text string) {
	fmt.Fprintf(r, ".TP\n.B %s\n", special.Replace(term))
	r.line(text)
}

func commandsPage() string {
	var r roff
	root := newRoot()
	r.title("idenfy-batch", "1")
	r.section("name")
	r.line("idenfy-batch - " + strings.ToLower(root.Short[:1]) + root.Short[1:])
	r.section("synopsis")
	r.WriteString(".B idenfy\\-batch\n.I command\n.RI [ options ]\n")
	r.section("description")
	r.text(root.Long)
	flags(&r, root)
	r.section("commands")
	var commands []*cobra.Command
	for _, c := range root.Commands() {
		commands = append(append(commands, c), subCommands(c)...)
	}
	for _, c := range commands {
		if c.Name() == "help" || c.Hidden {
			continue
		}
		r.subsection(strings.TrimSuffix(c.CommandPath(), c.Name()) + c.Use)
		if c.Name() == "completion" {
			r.line("Print a script that completes commands, flags and folder names: for bash, zsh, fish or powershell.")
			continue
		}
		text := c.Long
		if text == "" {
			text = c.Short + "."
		}
		r.text(text)
		flags(&r, c)
		r.WriteString(".PP\nExamples:\n")
		r.text(c.Example)
	}
	r.section("exit status")
	r.term("0", "Fine.")
	r.term("1", "It failed: the message says what and why.")
	r.term("2", "The command line is wrong.")
	r.term("78", "The configuration is wrong, or the spool is not as it has to be. systemd does not start the service again on it.")
	r.section("environment")
	r.term("CREDENTIALS_DIRECTORY", "Set by systemd, see LoadCredential= in systemd.exec(5): holds idenfy-api-key and idenfy-api-secret, and idenfy-batch-ledger-key if that is given.")
	r.term("IDENFY_API_KEY, IDENFY_API_SECRET", "The credentials, where neither files nor systemd give them.")
	r.term("HTTPS_PROXY, NO_PROXY", "A proxy, and what is not to go through it.")
	r.section("files")
	r.term(defaultConfig, "The configuration, see idenfy-batch.yaml(5).")
	r.term(configDir+"/NAME.yaml, "+configDir+"/NAME/", "The configuration and the credentials of an instance, idenfy-batch@NAME.service.")
	r.term("/etc/idenfy-batch/api-key, /etc/idenfy-batch/api-secret", "The credentials of the service, readable by root only.")
	r.term(config.Default().Root, "The spool: inbox, work, done, failed, hold.")
	r.term(config.Default().Root+"/journal", "The daemon's memory: journal.db; checkpoint, the newest of its ledger; ledger.key, which signs them.")
	r.term("result.json", "In each folder that was taken: what happened to it. Its schema comes with the package.")
	r.section("see also")
	r.line("idenfy-batch.yaml(5), systemd.exec(5), sftp-server(8)")
	return r.String()
}

// subCommands are those of ours.
func subCommands(c *cobra.Command) []*cobra.Command {
	if c.Name() == "completion" {
		return nil
	}
	return c.Commands()
}

func flags(r *roff, c *cobra.Command) {
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if kind != "" {
			name += " " + kind
		}
		if !strings.HasPrefix(usage, "iDenfy") {
			usage = strings.ToUpper(usage[:1]) + usage[1:]
		}
		r.term(name, usage+".")
	})
}

// configPage documents each field of the configuration by its comment.
func configPage(t *testing.T) string {
	t.Helper()
	file, err := parser.ParseFile(gotoken.NewFileSet(), "../../internal/config/config.go", nil, parser.ParseComments)
	must(t, err)
	structs := map[string]*ast.StructType{}
	docs := map[string]string{}
	for _, decl := range file.Decls {
		if g, ok := decl.(*ast.GenDecl); ok {
			for _, spec := range g.Specs {
				if ts, ok := spec.(*ast.TypeSpec); ok {
					docs[ts.Name.Name] = g.Doc.Text()
					if st, ok := ts.Type.(*ast.StructType); ok {
						structs[ts.Name.Name] = st
					}
				}
			}
		}
	}
	// Comments speak of fields by their names in the code.
	keys := map[string]string{}
	collect(reflect.TypeFor[config.Config](), keys)
	word := regexp.MustCompile(`\b[A-Z][A-Za-z]+\b`)
	plain := func(text string) string {
		text = strings.Join(strings.Fields(text), " ")
		return word.ReplaceAllStringFunc(text, func(w string) string {
			if key, ok := keys[w]; ok && w != "API" {
				return key
			}
			return w
		})
	}
	var r roff
	r.title("idenfy-batch.yaml", "5")
	r.section("name")
	r.line("idenfy-batch.yaml - configuration of idenfy-batch")
	r.section("description")
	r.line(defaultConfig + " is one YAML file. Every key is optional; unknown keys are errors, and all errors are reported at once.")
	r.line("Durations are written as 5s, 10m, 24h or 30d, sizes as 20MB (million bytes) or 20MiB.")
	r.line("idenfy-batch check says what is wrong with it; systemctl reload idenfy-batch brings a new one into force, but for root and paths.")
	r.section("keys")
	var walk func(name, prefix string, v reflect.Value)
	walk = func(name, prefix string, v reflect.Value) {
		for i, f := range structs[name].Fields.List {
			key := prefix + v.Type().Field(i).Tag.Get("yaml")
			kind, list := f.Type, false
			switch t := f.Type.(type) {
			case *ast.StarExpr:
				kind = t.X
			case *ast.ArrayType:
				kind, list = t.Elt, true
			}
			name := kind.(*ast.Ident).Name
			if structs[name] != nil && !list {
				walk(name, key+".", v.Field(i))
				continue
			}
			text := f.Doc.Text()
			value := fmt.Sprint(v.Field(i).Interface())
			if d, ok := reflect.TypeAssert[config.Duration](v.Field(i)); ok {
				value = short(time.Duration(d))
			}
			if s, ok := reflect.TypeAssert[config.Size](v.Field(i)); ok && s != 0 {
				value = fmt.Sprintf("%dMB", s/1_000_000)
			}
			if value == "" || v.Field(i).IsZero() && (list || v.Field(i).Kind() == reflect.Pointer) {
				value = "empty"
			}
			if list {
				r.term(key, plain(text))
				walk(name, key+"[].", reflect.Zero(v.Field(i).Type().Elem()))
				continue
			}
			r.term(key, plain(text)+" Default: "+value+".")
		}
	}
	walk("Config", "", reflect.ValueOf(config.Default()))
	r.section("see also")
	r.line("idenfy-batch(1)")
	return r.String()
}

func collect(t reflect.Type, keys map[string]string) {
	for f := range t.Fields() {
		keys[f.Name] = f.Tag.Get("yaml")
		switch f.Type.Kind() {
		case reflect.Struct:
			collect(f.Type, keys)
		case reflect.Slice:
			collect(f.Type.Elem(), keys)
		}
	}
}

// short writes a duration without its zero parts.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 3*day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := d.String()
	for _, zero := range []string{"0s", "0m"} {
		if t := strings.TrimSuffix(s, zero); t != s && strings.TrimRight(t, "hm") != t {
			s = t
		}
	}
	return s
}
