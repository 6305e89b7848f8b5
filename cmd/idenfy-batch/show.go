package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func newShow() *cobra.Command {
	c := &cobra.Command{
		Use:   "show NAME|ID|SCANREF|CLIENTID",
		Short: "Tell the story of a folder: what happened to it, when and why",
		Long: `Show tells what the journal knows of a folder, in all its lives: when it came,
what was sent, what was answered, how it ended and why, what people decided, and
where it lies now. Name it by the name that it was dropped with or has now
(case-7, failed/case-7.2), by an id, a scanRef, or a clientId. Several folders that had
one name are all shown, the newest last. Folders that had the same authToken, and
copies, are told together.

It works with and without a running daemon, as root, as the daemon's user, and as
a member of its group.

--json prints an object for each folder: lives, the oldest first, and decisions,
as in result.json. A life has place (where it was put; empty: somebody took it
out of work), name (in its place), state (claimed, pending, ended: to be moved,
or filed: moved), fate of what was sent (unsent, refused, unsettled: may have been
taken, or taken), forced (it was sent because a person forced it), next (the id
by which the folder came again), result, as result.json, without decisions,
verdict, as verdict.json, once iDenfy has said something, and other_sessions, what
it said of sessions in whose place another one was opened.`,
		Example: "  idenfy-batch show case-7\n  idenfy-batch show 328c6766-934e-11ed-bb9b-025ad99a18e7\n  idenfy-batch show case-7 --json | jq '.lives[].result.reasons'",
		Args:    cobra.ExactArgs(1),
	}
	load := configFlag(c)
	limit := c.Flags().Int("limit", 10, "of folders that had the same name, show this many of the newest")
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.ValidArgsFunction = func(c *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		return completeNames(c.Context(), load, args, begin)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return show(c, &cfg, args[0], *limit, *asJSON)
	}
	return c
}

// completeNames offers names of folders.
func completeNames(ctx context.Context, load func() (config.Config, error), args []string, begin string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cfg, err := load()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return complete(ctx, func(ctx context.Context) ([]string, error) {
		r, end, err := lookInto(ctx, &cfg)
		if err != nil {
			return nil, err
		}
		defer end()
		return r.Names(ctx, journal.Search{Key: begin, Most: completed})
	})
}

func show(c *cobra.Command, cfg *config.Config, key string, limit int, asJSON bool) error {
	if limit < 1 || limit > 1000 {
		return errors.New("--limit is not between 1 and 1000")
	}
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, end, err := lookInto(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()
	all, err := r.Show(ctx, journal.Search{Key: key, Most: limit})
	if err != nil {
		return failed(err)
	}
	if all.Total == 0 {
		return failed(unknown(key, all.Near))
	}
	if asJSON {
		enc := json.NewEncoder(c.OutOrStdout())
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		for i := range all.Stories {
			if err := enc.Encode(&all.Stories[i]); err != nil {
				return failed(err)
			}
		}
	} else {
		for i := range all.Stories {
			if i > 0 {
				fmt.Fprintln(c.OutOrStdout())
			}
			t := teller{out: c.OutOrStdout(), paths: cfg.Spool()}
			t.story(&all.Stories[i])
		}
	}
	if more := all.Total - len(all.Stories); more > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "%d older folders had that name, too; --limit shows more\n", more)
	}
	return nil
}

// completed is how many names a shell is offered, and within what time.
const completed = 200

// complete asks for names that a shell can take as they are.
func complete(ctx context.Context, ask func(context.Context) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	names, _ := ask(ctx) // without them there is nothing to complete
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, `"`) })
	return names, cobra.ShellCompDirectiveNoFileComp
}

// unknown says that nobody has a name, and which ones are like it.
func unknown(key string, near []string) error {
	hint := "idenfy-batch list shows what the daemon took, idenfy-batch status what waits in the inbox"
	if len(near) > 0 {
		for i := range near {
			near[i] = meta.Show(near[i])
		}
		hint = "did you mean " + strings.Join(near, ", ") + "?"
	}
	return fmt.Errorf("the journal knows no folder %s; %s", meta.Show(key), hint)
}

