package partner_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/partner"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a machine that remembers what was run, and makes of tmpfiles the
// directories alone.
type host struct {
	partner.Host
	t      *testing.T
	root   string
	homes  map[string]string
	ran    []string
	said   []string
	fails  string // a program
	reload error
	busy   int
}

const comments = "# ours\nroot: %s # here\n\ninboxes: [] # none yet\n\n# the end\nconcurrency: 2\n"

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{t: t, root: filepath.Join(dir, "spool"), homes: map[string]string{"root": "/root", "sftpgo": "/var/lib/sftpgo"}}
	must(t, os.MkdirAll(filepath.Join(h.root, "inbox"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "etc/ssh"), 0o755))
	h.Config, h.Etc = filepath.Join(dir, "etc/config.yaml"), filepath.Join(dir, "etc")
	must(t, os.WriteFile(h.Config, fmt.Appendf(nil, comments, h.root), 0o640))
	h.Run, h.Home = h.runs, func(account string) (string, error) {
		if home, ok := h.homes[account]; ok {
			return home, nil
		}
		return "", fs.ErrNotExist
	}
	h.Reload = func(context.Context) (string, error) { return "reloaded", h.reload }
	h.Busy = func(context.Context, string) (int, error) { return h.busy, nil }
	h.Say = func(format string, args ...any) { h.said = append(h.said, fmt.Sprintf(format, args...)) }
	return h
}

func (h *host) runs(_ context.Context, name string, args ...string) error {
	h.ran = append(h.ran, name+" "+strings.Join(args, " "))
	if name == h.fails {
		return errors.New(name + " fails")
	}
	switch name {
	case "useradd":
		h.homes[args[len(args)-1]] = args[2]
	case "userdel":
		delete(h.homes, args[0])
	case "systemd-tmpfiles":
		text, err := os.ReadFile(args[1])
		must(h.t, err)
		for line := range strings.Lines(string(text)) {
			if path, ok := strings.CutPrefix(line, "d "); ok {
				path, _, _ = strings.Cut(path, `" `)
				must(h.t, os.MkdirAll(strings.Trim(path, `"`), 0o755))
			}
		}
	}
	return nil
}

func (h *host) text() string {
	h.t.Helper()
	data, err := os.ReadFile(h.Config)
	must(h.t, err)
	return string(data)
}

// What add makes, remove takes away; comments stay; both may be given again.
func TestAddRemove(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	one := partner.Partner{Name: "branch-1", Keys: []byte("ssh-ed25519 AAAA one\n")}
	scanner := partner.Partner{Name: "scanner-2", Defaults: [][2]string{{"country", "LT"}, {"documentType", "ID_CARD"}, {"clientId", "folder"}, {"meta", "optional"}}}
	for range 2 {
		must(t, h.Add(ctx, one))
		must(t, h.Add(ctx, scanner))
		must(t, h.Add(ctx, partner.Partner{Name: "other", Account: "sftpgo"}))
	}
	c, err := config.Load(h.Config)
	must(t, err)
	if got := names(&c); got != "inbox branch-1 scanner-2 other" || c.Inboxes[0].Path != filepath.Join(h.root, "inbox") || c.Inboxes[2].Defaults.Meta != "optional" {
		t.Errorf("%s:\n%s", got, h.text())
	}
	if text := h.text(); !strings.HasPrefix(text, "# ours\nroot: "+h.root+" # here\n\ninboxes: # none yet\n") || !strings.HasSuffix(text, "\n\n# the end\nconcurrency: 2\n") {
		t.Errorf("comments are lost:\n%s", text)
	}
	if info, err := os.Stat(h.Config); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode: %v %v", info.Mode(), err)
	}
	if key, err := os.ReadFile(filepath.Join(h.Etc, "ssh/idenfy-partners/branch-1")); err != nil || string(key) != string(one.Keys) {
		t.Errorf("the key: %q %v", key, err)
	}
	if ran := strings.Join(h.ran, "\n"); strings.Count(ran, "useradd") != 2 || strings.Contains(ran, "useradd sftpgo") || !strings.Contains(ran, "usermod --append --groups ") {
		t.Errorf("ran:\n%s", ran)
	}
	must(t, os.WriteFile(filepath.Join(h.root, "partners/branch-1/receipts/case-1.json"), nil, 0o600))
	for range 2 {
		for _, name := range []string{"branch-1", "scanner-2", "other"} {
			must(t, h.Remove(ctx, name))
		}
	}
	c, err = config.Load(h.Config)
	must(t, err)
	left, err := filepath.Glob(filepath.Join(h.Etc, "*/*"))
	must(t, err)
	partners, err := os.ReadDir(filepath.Join(h.root, "partners"))
	if names(&c) != "inbox" || len(h.homes) != 2 || len(left) != 1 || err != nil || len(partners) != 0 {
		t.Errorf("left: %s, %v, %v, %v\n%s", names(&c), h.homes, left, partners, h.text())
	}
}

