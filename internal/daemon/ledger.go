package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
)

// Files beside the journal.
const (
	CheckpointName = "checkpoint" // the newest signed checkpoint of the ledger
	keyName        = "ledger.key"
)

const (
	signEvery     = time.Minute // of a ledger in which something was entered
	maxCheckpoint = 128 << 10   // bytes
)

// notary signs the checkpoints of the ledger, in a running daemon. Commands
// that work with the journal while none runs enter and don't sign: the next
// start does.
type notary struct {
	dir     string // the journal's
	journal *journal.Journal
	key     *ledger.Key
	emit    events.Sink
	signed  int64 // entries that the checkpoint covers
}

// newNotary holds the ledger against its own checkpoint: a journal that
// doesn't go on from it is a *journal.UnfitError.
func newNotary(ctx context.Context, cfg *config.Config, j *journal.Journal, emit events.Sink) (*notary, error) {
	n := &notary{dir: Journal(cfg).Dir, journal: j, emit: emit}
	var err error
	if n.key, err = ledgerKey(cfg, n.dir, ledger.Origin(j.ID())); err != nil {
		return nil, &ConfigError{err}
	}
	_, err = n.resume(ctx)
	return n, err
}

// ledgerKey returns the key that the configuration names, or the daemon's own,
// which is made when it is missing: nothing is signed before it is on the disk.
func ledgerKey(cfg *config.Config, dir, origin string) (*ledger.Key, error) {
	own := filepath.Join(dir, keyName)
	text, from, err := cfg.LedgerKey(own)
	if err != nil {
		return nil, err
	}
	if text == "" {
		from = own
		if text, err = ledger.NewKey(origin); err != nil {
			return nil, err
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		if err := durable.WriteFile(root, keyName, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("the ledger's key could not be made: %w", err)
		}
	}
	key, err := ledger.ParseKey([]byte(text), origin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return key, nil
}

// CheckLedgerKey says what is wrong with the ledger's key. One that is still to
// be made is fine.
func CheckLedgerKey(cfg *config.Config) error {
	text, from, err := cfg.LedgerKey(filepath.Join(Journal(cfg).Dir, keyName))
	if err != nil || text == "" {
		return err
	}
	if _, err := ledger.ParseKey([]byte(text), ledger.Origin("")); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// resume reads the newest checkpoint, and returns the ledger as it is, if it
// goes on from there.
func (n *notary) resume(ctx context.Context) (ledger.Present, error) {
	root, err := os.OpenRoot(n.dir)
	if err != nil {
		return ledger.Present{}, err
	}
	defer root.Close()
	n.signed = 0
	was, readErr := drop.ReadFile(root, CheckpointName, maxCheckpoint)
	present, err := n.journal.Ledger(ctx) // after the file, which it has to cover
	switch {
	case err != nil:
		return present, err
	case errors.Is(readErr, fs.ErrNotExist):
		return present, nil
	case readErr != nil && !errors.Is(readErr, drop.ErrNotPlain):
		return present, readErr
	case readErr != nil:
		return present, n.setAside(root, readErr)
	}
	relation, c, err := ledger.Compare(was, n.key.Verifier(), present)
	switch {
	case errors.Is(err, ledger.ErrForm), errors.Is(err, ledger.ErrSignature):
		return present, n.setAside(root, err)
	case err != nil:
		return present, err
	}
	switch relation {
	case ledger.Same, ledger.Grown:
		n.signed = c.N
		return present, nil
	case ledger.Rekeyed: // the entry of this start says so, too
		n.emit(events.Trouble{What: "the ledger goes on with another key", Err: errors.New(string(relation))})
		return present, nil
	case ledger.Other:
		return present, n.setAside(root, errors.New(string(relation)))
	case ledger.CutOff:
		return present, &journal.UnfitError{Why: fmt.Sprintf("the journal is behind its own checkpoint: its ledger has %d entries, and had at least %d%s", present.Tree.N, c.N, mendLedger)}
	default:
		return present, &journal.UnfitError{Why: fmt.Sprintf("the ledger in the journal does not go on from its own checkpoint of %d entries: %s%s", c.N, relation, mendLedger)}
	}
}

const mendLedger = "; see what differs with idenfy-batch ledger verify, then bring the newest journal back, or make a new one from the folders and their results with idenfy-batch adopt"

// setAside keeps a checkpoint that tells nothing about this ledger.
func (n *notary) setAside(root *os.Root, why error) error {
	name, err := aside(root)
	if err != nil {
		return err
	}
	n.emit(events.Trouble{What: "the ledger's checkpoint was set aside as " + filepath.Join(n.dir, name), Err: why})
	return nil
}

// aside gives the checkpoint in the journal's directory another name.
func aside(root *os.Root) (name string, err error) {
	d, err := root.Open(".")
	if err != nil {
		return "", err
	}
	defer d.Close()
	name = CheckpointName + ".aside-" + rand.Text()[:8]
	return name, durable.Rename(d, CheckpointName, d, name)
}

// otherLedger keeps the checkpoint of a journal that was replaced.
func otherLedger(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err = aside(root); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// sign writes a checkpoint of what was entered since the last one. What does
// not go on from that is never signed: it would prove a wrong history.
func (n *notary) sign(ctx context.Context) error {
	present, err := n.journal.Ledger(ctx)
	if err != nil || present.Tree.N == n.signed || present.Tree.N == 0 {
		return err
	}
	if present, err = n.resume(ctx); err != nil {
		return err
	}
	note, err := n.key.Sign(present.Tree)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(n.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := durable.WriteFile(root, CheckpointName, note, 0o640); err != nil {
		return err
	}
	n.signed = present.Tree.N
	return nil
}

// trySign is sign, which is tried again a minute later when it fails.
func (n *notary) trySign(ctx context.Context) {
	if err := n.sign(ctx); err != nil && ctx.Err() == nil {
		n.emit(events.Trouble{What: "the ledger's checkpoint was not written", Err: err})
	}
}

// run signs each minute until ctx ends.
func (n *notary) run(ctx context.Context) {
	tick := time.NewTicker(signEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.trySign(ctx)
		}
	}
}