// teller tells stories to people.
type teller struct {
	out   io.Writer
	paths spool.Paths
}

// step prints what happened at a time, and what else there is to say of it.
func (t *teller) step(at sidecar.Time, what string, more ...string) {
	fmt.Fprintf(t.out, "  %-19s  %s\n", clock(at.Time), what)
	for _, m := range more {
		t.note(m)
	}
}

func (t *teller) note(text string) { fmt.Fprintf(t.out, "  %-19s    %s\n", "", text) }

func (t *teller) story(s *journal.Story) {
	last := &s.Lives[len(s.Lives)-1]
	fmt.Fprintf(t.out, "%s: %s\n", meta.Show(last.Result.Folder), t.whereabouts(last))
	if s.Omitted > 0 {
		fmt.Fprintf(t.out, "\n  (%d older lives are not shown)\n", s.Omitted)
	}
	told := map[string]bool{}
	for i := range s.Lives {
		l := &s.Lives[i]
		told[l.Result.ID] = true
		fmt.Fprintf(t.out, "\n%s, id %s\n", title(l, i > 0 || s.Omitted > 0), l.Result.ID)
		t.life(l)
		for _, d := range s.Decisions {
			if d.Result == l.Result.ID {
				t.decision(&d)
			}
		}
		if l.Next == "" && l != last {
			t.note("this one is " + t.whereabouts(l))
		}
	}
	for _, d := range s.Decisions {
		if !told[d.Result] && s.Omitted == 0 {
			t.decision(&d)
		}
	}
}

func title(l *journal.Told, again bool) string {
	name := meta.Show(l.Result.Folder)
	if again {
		return name + ", once more"
	}
	return name
}

func (t *teller) life(l *journal.Told) {
	r := l.Result
	inbox := "the inbox"
	if r.Inbox != "" && r.Inbox != string(spool.Inbox) {
		inbox = "inbox " + meta.Show(r.Inbox)
	}
	if at := r.Times.FirstSeen; !at.IsZero() {
		t.step(at, "seen in "+inbox+uploaded(r))
	}
	if at := r.Times.Complete; !at.IsZero() {
		t.step(at, "complete")
	}
	t.step(r.Times.Claimed, "taken out of "+inbox, request(l)...)
	if l.Forced {
		t.note("sent though it might be a second submission: a person forced it")
	}
	t.tries(r)
	if l.State == journal.Claimed || l.State == journal.Pending {
		for _, reason := range r.Reasons {
			t.note("waits: " + meta.Show(reason.Message))
		}
		return
	}
	end := r.Outcome
	t.step(r.Times.Finished, "ended as "+string(end)+ending(l))
	for _, reason := range r.Reasons {
		t.note(fmt.Sprintf("%s: %s", meta.Show(reason.Code), meta.Show(reason.Message)))
	}
	switch {
	case l.Fate == journal.Unsettled:
		t.note("whether iDenfy took what was sent is not known")
	case l.Fate == journal.Taken && end != sidecar.Accepted:
		t.note("iDenfy took what was sent")
	}
	for i := range l.Others {
		o := &l.Others[i]
		t.event(&o.VerdictEvent, "of session "+meta.Show(o.ScanRef)+", in whose place another one was opened")
	}
	t.verdict(l.Verdict)
	for i := range r.Purges {
		t.purge(&r.Purges[i])
	}
}

// byRule says why something was deleted, by the rule.
var byRule = map[sidecar.Rule]string{
	sidecar.OfDone:     "the time that it is kept in done was over",
	sidecar.OfFailed:   "the time that it is kept in failed was over",
	sidecar.OfHold:     "the time that it is kept in hold was over",
	sidecar.OfVerdicts: "the time that it is kept was over",
	sidecar.OfList:     "it was listed",
}

