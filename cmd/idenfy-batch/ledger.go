package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func newLedger() *cobra.Command {
	c := &cobra.Command{
		Use:   "ledger",
		Short: "Prove what became of folders, and that nothing was altered since",
		Long: `The ledger is the part of the journal that is never changed: a line for each
folder's end, each decision of a person, and each start of the daemon, with ids,
SHA-256, words and times only. Each minute in which something was entered the
daemon signs a checkpoint of all of it: three lines and a signature, to be mailed,
printed or timestamped. docs/audit.md says what that proves, and what it does not.`,
		Example: "  idenfy-batch ledger checkpoint",
		Args:    cobra.NoArgs,
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() } // so that what is no command is said to be none
	c.AddCommand(newCheckpoint(), newProve(), newVerify())
	return c
}

func newCheckpoint() *cobra.Command {
	c := &cobra.Command{
		Use:   "checkpoint",
		Short: "Print the newest signed checkpoint, and the key to verify it with",
		Long: `Checkpoint prints the newest signed checkpoint of the ledger as it is (C2SP
tlog-checkpoint), and on standard error the verifier key that belongs to it. Send
both away: whoever has an old checkpoint can tell later whether the history that
it covers was rewritten. With --key it prints the key alone.

It works with and without a running daemon, as root, as the daemon's user, and as
a member of its group.`,
		Example: "  idenfy-batch ledger checkpoint >checkpoint-$(date +%F)\n  idenfy-batch ledger checkpoint --key >idenfy-batch.vkey\n  idenfy-batch ledger checkpoint | mail -s checkpoint auditor@example.com",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	onlyKey := c.Flags().Bool("key", false, "print the verifier key alone")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return withJournal(c, load, func(ctx context.Context, cfg *config.Config, r control.Reader) error {
			key, err := verifierKey(ctx, r)
			if err != nil {
				return err
			}
			if *onlyKey {
				fmt.Fprintln(c.OutOrStdout(), key)
				return nil
			}
			text, err := checkpoint(cfg)
			if err != nil {
				return err
			}
			if _, err := c.OutOrStdout().Write(text); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "\nverifier key: %s\n", key)
			return nil
		})
	}
	return c
}

// withJournal has do read the journal of the configuration.
func withJournal(c *cobra.Command, load func() (config.Config, error), do func(ctx context.Context, cfg *config.Config, r control.Reader) error) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, end, err := lookInto(ctx, &cfg)
	if err != nil {
		return err
	}
	defer end()
	return failed(do(ctx, &cfg, r))
}

// verifierKey is the key by the newest start of a daemon.
func verifierKey(ctx context.Context, r control.Reader) (string, error) {
	list, err := r.Entries(ctx, journal.Entries{Started: true, Most: 1})
	if err != nil {
		return "", err
	}
	if len(list) == 0 {
		return "", errors.New("no daemon has begun to work with this journal yet, so there is no key; start it")
	}
	e, err := ledger.Parse([]byte(list[0].Line))
	if err != nil {
		return "", fmt.Errorf("entry %d of the ledger was altered: %w", list[0].N, err)
	}
	return e.Key, nil
}

// maxNote bounds checkpoints and proofs, in bytes.
const maxNote = 256 << 10

func checkpoint(cfg *config.Config) ([]byte, error) {
	text, err := readNote(filepath.Join(daemon.Journal(cfg).Dir, daemon.CheckpointName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("there is no checkpoint yet; the daemon signs one each minute in which something was entered, and when it stops")
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w; run this as root, as the daemon's user, or as a member of the journal's group", err)
	}
	return text, err
}

func readNote(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxNote))
}

func newProve() *cobra.Command {
	c := &cobra.Command{
		Use:   "prove NAME|ID",
		Short: "Print a proof that a folder's result.json is in the ledger",
		Long: `Prove prints a proof (C2SP tlog-proof) that the result.json of a folder is in the
ledger as it is: the ledger's line with its SHA-256, the way through the tree, and
the newest checkpoint. Whoever has the proof, that result.json and the verifier
key can check it on any machine with idenfy-batch ledger verify --proof; nothing
else of the ledger is needed.

Name the folder as for idenfy-batch show. It works with and without a running
daemon, as root, as the daemon's user, and as a member of its group.`,
		Example: "  idenfy-batch ledger prove case-7 >case-7.tlog-proof",
		Args:    cobra.ExactArgs(1),
	}
	load := configFlag(c)
	c.ValidArgsFunction = func(c *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		return completeNames(c.Context(), load, args, begin)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return withJournal(c, load, func(ctx context.Context, cfg *config.Config, r control.Reader) error {
			proof, err := prove(ctx, cfg, r, args[0])
			if err == nil {
				_, err = c.OutOrStdout().Write(proof)
			}
			return err
		})
	}
	return c
}

