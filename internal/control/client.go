package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/retention"
)

// ErrNoDaemon says that no daemon runs on the spool.
var ErrNoDaemon = errors.New("no daemon runs on this spool")

// RefusedError is the daemon's reason not to do what it was asked.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// Client asks a running daemon.
type Client struct {
	http *http.Client
	pid  int
}

// PID is the daemon's process, by the kernel's word; 0: of another namespace.
func (c *Client) PID() int { return c.pid }

// Dial finds the daemon that works on the spool below root. A command that the
// service itself runs finds its own, whatever root is.
func Dial(root string) (*Client, error) {
	dirs := []string{filepath.Join(root, dirName), filepath.Join(root, dirName, linkName)}
	if run := runtimeDir(); run != "" {
		dirs = append([]string{run}, dirs...)
	}
	for _, dir := range dirs {
		c, err := connect(context.Background(), dir)
		switch {
		case err == nil:
			cred, _ := peerOf(c)
			_ = c.Close() // it showed that somebody is there
			return &Client{pid: int(cred.Pid), http: &http.Client{
				Timeout: maxTime + 10*time.Second,
				Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return connect(ctx, dir)
				}},
			}}, nil
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ECONNREFUSED):
		default:
			return nil, fmt.Errorf("the daemon can't be asked: %s: %w; run this as root or as the daemon's user", dir, err)
		}
	}
	return nil, ErrNoDaemon
}

func connect(ctx context.Context, dir string) (c net.Conn, err error) {
	err = through(dir, func(path string) error {
		var d net.Dialer
		d.Timeout = 10 * time.Second
		c, err = d.DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}

// Close drops the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Reload has the daemon read its configuration again, and returns when that is
// in force; note is what of it takes more. A *RefusedError says why the old
// one stays.
func (c *Client) Reload(ctx context.Context) (note string, err error) {
	var a answer
	err = c.ask(ctx, "reload", struct{}{}, &a)
	return a.Note, err
}

// Decide has the daemon make a decision, and returns what came of it for each
// folder.
func (c *Client) Decide(ctx context.Context, d Decision) ([]Decided, error) {
	var list []Decided
	err := c.ask(ctx, "decide", d, &list)
	return list, err
}

// Purge has the daemon delete what is due, or say what would go; a part of it, if
// Next says so. What was done before an error is in the report.
func (c *Client) Purge(ctx context.Context, a retention.Ask) (retention.Report, error) {
	var made Purged
	err := c.ask(ctx, "purge", a, &made)
	if err == nil && made.Err != "" {
		err = &RefusedError{made.Err}
	}
	return made.Report, err
}

// soon is how long State waits for a daemon that starts, or hangs.
const soon = 3 * time.Second

// State has the daemon say how it is, into what is JSON of that.
func (c *Client) State(ctx context.Context, into any) error {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	return c.ask(ctx, "state", struct{}{}, into)
}

// Submission tells the daemon of a submission that it does not make itself. A
// *RefusedError says why it is not to be made.
func (c *Client) Submission(ctx context.Context, s Submission) error {
	var a answer
	return c.ask(ctx, "submission", s, &a)
}

// Bounds of an answer.
const (
	maxAnswer = 64 << 20 // bytes
	readTime  = 30 * time.Second
)

// List implements Reader.
func (c *Client) List(ctx context.Context, q journal.Query) (list []journal.Folder, err error) {
	err = c.read(ctx, "list", q, &list)
	return list, err
}

// Show implements Reader.
func (c *Client) Show(ctx context.Context, s journal.Search) (all journal.Stories, err error) {
	err = c.read(ctx, "show", s, &all)
	return all, err
}

// Names implements Reader.
func (c *Client) Names(ctx context.Context, s journal.Search) (names []string, err error) {
	err = c.read(ctx, "names", s, &names)
	return names, err
}

// Entries implements Reader.
func (c *Client) Entries(ctx context.Context, q journal.Entries) (list []journal.Row, err error) {
	err = c.read(ctx, "entries", q, &list)
	return list, err
}

// Lives implements Reader.
func (c *Client) Lives(ctx context.Context, q journal.Lives) (list []journal.Standing, err error) {
	err = c.read(ctx, "lives", q, &list)
	return list, err
}

// Count implements Reader.
func (c *Client) Count(ctx context.Context, s journal.Span) (list []journal.Counted, err error) {
	err = c.read(ctx, "count", s, &list)
	return list, err
}

// Judged implements Reader.
func (c *Client) Judged(ctx context.Context, s journal.Span) (list []journal.Judged, err error) {
	err = c.read(ctx, "judged", s, &list)
	return list, err
}

// Extent implements Reader.
func (c *Client) Extent(ctx context.Context, s journal.Span) (e journal.Extent, err error) {
	err = c.read(ctx, "extent", s, &e)
	return e, err
}

func (c *Client) read(ctx context.Context, what string, question, into any) error {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	return c.ask(ctx, what, question, into)
}

func (c *Client) ask(ctx context.Context, what string, question, into any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://daemon/"+what, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the daemon gave no answer (it ends, or too many ask at once; try again): %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the daemon's answer broke off: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var a answer
		if json.Unmarshal(data, &a) != nil || a.Err == "" {
			a.Err = "the daemon answered " + res.Status
		}
		if res.StatusCode == http.StatusForbidden {
			return fmt.Errorf("%w: %s", fs.ErrPermission, a.Err)
		}
		return &RefusedError{a.Err}
	}
	return json.Unmarshal(data, into)
}