// purge tells what was deleted of the folder.
func (t *teller) purge(p *sidecar.Purge) {
	by := "the daemon"
	if p.By != nil {
		by = who(p.By)
	}
	what, files := "images, meta.yaml and what else came with it", 0
	if p.Rule == sidecar.OfVerdicts {
		what = "what iDenfy had sent"
	}
	for i := range p.Files {
		if !strings.HasSuffix(p.Files[i].File, "/") {
			files++
		}
	}
	if len(p.Files) > 0 {
		t.step(p.At, fmt.Sprintf("%s deleted %s: %d files, %s", by, what, files, size(p.Bytes())), byRule[p.Rule])
	}
	if d := p.Remote; d != nil {
		t.step(d.Started, by+" had iDenfy asked to delete its session: "+erased(d))
	}
}

// erased says what became of a request to delete a session.
func erased(d *sidecar.Deletion) string {
	switch {
	case d.Done():
		return "it did"
	case d.State == sidecar.Sending:
		return "under way, or cut off"
	case d.State == sidecar.NotSent:
		return "nothing was sent"
	case d.State == sidecar.NoAnswer:
		return "no answer; it may have been deleted"
	default:
		return strings.TrimSpace(fmt.Sprintf("answered with HTTP %d %s", d.HTTPStatus, meta.Show(d.Identifier)))
	}
}

// verdict tells what iDenfy said.
func (t *teller) verdict(v *sidecar.Verdict) {
	if v == nil {
		return
	}
	if v.Omitted > 0 {
		t.note(fmt.Sprintf("(%d older events of iDenfy's are not shown)", v.Omitted))
	}
	for i := range v.Events {
		t.event(&v.Events[i])
	}
	if v.Contradicted {
		t.note("two final verdicts contradict each other; look the session up in the iDenfy dashboard")
	}
}

// event tells one thing that iDenfy said.
func (t *teller) event(e *sidecar.VerdictEvent, more ...string) {
	what := map[sidecar.By]string{sidecar.ByWebhook: "iDenfy: ", sidecar.ByStatus: "iDenfy was asked: "}[e.By]
	switch {
	case e.Overall == "":
		what += "an event without a verdict"
	case e.Final:
		what += meta.Show(e.Overall) + ", final"
	default:
		what += meta.Show(e.Overall) + ", not final"
	}
	if checks := saidOf(&e.Said); checks != "" {
		more = append(more, checks)
	}
	t.step(e.Received, what, more...)
}

// saidOf names checks and tags.
func saidOf(s *sidecar.Said) string {
	var all []string
	for _, w := range slices.Concat([]string{s.AutoDocument, s.ManualDocument, s.AutoFace, s.ManualFace}, s.FraudTags, s.MismatchTags, s.SuspicionReasons, s.DenyReasons) {
		if w != "" {
			all = append(all, meta.Show(w))
		}
	}
	return strings.Join(all, ", ")
}

// ending says where an ended life was put.
func ending(l *journal.Told) string {
	switch {
	case l.Place == "":
		return "; somebody took the folder out of work/"
	case l.State == journal.Ended:
		return ", and is to be moved to " + l.Place + "/"
	default:
		return ""
	}
}

func uploaded(r *sidecar.Result) string {
	switch {
	case r.Uploader.User != "":
		return ", uploaded by " + meta.Show(r.Uploader.User)
	case r.Uploader.UID != 0:
		return fmt.Sprintf(", uploaded by uid %d", r.Uploader.UID)
	default:
		return ""
	}
}

// request says what was, or would be, sent.
func request(l *journal.Told) (lines []string) {
	req := &l.Result.Request
	if req.DocumentType != "" {
		lines = append(lines, fmt.Sprintf("%s %s, %d images, %d bytes", meta.Show(req.Country), meta.Show(req.DocumentType), len(req.Images), req.Bytes))
	}
	if list := l.Result.Defaults; len(list) > 0 {
		names := make([]string, len(list))
		for i, key := range list {
			names[i] = meta.Show(key)
		}
		lines = append(lines, "by default: "+strings.Join(names, ", "))
	}
	var known []string
	if req.TokenHint != "" {
		known = append(known, "token "+meta.Show(req.TokenHint))
	}
	if s := l.Result.Session; s != nil && s.ScanRef != "" {
		known = append(known, "scanRef "+meta.Show(s.ScanRef))
		if s.ClientID != "" {
			known = append(known, "clientId "+meta.Show(s.ClientID))
		}
	}
	if len(known) > 0 {
		lines = append(lines, strings.Join(known, ", "))
	}
	return lines
}

