package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func newDemo() *cobra.Command {
	c := &cobra.Command{
		Use:   "demo",
		Short: "See it work, without any set-up",
		Long: `Demo makes a spool in a temporary folder, starts the sandbox API on a free port
of loopback, drops five folders that it draws itself, and shows them move. One has
a clientId in place of a token, so the daemon opens its session. It takes some
seconds, sends nothing anywhere, and exits 0 only if each folder ended where it
should, and the verdict on that one came by a signed webhook.`,
		Example: "  idenfy-batch demo\n  idenfy-batch demo --keep     # and look at the folders afterwards",
		Args:    cobra.NoArgs,
	}
	keep := c.Flags().Bool("keep", false, "leave the temporary folder there")
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := os.MkdirTemp("", "idenfy-batch-demo-")
		if err != nil {
			return failed(err)
		}
		d := &demo{out: c.OutOrStdout(), root: dir, begin: time.Now(), ended: make(chan string, 16), scanRef: sandbox.NewScanRef()}
		err = d.run(c.Context())
		if *keep {
			d.say("", "the folders are in %s", dir)
		} else {
			err = errors.Join(err, os.RemoveAll(dir))
		}
		return failed(err)
	}
	return c
}

// demo is one showing.
type demo struct {
	out   io.Writer
	root  string
	begin time.Time
	mu    sync.Mutex
	ended chan string // names of folders that reached their end, or got their verdict

	scanRef string // of the folder that comes with one, and gets no verdict
}

// webhookKey signs the sandbox's webhooks.
const webhookKey = "demo-webhook-key"

// drops are the sample folders, and where each has to end.
var drops = []struct {
	name, what string
	place      spool.Place
	outcome    sidecar.Outcome
}{
	{"case-1-good", "an ID card, whole and well; a clientId and no token", spool.Done, sidecar.Accepted},
	{"case-2-no-back", "its images: list leaves BACK out, so the API says no", spool.Failed, sidecar.Rejected},
	{"case-3-broken-meta", "meta.yaml is wrong in two places, so nothing is sent", spool.Failed, sidecar.Invalid},
	{"case-4-slow", "uploaded slowly, and not taken before it is whole", spool.Done, sidecar.Accepted},
	{"case-5-answer-lost", "the connection breaks before the answer comes", spool.Done, sidecar.Accepted},
}

// demoTime bounds a showing.
const demoTime = 14 * time.Second

func (d *demo) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	api := sandbox.New(sandbox.Options{Key: "demo-key", Secret: "demo-secret"})
	url, stopAPI, err := api.Start()
	if err != nil {
		return err
	}
	defer stopAPI()
	hooks, err := freePort()
	if err != nil {
		return err
	}
	cfg, err := d.config(url, hooks)
	if err != nil {
		return err
	}
	d.say("", "spool:       %s", d.root)
	d.say("", "sandbox API: %s", url)
	d.say("", "webhooks to: http://%s%s", hooks, cfg.Verdict.Path)
	api.Webhook(sandbox.Webhooks{URL: "http://" + hooks + cfg.Verdict.Path, Key: webhookKey, Script: func(scanRef string) []sandbox.Hook {
		if scanRef == d.scanRef {
			return nil
		}
		return []sandbox.Hook{{After: time.Second, Final: true}}
	}})

	runCtx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := daemon.Run(runCtx, daemon.Options{
			Load:    func() (config.Config, error) { return cfg, nil },
			Version: versionText(), Log: io.Discard, Screen: d.show,
		})
		done <- err
	}()
	err = d.drop(ctx, api)
	for range len(drops) + 1 { // and a verdict
		select {
		case <-d.ended:
		case <-ctx.Done():
		}
	}
	stop()
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	if err := d.tree(); err != nil {
		return err
	}
	return d.verdict(api)
}

// freePort is an address on loopback where nobody listens.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// config makes what the daemon needs: its configuration, its keys, an inbox.
func (d *demo) config(url, hooks string) (config.Config, error) {
	cfg := config.Default()
	cfg.Root = d.root
	cfg.API.BaseURL, cfg.API.Timeout = url, config.Duration(5*time.Second)
	cfg.API.KeyFile, cfg.API.SecretFile = filepath.Join(d.root, "api-key"), filepath.Join(d.root, "api-secret")
	cfg.Verdict.Listen, cfg.Verdict.KeyFile = hooks, filepath.Join(d.root, "webhook-key")
	cfg.Rate.PerHour = 0
	cfg.Completeness.Settle = config.Duration(time.Second)
	cfg.Completeness.Rescan = config.Duration(time.Second)
	cfg.Retry.First = config.Duration(500 * time.Millisecond)
	return cfg, errors.Join(
		os.WriteFile(cfg.API.KeyFile, []byte("demo-key"), 0o600),
		os.WriteFile(cfg.API.SecretFile, []byte("demo-secret"), 0o600),
		os.WriteFile(cfg.Verdict.KeyFile, []byte(webhookKey), 0o600),
		os.Mkdir(filepath.Join(d.root, string(spool.Inbox)), 0o770),
	)
}

// say prints a line with the time since the start.
func (d *demo) say(folder, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, "%5.1fs  %-20s %s\n", time.Since(d.begin).Seconds(), folder, fmt.Sprintf(format, args...))
}

