// Package partner owns what a partner has on this machine, from the command that
// adds him to the one that removes him: an account that can do nothing but
// upload, the directory that it is shut into, with an inbox and receipts, and
// the entry in the configuration.
//
// Both commands may be given again after whatever stopped them: what is there,
// or gone, stays so.
package partner

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/strictyaml"
)

// Group is whom sshd shuts into their home directories, see docs/sftp.md.
const Group = "idenfy-partner"

// Partner is one who uploads.
type Partner struct {
	Name    string
	Keys    []byte // for SFTP, as in authorized_keys; nil: those that he has
	Account string // that uploads for him, and is there already; empty: one of his name
	// Defaults is what the configuration has for his inbox, by its keys.
	Defaults [][2]string
}

// Host is the machine.
type Host struct {
	Config string // the file
	Etc    string // /etc, but in tests
	// Run runs a program of the system as root.
	Run func(ctx context.Context, name string, args ...string) error
	// Home finds the home directory of an account; fs.ErrNotExist: there is none.
	Home func(account string) (string, error)
	// Reload has a running daemon read the configuration, and says what came of
	// it. An error: it refuses.
	Reload func(ctx context.Context) (string, error)
	// Busy says how many folders of an inbox are in work.
	Busy func(ctx context.Context, inbox string) (int, error)
	// Say tells of a step that was done.
	Say func(format string, args ...any)
}

// System is this machine, but for what it says and how the daemon is asked.
func System(path string) Host { return Host{Config: path, Etc: "/etc", Run: run, Home: home} }

func run(ctx context.Context, name string, args ...string) error {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} { // su leaves some of them out of PATH
		path := filepath.Join(dir, name)
		if unix.Access(path, unix.X_OK) != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, path, args...).CombinedOutput() //nolint:gosec // programs of the system, by names that stand in this package
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
		}
		return nil
	}
	return fmt.Errorf("%s is not installed", name)
}

func home(account string) (string, error) {
	u, err := user.Lookup(account)
	if _, none := errors.AsType[user.UnknownUserError](err); none {
		return "", fs.ErrNotExist
	}
	if err != nil {
		return "", err
	}
	return u.HomeDir, nil
}

var (
	nameRule    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	accountRule = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
)

func checkName(name string) error {
	if !nameRule.MatchString(name) || name == "inbox" {
		return fmt.Errorf("%q can't be the name of a partner: up to 31 of a-z, 0-9 and -, a letter first, and not inbox", name)
	}
	return nil
}

// place is where all of a partner is.
type place struct {
	name, dir, inbox, receipts string
	daemon, group              string // who has the inbox
	keys, tmpfiles             string
}

// find finds it out from the spool, as its directories are.
func (h *Host) find(c *config.Config, name string) (place, error) {
	dir := filepath.Join(c.Root, "partners", name)
	p := place{
		name: name, dir: dir, inbox: filepath.Join(dir, "inbox"), receipts: filepath.Join(dir, "receipts"),
		keys:     filepath.Join(h.Etc, "ssh", "idenfy-partners", name),
		tmpfiles: filepath.Join(h.Etc, "tmpfiles.d", filepath.Base(c.Root)+"."+name+".conf"),
	}
	inbox := filepath.Join(c.Root, "inbox")
	info, err := os.Stat(inbox)
	if err != nil {
		return p, fmt.Errorf("%w; its owner and group show whose inboxes are: make it as the package does (systemd-tmpfiles --create)", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return p, errors.ErrUnsupported
	}
	p.daemon, p.group = strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(p.daemon); err == nil {
		p.daemon = u.Username
	}
	if g, err := user.LookupGroupId(p.group); err == nil {
		p.group = g.Name
	}
	return p, nil
}

// Add gives a partner all that he needs.
func (h *Host) Add(ctx context.Context, p Partner) error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if bytes.Contains(p.Keys, []byte("PRIVATE KEY")) {
		return errors.New("that is a private key, which its owner should never give away; ask for the public one, which ends in .pub")
	}
	unlock, err := h.lock()
	if err != nil {
		return err
	}
	defer unlock()
	data, c, err := h.load()
	if err != nil {
		return err
	}
	at, err := h.find(&c, p.Name)
	if err != nil {
		return err
	}
	if err := at.entryIsHis(&c); err != nil {
		return err
	}
	if err := h.account(ctx, at, p); err != nil {
		return err
	}
	if err := h.directories(ctx, at, cmp.Or(p.Account, p.Name)); err != nil {
		return err
	}
	return h.enter(ctx, data, &c, at, p.Defaults)
}