// The daemon may read the configuration only as one of its group.
func TestGroupStays(t *testing.T) {
	groups, err := os.Getgroups()
	must(t, err)
	gid := append(groups, os.Getgid())[0]
	if os.Geteuid() == 0 {
		gid = 4711
	}
	h := newHost(t)
	must(t, os.Chown(h.Config, -1, gid))
	must(t, h.Add(t.Context(), partner.Partner{Name: "branch-1"}))
	info, err := os.Stat(h.Config)
	must(t, err)
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Gid) != gid || info.Mode().Perm() != 0o640 {
		t.Errorf("%+v, and not of group %d", info.Sys(), gid)
	}
}

func names(c *config.Config) string {
	var list []string
	for _, i := range c.Inboxes {
		list = append(list, i.Name)
	}
	return strings.Join(list, " ")
}

// What is refused changes nothing, or may be gone on with.
func TestRefused(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	h.homes["mail"] = "/var/mail"
	add := func(says string, p partner.Partner) {
		t.Helper()
		before := h.text()
		if err := h.Add(ctx, p); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, and not %s", p, err, says)
		}
		if h.text() != before {
			t.Errorf("%+v: the configuration is changed:\n%s", p, h.text())
		}
	}
	add("can't be the name", partner.Partner{Name: "../x"})
	add("can't be the name", partner.Partner{Name: "inbox"})
	add("can't be the name", partner.Partner{Name: "-r"})
	add("which is no partner's", partner.Partner{Name: "mail"})
	add("the account nobody-here", partner.Partner{Name: "x", Account: "nobody-here"})
	add("a private key", partner.Partner{Name: "x", Keys: []byte("-----BEGIN OPENSSH PRIVATE KEY-----")})
	add("defaults.country", partner.Partner{Name: "x", Defaults: [][2]string{{"country", "Lithuania"}}})
	h.reload = errors.New("not on one mount")
	add("not on one mount", partner.Partner{Name: "x"})
	h.reload, h.fails = nil, "systemd-tmpfiles"
	add("systemd-tmpfiles fails", partner.Partner{Name: "x"})
	h.fails = ""
	must(t, h.Add(ctx, partner.Partner{Name: "x"}))

	remove := func(says string) {
		t.Helper()
		before := h.text()
		if err := h.Remove(ctx, "x"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, and not %s", err, says)
		}
		if h.text() != before {
			t.Errorf("%s: the configuration is changed:\n%s", says, h.text())
		}
	}
	inbox := filepath.Join(h.root, "partners/x/inbox")
	must(t, os.Mkdir(filepath.Join(inbox, "case-7"), 0o700))
	remove(`1 folders and files are in ` + inbox)
	if _, ok := h.homes["x"]; !ok {
		t.Error("the account is gone")
	}
	must(t, os.Remove(filepath.Join(inbox, "case-7")))
	h.busy = 2
	remove("2 folders of x are in work")
	h.busy, h.fails = 0, "userdel"
	remove("end what still runs as x")
	h.fails, h.reload = "", errors.New("no")
	remove("the daemon refuses")
	h.reload = nil
	must(t, h.Remove(ctx, "x"))
	must(t, os.WriteFile(h.Config, []byte("root: "+h.root+"\ninboxes: [{name: a, path: /srv/a}]\n"), 0o600))
	add("is not written as a list", partner.Partner{Name: "x"})
	must(t, os.WriteFile(h.Config, []byte("root: "+h.root+"\ninboxes:\n  - {name: x, path: /srv/x}\n"), 0o600))
	add("has an inbox x already", partner.Partner{Name: "x"})
	remove("has an inbox x already")
	must(t, os.WriteFile(h.Config, []byte("root: "+h.root+"\npaths: {inbox: /srv/x}\n"), 0o600))
	add("paths.inbox", partner.Partner{Name: "x"})
	must(t, os.Remove(h.Config))
	if err := h.Add(ctx, partner.Partner{Name: "x"}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