// tries tells what was asked of the service, in its order.
func (t *teller) tries(r *sidecar.Result) {
	next := 0
	asked := func(before int) {
		for ; next < len(r.Sessions) && r.Sessions[next].After < before; next++ {
			o := &r.Sessions[next]
			if next > 0 && o.N > r.Sessions[next-1].N+1 {
				t.note(fmt.Sprintf("… %d requests for a session in between are not kept", o.N-r.Sessions[next-1].N-1))
			}
			t.try(fmt.Sprintf("session, request %d: ", o.N), &o.Attempt)
		}
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		asked(a.N)
		if i > 0 && a.N > r.Attempts[i-1].N+1 {
			t.note(fmt.Sprintf("… %d attempts in between are not kept", a.N-r.Attempts[i-1].N-1))
		}
		t.try(fmt.Sprintf("attempt %d: ", a.N), a)
	}
	asked(math.MaxInt)
}

func (t *teller) try(what string, a *sidecar.Attempt) {
	switch a.State {
	case sidecar.Sending:
		what += "under way, or cut off"
	case sidecar.Answered:
		what += strings.TrimSpace(fmt.Sprintf("answered with HTTP %d %s", a.HTTPStatus, meta.Show(a.Identifier)))
	case sidecar.NoAnswer:
		what += "no answer; something may have been sent"
	case sidecar.NotSent:
		what += "nothing was sent"
	}
	if a.DurationMS > 0 {
		what += fmt.Sprintf(" (after %s)", time.Duration(a.DurationMS)*time.Millisecond)
	}
	var more []string
	if a.Message != "" {
		more = append(more, meta.Show(a.Message))
	}
	if a.RetryAfter > 0 {
		more = append(more, fmt.Sprintf("it asked to wait %s", time.Duration(a.RetryAfter)*time.Second))
	}
	t.step(a.Started, what, more...)
}

// decided says what people decided, by the action.
var decided = map[sidecar.Action]string{
	sidecar.Requeued:  "sent it back to the inbox",
	sidecar.Confirmed: "decided that it was accepted",
	sidecar.Denied:    "decided that it was rejected",
	sidecar.Resubmit:  "decided that it was not taken, and is to be sent again",
}

func (t *teller) decision(d *sidecar.Decision) {
	what := who(&d.By) + " " + decided[d.Action]
	if d.Forced {
		what += ", by --force"
	}
	var more []string
	if d.Comment != "" {
		more = append(more, "“"+meta.Show(d.Comment)+"”")
	}
	t.step(d.At, what, more...)
}

func who(p *sidecar.Person) string {
	name := p.User
	if name == "" {
		name = fmt.Sprintf("uid %d", p.UID)
	}
	if p.Login != "" && p.Login != p.User {
		name += fmt.Sprintf(" (logged in as %s)", p.Login)
	}
	return meta.Show(name)
}

// whereabouts says where the folder of a life is now, as far as this user can
// see.
func (t *teller) whereabouts(l *journal.Told) string {
	outcome := string(l.Result.Outcome)
	switch place := spool.Place(l.Place); {
	case l.Place == "":
		return outcome + "; somebody took it out of work/"
	case !place.Final() && !place.IsInbox() || l.Name == "":
		return outcome + ", in " + l.Place + "/"
	default:
		return outcome + t.at(place, l.Name, l.Result.ID)
	}
}

func (t *teller) at(place spool.Place, name, id string) string {
	shown := string(place) + "/" + meta.Show(name)
	if t.paths[place] == "" {
		return "; it was put into " + shown + ", and that inbox is not in the configuration any more"
	}
	_, err := os.Lstat(filepath.Join(t.paths[place], name))
	if errors.Is(err, fs.ErrNotExist) {
		return "; it was put into " + shown + ", and is not there any more"
	}
	if dir, err := t.paths.OpenFolder(place, name); err == nil {
		defer dir.Close()
		if is, err := sidecar.ID(dir, sidecar.Name); err == nil && is != "" && is != id {
			return "; it was put into " + shown + ", where another folder is now"
		}
	}
	return ", in " + shown
}