func (at *place) entryIsHis(c *config.Config) error {
	if c.Paths.Inbox != "" {
		return errors.New("the configuration has paths.inbox, which goes with no other inbox; write it as an entry of inboxes: (name: inbox) first")
	}
	for _, i := range c.Inboxes {
		if i.Name == at.name && i.Path != at.inbox {
			return fmt.Errorf("the configuration has an inbox %s already, at %s; choose another name", i.Name, i.Path)
		}
	}
	return nil
}

// account makes the partner's, or takes the one that is named.
func (h *Host) account(ctx context.Context, at place, p Partner) error {
	if p.Account != "" {
		if !accountRule.MatchString(p.Account) {
			return fmt.Errorf("%q is no name of an account", p.Account)
		}
		if p.Keys != nil {
			return errors.New("a key is for an account of the partner's own; the one that is named has its own ways to log in")
		}
		if _, err := h.Home(p.Account); err != nil {
			return fmt.Errorf("the account %s: %w", p.Account, err)
		}
		if err := h.Run(ctx, "usermod", "--append", "--groups", at.group, p.Account); err != nil {
			return err
		}
		h.Say("account %s is in the group %s; what runs as it already has to be started again for that", p.Account, at.group)
		return nil
	}
	switch home, err := h.Home(p.Name); {
	case errors.Is(err, fs.ErrNotExist):
		err := h.Run(ctx, "useradd", "--no-create-home", "--home-dir", at.dir, "--shell", "/usr/sbin/nologin", "--gid", at.group, "--groups", Group,
			"--password", "*", "--comment", "partner of idenfy-batch", p.Name)
		if err != nil {
			return err
		}
	case err != nil:
		return err
	case home != at.dir:
		return fmt.Errorf("there is an account %s already, which is no partner's (its home is %s); choose another name, or let it upload with --account %s", p.Name, home, p.Name)
	}
	h.Say("account %s, which can upload and nothing else", p.Name)
	if p.Keys == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(at.keys), 0o755); err != nil {
		return err
	}
	if err := write(at.keys, p.Keys, 0o644); err != nil {
		return err
	}
	h.Say("key for SFTP: %s", at.keys)
	return nil
}

// directories has systemd make them, now and should they be missing at a boot.
// The upper one is root's, so that sshd takes it for a chroot; besides the
// daemon only the account gets into it, whoever else is in the inbox's group.
func (h *Host) directories(ctx context.Context, at place, account string) error {
	quote := func(path string) string { return strings.ReplaceAll(strconv.Quote(path), "%", "%%") }
	text := fmt.Sprintf(`# Partner %s of idenfy-batch, see sftp.md. Made by "idenfy-batch partner add".
d %s 0755 root root -
d %s 0750 root root -
a+ %s - - - - u:%s:r-x,u:%s:--x
d %s 2770 %s %s -
a+ %s - - - - default:user::rwx,default:group::rwx,default:other::---,default:mask::rwx
d %s 2750 %s %s -
`, at.name, quote(filepath.Dir(at.dir)), quote(at.dir), quote(at.dir), account, at.daemon, quote(at.inbox), at.daemon, at.group, quote(at.inbox), quote(at.receipts), at.daemon, at.group)
	if err := os.MkdirAll(filepath.Dir(at.tmpfiles), 0o755); err != nil {
		return err
	}
	if err := write(at.tmpfiles, []byte(text), 0o644); err != nil {
		return err
	}
	if err := h.Run(ctx, "systemd-tmpfiles", "--create", at.tmpfiles); err != nil {
		return err
	}
	h.Say("%s: inbox, receipts", at.dir)
	return nil
}

