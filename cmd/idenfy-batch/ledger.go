package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/verify"
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

var errNoCheckpoint = errors.New("there is no checkpoint yet; the daemon signs one each minute in which something was entered, and when it stops")

func checkpoint(cfg *config.Config) ([]byte, error) {
	text, err := readNote(filepath.Join(daemon.Journal(cfg).Dir, daemon.CheckpointName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoCheckpoint
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
		Use:   "verify [--checkpoint FILE] | --proof FILE --key KEY RESULT",
		Short: "Find what was altered since it was entered; or check a proof",
		Long: `Verify holds the ledger, its tree, its checkpoint, the journal, and every folder
in done, failed and hold against each other, and names what was altered, removed
or added since, by folder. It exits 1 if there is anything. What was requeued or
resolved, or is being worked on, is no alteration. With --checkpoint, a checkpoint
that was sent away earlier, it also tells whether the history that it covers is
still there: without one, whoever has the key and the database can have rewritten
both. It reads only, works beside a daemon and without one, and needs a user who
may read the folders: root, the daemon's user, or a member of its group. --key is
the verifier key that checkpoints are checked with, or a file with it, in place
of that in the ledger. --json prints an object with findings (code, id, place,
name, what) and summary.

With --proof it checks a proof that idenfy-batch ledger prove printed: that the
ledger whose verifier key is given has exactly this result.json, and that the
checkpoint in the proof was signed with that key. That needs no spool, no
configuration and no network. Have the key from somebody whom you believe, and
not from whoever gave the proof.`,
		Example: "  idenfy-batch ledger verify\n  idenfy-batch ledger verify --checkpoint checkpoint-2026-01-31\n  idenfy-batch ledger verify --proof case-7.tlog-proof --key idenfy-batch.vkey result.json",
	}
	load := configFlag(c)
	proof := c.Flags().String("proof", "", "check this proof (`file`)")
	key := c.Flags().String("key", "", "the verifier `key`, or a file with it")
	earlier := c.Flags().String("checkpoint", "", "hold the ledger against this earlier checkpoint, too (`file`)")
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.MarkFlagsMutuallyExclusive("proof", "checkpoint")
	c.MarkFlagsMutuallyExclusive("proof", "json")
	c.Args = func(c *cobra.Command, args []string) error {
		if *proof == "" {
			return cobra.NoArgs(c, args)
		}
		if *key == "" {
			return errors.New("--proof needs --key, the verifier key of the ledger")
		}
		return cobra.ExactArgs(1)(c, args)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if *proof != "" {
			return failed(verifyProof(c.OutOrStdout(), *proof, *key, args[0]))
		}
		return withJournal(c, load, func(ctx context.Context, cfg *config.Config, r control.Reader) error {
			debug.SetGCPercent(40) // what is kept grows with the folders, what is thrown away is little work
			s := survey{out: c.OutOrStdout(), json: *asJSON}
			o := verify.Options{Paths: cfg.Spool(), Reader: r, Marker: cfg.Completeness.ReadyMarker, Settle: verify.Settle, Told: s.told, Found: s.found}
			var err error
			if o.Own, err = checkpointIfAny(cfg); err == nil && *earlier != "" {
				o.Earlier, err = readNote(*earlier)
			}
			if err == nil {
				o.Key, err = keyOf(*key)
			}
			if err != nil {
				return err
			}
			sum, err := verify.All(ctx, o)
			return s.end(sum, err)
		})
	}
	return c
}

// checkpointIfAny returns the newest one; none: nil.
func checkpointIfAny(cfg *config.Config) ([]byte, error) {
	text, err := checkpoint(cfg)
	if errors.Is(err, errNoCheckpoint) {
		return nil, nil
	}
	return text, err
}

// keyOf returns a key that is given as it is, or by its file.
func keyOf(key string) (string, error) {
	if key == "" {
		return "", nil
	}
	if _, err := os.Stat(key); err != nil {
		return key, nil //nolint:nilerr // then it is the key itself
	}
	data, err := readNote(key)
	return strings.TrimSpace(string(data)), err
}

// survey shows how a verification goes.
type survey struct {
	out      io.Writer
	json     bool
	shown    bool // a line of progress
	last     time.Time
	findings []verify.Finding
}

func (s *survey) told(done, total int) {
	if s.json || !isTerminal(s.out) || done != total && time.Since(s.last) < 100*time.Millisecond {
		return
	}
	s.last, s.shown = time.Now(), true
	if total == 0 {
		fmt.Fprintf(s.out, "\r%d lines of the ledger and the journal", done)
		return
	}
	fmt.Fprintf(s.out, "\r\x1b[K%d of %d folders", done, total)
}

func (s *survey) clear() {
	if s.shown {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.shown = false
	}
}

func (s *survey) found(f verify.Finding) {
	s.findings = append(s.findings, f)
	if s.json {
		return
	}
	s.clear()
	where := ""
	if f.Name != "" {
		where = f.Name
		if f.Place != "" {
			where = f.Place + "/" + f.Name
		}
		where += ": "
	}
	of := ""
	if f.ID != "" {
		of = " (" + f.ID + ")"
	}
	fmt.Fprintf(s.out, "✗ %s%s%s\n", where, f.What, of)
}

func (s *survey) end(sum verify.Summary, err error) error {
	s.clear()
	if s.json && err == nil {
		enc := json.NewEncoder(s.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(map[string]any{"findings": append([]verify.Finding{}, s.findings...), "summary": sum})
	}
	if err != nil {
		return err
	}
	if !s.json {
		s.tell(sum)
	}
	if sum.Findings > 0 {
		return fmt.Errorf("%d alterations were found", sum.Findings)
	}
	return nil
}

func (s *survey) tell(sum verify.Summary) {
	head := "✓ nothing was altered:"
	if sum.Findings > 0 {
		head = "looked at:"
	}
	fmt.Fprintf(s.out, "%s %d entries, %d folders, %d images\n", head, sum.Entries, sum.Folders, sum.Images)
	for _, note := range []struct {
		n    int
		text string
	}{
		{sum.Working, "are being worked on, or are to be moved"},
		{sum.Deleted, "images were deleted by retention, as recorded"},
		{sum.Purging, "folders are being purged, or that was cut off; the daemon finishes it"},
		{sum.Undone, "decisions are on record and were not carried out; the same command again does that"},
		{sum.Unknown, "folders had no result that could be read when they were taken over, so nothing can be said of what is in them"},
	} {
		if note.n > 0 {
			fmt.Fprintf(s.out, "  %d %s\n", note.n, note.text)
		}
	}
	if sum.Relation != "" {
		fmt.Fprintf(s.out, "  the earlier checkpoint: %s\n", sum.Relation)
	}
	fmt.Fprintf(s.out, "  head of the tree: %d entries, %s\n", sum.Entries, sum.Root)
}

func verifyProof(out io.Writer, proof, key, result string) error {
	text, err := readNote(proof)
	if err != nil {
		return err
	}
	if key, err = keyOf(key); err != nil {
		return err
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
	case ledger.Purged:
		return fmt.Sprintf("at %s its images were deleted (rule %s); it had ended as %s, in %s", at, e.Rule, e.Outcome, e.Place)
	case ledger.Adopted:
		return fmt.Sprintf("at %s it was taken over as %s, in %s", at, e.Outcome, e.Place)
	default:
		return fmt.Sprintf("at %s it ended as %s, to %s", at, e.Outcome, e.Place)
	}
}