func prove(ctx context.Context, cfg *config.Config, r control.Reader, name string) ([]byte, error) {
	l, err := lying(ctx, cfg, r, name)
	if err != nil {
		return nil, err
	}
	dir, err := cfg.Spool().OpenFolder(spool.Place(l.Place), l.Name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	data, err := drop.ReadFile(dir, sidecar.Name, maxResult)
	if err != nil {
		return nil, err
	}
	text, err := checkpoint(cfg)
	if err != nil {
		return nil, err
	}
	list, err := r.Entries(ctx, journal.Entries{Life: l.Result.ID, Most: journal.MostEntries})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	for _, row := range list {
		e, err := ledger.Parse([]byte(row.Line))
		if err != nil {
			return nil, fmt.Errorf("entry %d of the ledger was altered: %w", row.N, err)
		}
		if e.SHA256 == hex.EncodeToString(sum[:]) {
			return ledger.Prove(row.N, []byte(row.Line), text, hashes(ctx, r))
		}
	}
	return nil, fmt.Errorf("%s of %s/%s is not as it was entered into the ledger: it was altered, or a decision was not carried out yet", sidecar.Name, l.Place, meta.Show(l.Name))
}

// hashes reads those of the ledger's tree.
func hashes(ctx context.Context, r control.Reader) ledger.Hashes {
	return func(n int64) ([]byte, error) {
		rows, err := r.Entries(ctx, journal.Entries{From: n, Most: 1})
		if err == nil && (len(rows) == 0 || rows[0].N != n) {
			err = fmt.Errorf("entry %d of the ledger is missing", n)
		}
		if err != nil {
			return nil, err
		}
		return rows[0].Hashes, nil
	}
}

// lying returns the only life of that name, or id, whose folder is in a final
// place.
func lying(ctx context.Context, cfg *config.Config, r control.Reader, name string) (*journal.Told, error) {
	const most = 10
	all, err := r.Show(ctx, journal.Search{Key: name, Most: most})
	if err != nil {
		return nil, err
	}
	if all.Total == 0 {
		return nil, unknown(name, all.Near)
	}
	var found []*journal.Told
	var exact *journal.Told
	for i := range all.Stories {
		for k := range all.Stories[i].Lives {
			l := &all.Stories[i].Lives[k]
			dir, err := cfg.Spool().OpenFolder(spool.Place(l.Place), l.Name)
			if !spool.Place(l.Place).Final() || l.Name == "" || err != nil {
				continue
			}
			id, err := sidecar.ID(dir, sidecar.Name)
			if err := errors.Join(err, dir.Close()); err != nil {
				return nil, err
			}
			if id != l.Result.ID {
				continue
			}
			found = append(found, l)
			if id == strings.ToUpper(name) || l.Place+"/"+l.Name == strings.TrimRight(name, "/") {
				exact = l
			}
		}
	}
	switch {
	case exact != nil:
		return exact, nil
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return nil, fmt.Errorf("no folder of %s has ended and lies where it was put; idenfy-batch show tells what became of it", meta.Show(name))
	}
	var where []string
	for _, l := range found {
		where = append(where, l.Place+"/"+meta.Show(l.Name))
	}
	return nil, fmt.Errorf("there are %d: %s; name one of them so", len(found), strings.Join(where, ", "))
}

// maxResult bounds a result that is read, in bytes.
const maxResult = 64 << 20

func newVerify() *cobra.Command {
	c := &cobra.Command{
		Use:   "verify --proof FILE --key KEY RESULT",
		Short: "Check a proof that a result.json is in a ledger",
		Long: `Verify checks a proof that idenfy-batch ledger prove printed: that the ledger whose
verifier key is given has exactly this result.json, and that the checkpoint in the
proof was signed with that key. It needs no spool, no configuration and no
network. The key is that of idenfy-batch ledger checkpoint --key, or a file with
it; have it from somebody whom you believe, and not from whoever gave the proof.`,
		Example: "  idenfy-batch ledger verify --proof case-7.tlog-proof --key idenfy-batch.vkey result.json",
		Args:    cobra.ExactArgs(1),
	}
	proof := c.Flags().String("proof", "", "the proof (`file`)")
	key := c.Flags().String("key", "", "the verifier `key`, or a file with it")
	for _, name := range []string{"proof", "key"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // it stands two lines above
		}
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return failed(verifyProof(c.OutOrStdout(), *proof, *key, args[0]))
	}
	return c
}

func verifyProof(out io.Writer, proof, key, result string) error {
	text, err := readNote(proof)
	if err != nil {
		return err
	}
	if _, err := os.Stat(key); err == nil {
		data, err := readNote(key)
		if err != nil {
			return err
		}
		key = string(data)
	}
	data, err := os.ReadFile(result)
	if err != nil {
		return err
	}
	p, err := ledger.Verify(text, key, data)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "✓ %s is that of submission %s, as the ledger %s has it:\n  entry %d of %d: %s\n", meta.Show(filepath.Base(result)), p.Entry.ID, p.Checkpoint.Origin, p.N, p.Checkpoint.N, fact(&p.Entry))
	return nil
}

// fact says what an entry tells.
func fact(e *ledger.Entry) string {
	at := e.At.UTC().Format("2006-01-02 15:04:05 MST")
	switch e.Kind {
	case ledger.Decided:
		return fmt.Sprintf("at %s a person decided: %s; %s, to %s", at, e.Action, e.Outcome, e.Place)
	case ledger.Adopted:
		return fmt.Sprintf("at %s it was taken over as %s, in %s", at, e.Outcome, e.Place)
	default:
		return fmt.Sprintf("at %s it ended as %s, to %s", at, e.Outcome, e.Place)
	}
}