// enter puts the inbox into the configuration.
func (h *Host) enter(ctx context.Context, data []byte, c *config.Config, at place, defaults [][2]string) error {
	if slices.ContainsFunc(c.Inboxes, func(i config.Inbox) bool { return i.Name == at.name }) {
		h.Say("%s has inbox %s already, and keeps it as it is", h.Config, at.name)
		return h.reload(ctx)
	}
	entry := func(name, path string) strictyaml.Entry {
		return strictyaml.Entry{{"name", name}, {"path", strconv.Quote(path)}}
	}
	var entries []strictyaml.Entry
	if len(c.Inboxes) == 0 { // the one that there was goes on
		entries = append(entries, entry("inbox", c.Drops()[0].Path))
	}
	his := append(entry(at.name, at.inbox), [2]string{"receipts", strconv.Quote(at.receipts)})
	if len(defaults) > 0 {
		var fields []string
		for _, d := range defaults {
			fields = append(fields, d[0]+": "+strconv.Quote(d[1]))
		}
		his = append(his, [2]string{"defaults", "{" + strings.Join(fields, ", ") + "}"})
	}
	text, err := strictyaml.Append(data, "inboxes", append(entries, his)...)
	if err != nil {
		return h.byHand(err)
	}
	return h.change(ctx, data, text, func(now *config.Config) bool {
		return len(now.Inboxes) == len(c.Inboxes)+len(entries)+1 && now.Inboxes[len(now.Inboxes)-1].Path == at.inbox
	})
}

// byHand is for a file that is written in a way that is not understood here.
func (h *Host) byHand(err error) error { return fmt.Errorf("%s: %w", h.Config, err) }

// change brings a new text into force, or leaves the old one.
func (h *Host) change(ctx context.Context, old, text []byte, is func(*config.Config) bool) error {
	now, err := config.Parse(h.Config, text)
	if err != nil {
		return fmt.Errorf("the configuration would be wrong, and stays as it was:\n%w", err)
	}
	if !is(&now) {
		return h.byHand(errors.New("inboxes: is written in a way that can't be changed here; change it by hand"))
	}
	if err := h.replace(text); err != nil {
		return err
	}
	h.Say("%s: inboxes: %s", h.Config, names(&now))
	if err := h.reload(ctx); err != nil {
		return errors.Join(err, h.replace(old))
	}
	return nil
}

func names(c *config.Config) string {
	list := make([]string, 0, len(c.Inboxes))
	for _, i := range c.Inboxes {
		list = append(list, i.Name)
	}
	if len(list) == 0 {
		return "none but the one below root"
	}
	return strings.Join(list, ", ")
}

func (h *Host) reload(ctx context.Context) error {
	said, err := h.Reload(ctx)
	if err != nil {
		return fmt.Errorf("the daemon refuses the configuration, which stays as it was: %w", err)
	}
	h.Say("%s", said)
	return nil
}

// lock lets one change the configuration at a time.
func (h *Host) lock() (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(h.Config))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return func() { dir.Close() }, nil
}

func (h *Host) load() (data []byte, c config.Config, err error) {
	if data, err = os.ReadFile(h.Config); errors.Is(err, fs.ErrNotExist) {
		return nil, c, fmt.Errorf("%w; make the configuration first, an empty file will do", err)
	}
	if err == nil {
		c, err = config.Parse(h.Config, data)
	}
	return data, c, err
}

// replace writes the configuration, whose mode, owner and group stay.
func (h *Host) replace(text []byte) error {
	path, err := filepath.EvalSymlinks(h.Config)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.ErrUnsupported
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	// Of its group from the beginning: the daemon may read it by that alone.
	files := []durable.File{{Name: filepath.Base(path), Data: text, Group: int(st.Gid)}}
	if err := durable.ReplaceAll(dir, files, info.Mode().Perm()); err != nil {
		return err
	}
	if err := errors.Join(files[0].Err, files[0].GroupErr); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return dir.Lchown(files[0].Name, int(st.Uid), int(st.Gid))
	}
	return nil
}

func write(path string, data []byte, perm fs.FileMode) error {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return durable.WriteFile(dir, filepath.Base(path), data, perm)
}