// drop fills the inbox as uploaders do.
func (d *demo) drop(ctx context.Context, api *sandbox.Sandbox) error {
	front, back, face := sample.Front(), sample.Back(), sample.Face()
	token := func(n int) string { return fmt.Sprintf("DEMO%dTOKEN%016d", n, n) }
	card := func(n int, more ...string) []byte {
		return []byte(sample.Meta(token(n), "LT", "ID_CARD", more...))
	}
	api.Issue(token(5), d.scanRef)
	api.Script(token(5), sandbox.Step{Fault: sandbox.LoseAnswer})
	files := []map[string][]byte{
		{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte(sample.Person("customer-4711", "LT", "ID_CARD"))},
		{"front.jpg": front, "selfie.png": sample.FacePNG(), "meta.yaml": card(2, "images:", "  FRONT: front.jpg", "  FACE: selfie.png")},
		{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte("authToken: " + token(3) + "\ncontry: LT\ncountry: LTU\ndocumentType: ID_CARD\n")},
		nil,
		{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": card(5, "scanRef: "+d.scanRef)},
	}
	for n, f := range files {
		d.say(drops[n].name, "dropped: %s", drops[n].what)
		if f == nil {
			continue
		}
		if err := sample.Write(filepath.Join(d.root, "inbox", drops[n].name), f); err != nil {
			return err
		}
	}
	return d.slowly(ctx, filepath.Join(d.root, "inbox", drops[3].name), map[string][]byte{
		"meta.yaml": card(4), "FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face,
	})
}

// slowly uploads with pauses that are longer than settle.
func (d *demo) slowly(ctx context.Context, dir string, files map[string][]byte) error {
	if err := sample.Write(dir, map[string][]byte{"meta.yaml": files["meta.yaml"], "FRONT.jpg": files["FRONT.jpg"]}); err != nil {
		return err
	}
	d.say(filepath.Base(dir), "  meta.yaml and FRONT.jpg are there")
	for _, name := range []string{"BACK.jpg", "FACE.jpg"} {
		half := len(files[name]) / 2
		for i, part := range [][]byte{files[name][:half], files[name][half:]} {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(1300 * time.Millisecond):
			}
			// Closed between the halves: neither quiet nor a closed file says
			// that it is whole.
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o660)
			if err != nil {
				return err
			}
			if _, err := f.Write(part); err != nil {
				return errors.Join(err, f.Close())
			}
			if err := f.Close(); err != nil {
				return err
			}
			d.say(filepath.Base(dir), "  %s is there%s", name, []string{", half of it", ""}[i])
		}
	}
	return nil
}

// show tells what happens; it is an events.Sink.
func (d *demo) show(e events.Event) {
	switch e := e.(type) {
	case events.Claimed:
		d.say(e.Folder, "→ work/")
	case events.SessionAsked:
		d.say(e.Folder, "a session is opened for its clientId: HTTP %d", e.Opening.HTTPStatus)
	case events.Attempted:
		switch a := e.Attempt; {
		case a.State == sidecar.NoAnswer:
			d.say(e.Folder, "attempt %d: no answer; may have been taken, so not blindly sent again", a.N)
		case a.State == sidecar.Answered && a.HTTPStatus != 200:
			d.say(e.Folder, "attempt %d: HTTP %d %s: %s", a.N, a.HTTPStatus, a.Identifier, a.Message)
		}
	case events.Ended:
		note := ""
		if len(e.Result.Reasons) > 0 {
			note = " (" + e.Result.Reasons[0].Code + ")"
		}
		d.say(e.Result.Folder, "→ %s/ %s %s%s", e.Place, mark(e.Result.Outcome), e.Result.Outcome, note)
		d.ended <- e.Name
	case events.VerdictCame:
		d.say(e.Folder, "  a signed webhook: iDenfy says %s", e.Overall)
		d.ended <- e.Folder
	}
}

// tree prints the spool, and one result.
func (d *demo) tree() error {
	fmt.Fprintln(d.out)
	for _, p := range spool.Places() {
		fmt.Fprintf(d.out, "%s/\n", p)
		names, err := (spool.Paths{p: filepath.Join(d.root, string(p))}).List(p)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range names {
			entries, err := os.ReadDir(filepath.Join(d.root, string(p), name))
			if err != nil {
				return err
			}
			files := make([]string, len(entries))
			for i, e := range entries {
				files[i] = meta.Show(e.Name())
			}
			fmt.Fprintf(d.out, "  %-20s %s\n", meta.Show(name)+"/", strings.Join(files, " "))
		}
	}
	name := filepath.Join(string(drops[2].place), drops[2].name, sidecar.Name)
	data, err := os.ReadFile(filepath.Join(d.root, name))
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\n%s:\n%s\n", name, data)
	return nil
}

// verdict holds what happened against what should have.
func (d *demo) verdict(api *sandbox.Sandbox) error {
	var errs []error
	for _, want := range drops {
		root, _, err := openDir(filepath.Join(d.root, string(want.place), want.name))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s did not end in %s", want.name, want.place))
			continue
		}
		res, err := sidecar.Read(root)
		if err == nil && want.name == drops[0].name {
			if v, _, err := sidecar.ReadVerdict(root); err != nil || !v.Final {
				errs = append(errs, fmt.Errorf("%s has no verdict: %w", want.name, err))
			}
			if res.Session == nil || res.Session.By != sidecar.ByDaemon {
				errs = append(errs, fmt.Errorf("the daemon opened no session for %s", want.name))
			}
		}
		_ = root.Close() // it was read only
		if err != nil || res.Outcome != want.outcome {
			errs = append(errs, fmt.Errorf("%s did not end as %s", want.name, want.outcome))
		}
	}
	r := api.Report()
	for _, v := range r.Violations {
		errs = append(errs, errors.New(v))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "Each of the %d folders ended where it should. The API got %d submissions and took %d, none twice.\n", len(drops), r.Requests, r.Processed)
	return nil
}
