package partner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/strictyaml"
)

// Remove takes away all that Add gave, once no folder of the partner's is on its
// way. What ended stays where it is.
func (h *Host) Remove(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
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
	at, err := h.find(&c, name)
	if err != nil {
		return err
	}
	if err := at.entryIsHis(&c); err != nil {
		return err
	}
	home, err := h.Home(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	account, entry := home == at.dir, slices.ContainsFunc(c.Inboxes, func(i config.Inbox) bool { return i.Name == name })
	if _, err := os.Lstat(at.dir); errors.Is(err, fs.ErrNotExist) && !account && !entry {
		h.Say("there is no partner %s", name)
		return at.files()
	}
	if err := h.idle(ctx, at); err != nil {
		return err
	}
	// From here on nobody logs in any more, and so nothing comes.
	if err := remove(at.keys); err != nil {
		return err
	}
	if account {
		if err := h.Run(ctx, "userdel", name); err != nil {
			return fmt.Errorf("%w; end what still runs as %s (pkill -u %s), and give the command again", err, name, name)
		}
		h.Say("account %s is removed", name)
	}
	if err := h.idle(ctx, at); err != nil {
		return err
	}
	if entry {
		if err := h.leave(ctx, data, &c, at); err != nil {
			return err
		}
	}
	if err := at.files(); err != nil {
		return err
	}
	h.Say("%s is removed, with its receipts; what came in by it stays in done, failed and hold", at.dir)
	return nil
}

// idle refuses while a folder is on its way.
func (h *Host) idle(ctx context.Context, at place) error {
	entries, err := os.ReadDir(at.inbox)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if n := len(entries); n > 0 {
		var some []string
		for _, e := range entries[:min(n, 3)] {
			some = append(some, fmt.Sprintf("%q", e.Name()))
		}
		return fmt.Errorf("%d folders and files are in %s (%s, …); let them be taken, or move them away, and give the command again", n, at.inbox, strings.Join(some, ", "))
	}
	n, err := h.Busy(ctx, at.name)
	if err == nil && n > 0 {
		err = fmt.Errorf("%d folders of %s are in work, and may have to go back to the inbox; give the command again when they have ended (idenfy-batch status)", n, at.name)
	}
	return err
}

// leave takes the inbox out of the configuration.
func (h *Host) leave(ctx context.Context, data []byte, c *config.Config, at place) error {
	text, err := strictyaml.Drop(data, "inboxes", "name", at.name)
	if err != nil {
		return h.byHand(err)
	}
	return h.change(ctx, data, text, func(now *config.Config) bool {
		return len(now.Inboxes) == len(c.Inboxes)-1 && !slices.ContainsFunc(now.Inboxes, func(i config.Inbox) bool { return i.Name == at.name })
	})
}

// files removes the directories, and what would make them again.
func (at *place) files() error {
	if err := remove(at.inbox); err != nil { // only if it is empty
		return err
	}
	if err := os.RemoveAll(at.receipts); err != nil {
		return err
	}
	return errors.Join(remove(at.dir), remove(at.tmpfiles), remove(filepath.Clean(at.keys)))
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
